"""Files of named arrays: npz, HDF5, Zarr."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sbi_da.errors import TableError
from sbi_da.records.columns import one_line

__all__ = ["ArrayFile", "open_arrays"]


@dataclass(frozen=True)
class ArrayFile:
    """Arrays that are read when asked for, npz files aside.

    Attributes:
        title: what messages call the file.
        kinds: shape and dtype of every array by name.
        read: an array by name and rows: rising positions, or ``...`` for all.
    """

    title: str
    kinds: dict[str, tuple[tuple[int, ...], np.dtype]]
    read: Callable[[str, Any], np.ndarray]


def open_arrays(path: Path, also: str) -> ArrayFile:
    """Open a file.

    Args:
        path: its suffix says the format: .npz, .h5, .hdf5, .hdf; a folder is a Zarr group.
        also: an array that may lie deeper in an HDF5 file, by its path there; of the others those at the top count.

    Raises:
        TableError: no such file, another format, or a file that cannot be read.
    """
    if not path.exists():
        raise TableError(f"{path}: no such file")
    suffix = path.suffix.lower()
    try:
        if path.is_dir():
            return _zarr(path)
        if suffix == ".npz":
            return _npz(path)
        if suffix in (".h5", ".hdf5", ".hdf"):
            return _hdf5(path, also)
    except TableError:
        raise
    except Exception as error:
        raise TableError(f"{path}: cannot be read ({one_line(error)}): the file is damaged, or of another format") from error
    raise TableError(f"{path}: unknown format {suffix!r}; known are .npz, .h5, .hdf5, .hdf, and folders of Zarr arrays")


def _npz(path: Path) -> ArrayFile:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
        arrays = {key: held[key] for key in held.files}
    return ArrayFile(str(path), {key: (a.shape, a.dtype) for key, a in arrays.items()}, lambda key, rows: arrays[key][rows])


def _zarr(path: Path) -> ArrayFile:
    import zarr

    arrays: dict[str, Any] = dict(sorted(zarr.open_group(str(path), mode="r").arrays()))

    def read(key: str, rows: Any) -> np.ndarray:
        return np.asarray(arrays[key][...] if rows is ... else arrays[key].oindex[rows])

    return ArrayFile(str(path), {key: (a.shape, a.dtype) for key, a in arrays.items()}, read)


def _hdf5(path: Path, also: str) -> ArrayFile:
    try:
        import h5py
    except ImportError as error:
        raise TableError(f"{path}: HDF5 files need h5py: pip install 'sbi-da[grids]'") from error

    def read(key: str, rows: Any) -> np.ndarray:
        if isinstance(rows, np.ndarray) and len(rows) == rows[-1] - rows[0] + 1:
            rows = slice(int(rows[0]), int(rows[-1]) + 1)  # HDF5 is slow at single rows
        with h5py.File(path, "r") as held:  # opened anew each time: an open file outlives neither threads nor forks
            return np.asarray(held[key][rows])

    with h5py.File(path, "r") as held:
        names = {*held, also} if also in held else {*held}
        kinds = {key: (held[key].shape, held[key].dtype) for key in sorted(names) if isinstance(held[key], h5py.Dataset)}
    return ArrayFile(str(path), kinds, read)
