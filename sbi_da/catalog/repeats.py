"""Identifiers that occur more than once in a catalogue, however it is split, found in memory that does not grow with its rows."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sbi_da.catalog.rows import identifiers_of
from sbi_da.catalog.sources import Partition
from sbi_da.errors import TableError
from sbi_da.records.columns import one_line, open_source, remedy
from sbi_da.records.identifiers import ROW_NUMBER, keys

__all__ = ["find_repeats", "repeated"]

AT_ONCE = 2_000_000
"""Identifiers that are compared at a time."""
SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""Odd, near the golden ratio of the range: consecutive numbers go to different buckets (Knuth 1998, section 6.4)."""


def repeated(found: np.ndarray) -> np.ndarray:
    """Keys that occur more than once, sorted."""
    unique, counts = np.unique(found, return_counts=True)
    return unique[counts > 1]


def find_repeats(partitions: Sequence[Partition], id_column: str, folder: Path) -> np.ndarray:
    """Keys of the identifiers that occur more than once, sorted.

    Args:
        partitions: of the catalogue.
        id_column: of identifiers, or ``"#row"``.
        folder: for keys that do not fit into memory, eight bytes a row; removed afterwards.

    Raises:
        TableError: what cannot be read, or no room.
    """
    if id_column == ROW_NUMBER:
        return np.empty(0, np.uint64)
    buckets = -(-sum(map(len, partitions)) // AT_ONCE)
    if buckets <= 1:
        return repeated(np.concatenate([np.empty(0, np.uint64), *_found(partitions, id_column)]))
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for found in _found(partitions, id_column):
            bucket = ((found * SPREAD) >> np.uint64(32)) % np.uint64(buckets)
            order = np.argsort(bucket, kind="stable")
            for k, some in enumerate(np.split(found[order], np.searchsorted(bucket[order], np.arange(1, buckets, dtype=np.uint64)))):
                with (folder / str(k)).open("ab") as stream:
                    stream.write(some.tobytes())
        return np.sort(np.concatenate([repeated(np.fromfile(folder / str(k), np.uint64)) for k in range(buckets)]))
    except OSError as error:
        raise TableError(f"{folder}: cannot be written ({one_line(error)}){remedy(error)}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _found(partitions: Sequence[Partition], id_column: str) -> Iterator[np.ndarray]:
    """Keys of the identifiers of each partition."""
    for partition in partitions:
        source = open_source(partition.path, partition.start, partition.stop, partition.title)
        ids, reasons = identifiers_of(source, id_column, partition.first)
        yield keys(ids[reasons == ""])
