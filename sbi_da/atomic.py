"""Folders that appear whole or not at all."""

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from sbi_da.errors import SbiDaError

__all__ = ["refuse_occupied", "whole_folder"]


def refuse_occupied(path: str | Path, replace: Collection[str] = ()) -> None:
    """Raise ``SbiDaError`` if ``path`` exists and holds anything but the names in ``replace``."""
    path = Path(path)
    if path.exists() and not (path.is_dir() and {child.name for child in path.iterdir()} <= set(replace)):
        raise SbiDaError(f"{path} exists already and is something else: choose another name or remove it")


@contextmanager
def whole_folder(path: str | Path, replace: Collection[str] = ()) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its name when the block ends without an error.

    Args:
        path: final name.
        replace: an existing folder may be replaced if it holds these names, all or some, and nothing else: an earlier result
            of the same kind.

    Raises:
        SbiDaError: ``path`` exists and may not be replaced.
    """
    path = Path(path).resolve()
    refuse_occupied(path, replace)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if path.exists():
            earlier = path.with_name(f".{path.name}.{os.getpid()}.earlier")
            shutil.rmtree(earlier, ignore_errors=True)
            os.replace(path, earlier)
            os.replace(partial, path)
            shutil.rmtree(earlier)
        else:
            os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
