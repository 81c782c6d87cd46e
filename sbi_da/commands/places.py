"""Where results may be written: commands check before any work."""

from collections.abc import Sequence
from pathlib import Path

from sbi_da.errors import SbiDaError

__all__ = ["check_files", "refuse_existing", "result_folder"]


def refuse_existing(path: Path) -> None:
    """Refuse a place that holds anything."""
    if path.exists():
        raise SbiDaError(f"{path} exists already: choose another name or remove it")


def result_folder(path: Path, replace: Sequence[str]) -> Path:
    """Where a folder of results may be written: a new or empty place, or an earlier result, which holds ``replace`` only."""
    from sbi_da.atomic import refuse_occupied

    path = path.expanduser().resolve()
    if path in (Path.cwd().resolve(), Path(path.anchor)):
        raise SbiDaError(f"{path} exists already and is something else: choose another name")
    refuse_occupied(path, replace)
    return path


def check_files(*paths: Path | None) -> None:
    """Refuse names of tables that cannot be written, before any work."""
    from sbi_da.records.columns import astropy_format

    for path in paths:
        if path is not None:
            astropy_format(path)
            if path.is_dir():
                raise SbiDaError(f"{path}: is a folder: choose another name")
