"""Pixels of many objects, in memory or read when indexed, of dimensions ``(object, band, y, x)``."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from sbi_da.errors import SbiDaError

__all__ = ["CACHE_BYTES", "DIMS", "LazyPixels", "Pixels", "batches", "count_nonzero", "objects_within", "position", "tally"]

DIMS = ("object", "band", "y", "x")
CACHE_BYTES = 2**28
BATCH_BYTES = 2**23


class LazyPixels:
    """Pixels of shape ``(object, band, y, x)`` that are read when indexed.

    The object axis takes an integer, a slice, integers or a boolean mask; what follows indexes the result as numpy does,
    so that ``pixels[[3, 5], 0]`` is band 0 of objects 3 and 5. Several threads may read at once.

    Args:
        read: from distinct rising positions, shape ``(k,)``, to their pixels, shape ``(k, band, y, x)``.
        shape: of the whole.
        dtype: of the pixels; what ``read`` returns is cast to it.
        cache_bytes: how much of what was read lately is kept.
    """

    def __init__(
        self, read: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...], dtype: Any, cache_bytes: int = CACHE_BYTES
    ) -> None:
        if len(shape) != len(DIMS):
            raise SbiDaError(f"pixels need the dimensions {', '.join(DIMS)}, not shape {tuple(shape)}")
        self.dtype = np.dtype(dtype)
        self._shape = tuple(int(n) for n in shape[1:])
        self._index = np.arange(int(shape[0]))
        self._store = _Store(read, self._shape, self.dtype, cache_bytes)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(object, band, y, x)``."""
        return (len(self._index), *self._shape)

    @property
    def ndim(self) -> int:
        """Four."""
        return len(DIMS)

    @property
    def nbytes(self) -> int:
        """Size of all of it once read."""
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self._index)

    def __repr__(self) -> str:
        return f"LazyPixels(shape={self.shape}, dtype={self.dtype})"

    def __deepcopy__(self, memo: dict[int, Any]) -> "LazyPixels":
        return self  # nothing in it can be changed, and its cache is worth sharing

    def take(self, index: Any) -> "LazyPixels":
        """Objects by position (slice, integers or boolean mask), still unread; the cache is shared."""
        result = object.__new__(LazyPixels)
        result.dtype, result._shape, result._store = self.dtype, self._shape, self._store
        result._index = np.atleast_1d(self._index[position(index)])
        return result

    def __getitem__(self, key: Any) -> np.ndarray:
        parts = key if isinstance(key, tuple) else (key,)
        if not parts or parts[0] is Ellipsis:
            parts = (slice(None), *parts)
        chosen = self._index[position(parts[0])]
        read = self._store.fetch(np.atleast_1d(chosen))
        return read[0][parts[1:]] if np.ndim(chosen) == 0 else read[(slice(None), *parts[1:])]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("lazy pixels cannot become an array without a copy")
        read = self[:]
        return read if dtype is None else read.astype(dtype, copy=False)


class _Store:
    """Reads objects and keeps the latest."""

    def __init__(
        self, read: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...], dtype: np.dtype, cache_bytes: int
    ) -> None:
        self._read, self._shape, self._dtype = read, shape, dtype
        self._most = cache_bytes // max(1, int(np.prod(shape)) * dtype.itemsize)
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._lock = threading.Lock()

    def fetch(self, wanted: np.ndarray) -> np.ndarray:
        """Pixels of the objects at positions ``wanted``, in that order, in a new array."""
        result = np.empty((len(wanted), *self._shape), self._dtype)
        missed = np.ones(len(wanted), bool)
        with self._lock:
            for i, where in enumerate(wanted.tolist()):
                if where in self._kept:
                    self._kept.move_to_end(where)
                    result[i], missed[i] = self._kept[where], False
        if missed.any():
            # outside the lock: two threads may read the same object, none waits for another
            positions, inverse = np.unique(wanted[missed], return_inverse=True)
            block = np.asarray(self._read(positions))
            if block.shape != (len(positions), *self._shape):
                raise SbiDaError(f"pixels of shape {block.shape[1:]} were read where {self._shape} was announced")
            block = block.astype(self._dtype, copy=False)
            result[missed] = block[inverse]
            with self._lock:
                for i in range(max(0, len(positions) - self._most), len(positions)):
                    self._kept[int(positions[i])] = block[i].copy()  # a view would keep the whole block alive
                while len(self._kept) > self._most:
                    self._kept.popitem(last=False)
        return result


def position(index: Any) -> Any:
    """An index numpy takes on one axis: a list of nothing selects nothing."""
    if isinstance(index, slice | int | np.integer):
        return index
    array = np.asarray(index)
    if array.ndim > 1:
        raise IndexError(f"the object axis takes one dimension of positions, not {array.ndim}")
    return array.astype(int) if array.size == 0 and array.dtype != bool else array


Pixels = np.ndarray | LazyPixels


def batches(pixels: Pixels, objects: int | None = None) -> Iterator[tuple[slice, np.ndarray]]:
    """All the pixels, ``objects`` at a time (8 MiB if None): pairs of a slice of objects and their pixels."""
    step = objects or objects_within(pixels, BATCH_BYTES)
    for start in range(0, len(pixels), step):
        rows = slice(start, min(start + step, len(pixels)))
        yield rows, pixels[rows]


def objects_within(pixels: Pixels, size: int) -> int:
    """How many objects fit into so many bytes, at least one."""
    return max(1, size // max(1, int(np.prod(pixels.shape[1:])) * pixels.dtype.itemsize))


def count_nonzero(pixels: Pixels) -> int:
    """How many pixels are finite and not zero, with bounded memory."""
    return sum(tally(block) for _, block in batches(pixels))


def tally(block: np.ndarray) -> int:
    """How many entries are finite and not zero."""
    return int(np.count_nonzero(block if block.dtype.kind != "f" else np.isfinite(block) & (block != 0)))
