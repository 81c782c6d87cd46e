"""The files of a catalogue and their partitions: Parquet in one file, a folder or a HATS catalogue; other formats are staged as Parquet."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sbi_da.catalog.hats import catalogue_root, pixel_of
from sbi_da.catalog.staging import stage
from sbi_da.errors import TableError
from sbi_da.records.columns import FORMATS, astropy_format, one_line, some

__all__ = ["Catalogue", "File", "Partition", "digest", "find_files", "open_catalogue"]

SMALLEST, LARGEST, PARTITIONS = 10_000, 500_000, 256
"""Rows of a partition, at least and at most, and how many partitions there are in between; of a HATS catalogue they are its makers'."""


@dataclass(frozen=True)
class File:
    """A file that a catalogue consists of.

    Attributes:
        name: within the catalogue.
        path: where it lies.
        size: bytes.
        modified: time of the last change, ns.
    """

    name: str
    path: Path
    size: int
    modified: int


@dataclass(frozen=True)
class Partition:
    """Rows that are answered in one piece, in a file of their own.

    Attributes:
        name: of the answer's file, within the folder of answers.
        path: of the Parquet file the rows are in.
        title: what messages call it.
        start: first row in this file.
        stop: end of the rows (not included).
        first: number of the first row in the catalogue.
    """

    name: str
    path: Path
    title: str
    start: int
    stop: int
    first: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Catalogue:
    """What there is to answer.

    Attributes:
        title: what messages call it.
        partitions: in order.
        columns: names of the columns that all files have.
        kinds: a partition for each set of types that these have.
        malformed: lines of a text that were no rows, with the reason.
    """

    title: str
    partitions: tuple[Partition, ...]
    columns: tuple[str, ...]
    kinds: tuple[Partition, ...]
    malformed: tuple[str, ...] = ()

    def __len__(self) -> int:
        return sum(len(partition) for partition in self.partitions)


def find_files(path: str | Path) -> tuple[list[File], Path | None]:
    """The files of a catalogue, in order, and its folder if it is a HATS catalogue.

    Raises:
        TableError: nothing there that could be read.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise TableError(f"{path}: no such file or folder")
    if not path.is_dir():
        astropy_format(path)
        return [_file(path.name, path)], None
    if (path / "zarr.json").exists():
        raise TableError(f"{path}: saved records, not a catalogue: ask sbi-da query, or give the table they were read from")
    root = catalogue_root(path)
    path = root or path
    names = sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.suffix.lower() in (".parquet", ".pq") and p.is_file())
    names = [n for n in names if not any(part.startswith(("_", ".")) for part in Path(n).parts)]
    if root:
        names = sorted((n for n in names if pixel_of(n)), key=lambda n: pixel_of(n) or (0, 0))
    if not names:
        held = some(sorted(p.name for p in path.iterdir()))
        raise TableError(f"{path}: no Parquet file in this folder; it holds {held}; files of other formats are read one at a time")
    return [_file(name, path / name) for name in names], root


def _file(name: str, path: Path) -> File:
    said = path.stat()
    return File(name, path, said.st_size, said.st_mtime_ns)


def digest(path: Path) -> str:
    """Hash of the content of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def open_catalogue(title: str, files: Sequence[File], whole: bool, staged: Path, effort: int = 1) -> Catalogue:
    """Find the partitions.

    Args:
        title: what messages call it.
        files: from :func:`find_files`.
        whole: whether every file is a partition, whatever its size.
        staged: folder for copies of what is not Parquet; those that are whole already are not made again.
        effort: how much longer a row takes than others do; partitions are as much smaller.

    Raises:
        TableError: a file that cannot be read, or whose columns differ from those of the others; no rows.
    """
    shapes: list[tuple[File, Path, int]] = []
    kinds: dict[str, int] = {}
    malformed: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    for file in files:
        path = file.path
        if FORMATS.get(path.suffix.lower()) != "parquet":
            path, malformed = stage(path, staged)
        rows, schema = _shape(path, file.path)
        names = tuple(schema.names)
        if columns and set(names) != set(columns):
            odd = some(sorted(set(names) ^ set(columns)))
            raise TableError(f"{file.path}: columns differ from those of {files[0].path.name} ({odd}): all files need the same columns")
        columns = columns or names
        kinds.setdefault(" ".join(str(schema.field(name).type) for name in sorted(names)), len(shapes))
        shapes.append((file, path.absolute(), rows))
    total = sum(rows for *_, rows in shapes)
    if not total and not malformed:
        raise TableError(f"{title}: the table has no rows")
    most = max(1, total) if whole else min(LARGEST // effort, max(SMALLEST // effort, total // PARTITIONS))
    parts: list[list[Partition]] = []
    first = 0
    for file, path, rows in shapes:
        parts.append(list(_split(file, path, rows, first, most)))
        first += rows
    partitions = tuple(partition for several in parts for partition in several)
    _refuse_clashes(partitions)
    return Catalogue(title, partitions, columns, tuple(parts[k][0] for k in kinds.values()), malformed)


def _refuse_clashes(partitions: Sequence[Partition]) -> None:
    """Refuse files whose answers would have the same name."""
    named: dict[str, Partition] = {}
    for partition in partitions:
        other = named.setdefault(partition.name, partition)
        if other is not partition:
            raise TableError(f"{other.title} and {partition.title} would both be answered in {partition.name}: rename one")


def _split(file: File, path: Path, rows: int, first: int, most: int) -> Iterator[Partition]:
    stem = re.sub(r"(\.[a-z]+)?(\.gz)?$", "", file.name, flags=re.IGNORECASE)
    if rows <= most:
        yield Partition(f"{stem}.parquet", path, str(file.path), 0, rows, first)
        return
    for k, start in enumerate(range(0, rows, most)):
        yield Partition(f"{stem}-{k:06d}.parquet", path, str(file.path), start, min(start + most, rows), first + start)


def _shape(path: Path, named: Path) -> tuple[int, Any]:
    """Number of rows, and the Arrow schema."""
    import pyarrow.parquet as pq

    try:
        metadata: Any = pq.read_metadata(path)
        return metadata.num_rows, metadata.schema.to_arrow_schema()
    except Exception as error:
        raise TableError(f"{named}: cannot be read as parquet ({one_line(error)})") from error
