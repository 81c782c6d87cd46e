"""Folders that appear whole or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sbi_da.errors import SbiDaError

__all__ = ["whole_folder"]


@contextmanager
def whole_folder(path: str | Path, replace: str | None = None) -> Iterator[Path]:
    """A temporary folder beside ``path`` that takes its name when the block ends without an error.

    Args:
        path: final name.
        replace: an existing folder may be replaced if it holds a file of this name (an earlier result of the same kind).

    Raises:
        SbiDaError: ``path`` exists and may not be replaced.
    """
    path = Path(path)
    replaceable = replace is not None and (path / replace).is_file()
    if path.exists() and not replaceable and not (path.is_dir() and not any(path.iterdir())):
        raise SbiDaError(f"{path} exists already and is something else: choose another name or remove it")
    partial = path.with_name(f".{path.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if path.exists():
            earlier = path.with_name(f".{path.name}.earlier")
            shutil.rmtree(earlier, ignore_errors=True)
            os.replace(path, earlier)
            os.replace(partial, path)
            shutil.rmtree(earlier)
        else:
            os.replace(partial, path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
