"""Files that take their name once they are whole and on the disk, whatever happens in between."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

__all__ = ["PARTIAL", "durable", "partial_name", "read_json", "replacing", "write_json"]

PARTIAL = ".*.partial.*"
"""What files look like that are not whole."""


def partial_name(path: Path) -> Path:
    """A name for what is to become ``path``, that no other process or machine takes."""
    return path.with_name(f".{uuid4().hex}.partial.{path.name}")


def durable(path: Path) -> None:
    """Have the disk keep a file, before its name says that it is whole."""
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to be written, in a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_name(path)
    try:
        with partial.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write, or leave what is there."""
    with replacing(path) as stream:
        stream.write(json.dumps(content, indent=1).encode())


def read_json(path: Path) -> dict[str, Any] | None:
    """What a file says; None if there is none, or it is none of ours."""
    try:
        content = json.loads(path.read_text())
    except (FileNotFoundError, UnicodeDecodeError, json.JSONDecodeError):
        return None
    return content if isinstance(content, dict) else None
