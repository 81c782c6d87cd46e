"""Identifiers that occur more than once in a catalogue, however it is split, found in memory that does not grow with its rows.

Keys of 64 bits are spread over files by their highest bits, each of which is then sorted by itself. What was found is kept in a file,
sorted, and looked up there: each process maps it and reads what it asks for.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from sbi_da.catalog.rows import identifiers_of
from sbi_da.catalog.sources import Partition
from sbi_da.catalog.writing import replacing
from sbi_da.records.columns import open_source
from sbi_da.records.identifiers import ROW_NUMBER, keys

__all__ = ["find_repeats", "read_repeats", "repeated", "write_repeats"]

AT_ONCE = 2_000_000
"""Identifiers that are compared at a time."""


def repeated(found: np.ndarray) -> np.ndarray:
    """Keys that occur more than once, sorted."""
    unique, counts = np.unique(found, return_counts=True)
    return unique[counts > 1]


def find_repeats(partitions: Sequence[Partition], id_column: str, folder: Path) -> Iterator[np.ndarray]:
    """Keys of the identifiers that occur more than once, sorted, in pieces.

    Args:
        partitions: of the catalogue.
        id_column: of identifiers, or ``"#row"``.
        folder: for keys that do not fit into memory, eight bytes a row; removed afterwards.

    Raises:
        TableError: what cannot be read.
        OSError: no room.
    """
    if id_column == ROW_NUMBER:
        return
    buckets = -(-sum(map(len, partitions)) // AT_ONCE)
    if buckets <= 1:
        yield repeated(np.concatenate([np.empty(0, np.uint64), *_found(partitions, id_column)]))
        return
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for found in _found(partitions, id_column):
            bucket = ((found >> np.uint64(32)) * np.uint64(buckets)) >> np.uint64(32)
            for k, some in enumerate(np.split(found, np.searchsorted(bucket, np.arange(1, buckets, dtype=np.uint64)))):
                with (folder / str(k)).open("ab") as stream:
                    stream.write(some.tobytes())
        for k in range(buckets):
            yield repeated(np.fromfile(folder / str(k), np.uint64))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _found(partitions: Sequence[Partition], id_column: str) -> Iterator[np.ndarray]:
    """Keys of the identifiers of each partition, sorted; those that occur more often stand there twice."""
    for partition in partitions:
        source = open_source(partition.path, partition.start, partition.stop, partition.title)
        ids, reasons = identifiers_of(source, id_column, partition.first)
        unique, counts = np.unique(keys(ids[reasons == ""]), return_counts=True)
        yield np.repeat(unique, np.minimum(counts, 2))


def write_repeats(path: Path, pieces: Iterable[np.ndarray]) -> None:
    """Keep keys, and how many they are, behind them."""
    count = 0
    with replacing(path) as stream:
        for piece in pieces:
            stream.write(piece.astype("<u8").tobytes())
            count += len(piece)
        stream.write(np.array(count, "<u8").tobytes())


def read_repeats(path: Path) -> np.ndarray | None:
    """The keys in a file, sorted, read when they are looked at; None if it is not there, or not whole."""
    if not path.is_file() or path.stat().st_size % 8 or not path.stat().st_size:
        return None
    held = np.memmap(path, "<u8", "r")
    return held[:-1] if held[-1] == len(held) - 1 else None
