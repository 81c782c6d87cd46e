"""Images of objects by one survey, in memory or decoded when asked for.

``pixels`` has dimensions ``(object, band, y, x)`` and holds bytes (uint8: colour composites) or fluxes (float32). It is
a numpy array, or :class:`LazyPixels`, which reads objects when they are indexed and remembers the latest of them up to a
number of bytes. Whether a band of an object is there is told by ``state``, never by the pixels.

A tree of :mod:`xarray` holds either through :func:`as_variable`; :func:`pixels_of` gives it back from such a variable, or
from one of an opened Zarr folder, without reading it. :func:`write_pixels` fills a Zarr array some objects at a time:
xarray itself would read all of it first.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from sbi_da.errors import SbiDaError
from sbi_da.records.pixels import (
    BATCH_BYTES,
    CACHE_BYTES,
    DIMS,
    LazyPixels,
    Pixels,
    batches,
    count_nonzero,
    objects_within,
    position,
    tally,
)
from sbi_da.records.states import ABSENT

__all__ = [
    "DIMS", "Images", "LazyPixels", "Pixels", "as_variable", "batches", "count_nonzero", "pixels_of", "whole_pixels",
    "write_pixels",
]  # fmt: skip


@dataclass(frozen=True)
class Images:
    """Images of one survey.

    Attributes:
        bands: their names.
        pixels: shape ``(object, band, y, x)``, uint8 or float32; whatever stands where ``state`` is ABSENT is not used.
        error: standard deviation of the noise of a pixel in the pixels' unit, shape ``(object, band)``; NaN: unknown.
        state: ABSENT or OBSERVED, shape ``(object, band)``.
    """

    bands: tuple[str, ...]
    pixels: Pixels
    error: np.ndarray
    state: np.ndarray

    def __post_init__(self) -> None:
        shape = self.pixels.shape
        if len(shape) != len(DIMS) or shape[1] != len(self.bands):
            raise SbiDaError(f"images in bands {', '.join(self.bands)} need the shape (object, {len(self.bands)}, y, x), not {shape}")
        if self.pixels.dtype not in (np.dtype("u1"), np.dtype("f4")):
            raise SbiDaError(f"pixels must be uint8 or float32, not {self.pixels.dtype}: convert them")
        for name in ("error", "state"):
            if getattr(self, name).shape != shape[:2]:
                raise SbiDaError(f"images: {name} must have the shape {shape[:2]} of objects and bands, not {getattr(self, name).shape}")

    def __len__(self) -> int:
        return int(self.pixels.shape[0])

    def take(self, index: Any) -> "Images":
        """Objects by position: a slice, integers or a boolean mask. Lazy pixels stay so."""
        pixels = self.pixels.take(index) if isinstance(self.pixels, LazyPixels) else self.pixels[position(index)]
        return Images(self.bands, pixels, self.error[index], self.state[index])

    def where(self, keep: np.ndarray) -> "Images":
        """The same with bands absent where ``keep``, boolean of shape ``(object, band)``, is False."""
        return Images(self.bands, self.pixels, self.error, np.where(keep, self.state, ABSENT).astype(np.uint8))


class _Backend(BackendArray):
    """Lazy pixels as xarray wants its own backends' arrays."""

    def __init__(self, pixels: LazyPixels) -> None:
        self.pixels, self.shape, self.dtype = pixels, pixels.shape, pixels.dtype

    def __getitem__(self, key: Any) -> np.ndarray:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.OUTER, self._outer)

    def _outer(self, key: tuple[Any, ...]) -> np.ndarray:
        result = self.pixels[key[0]]
        gone = int(np.ndim(key[0]) == 0 and not isinstance(key[0], slice))
        for axis in range(len(DIMS) - 1, 0, -1):  # from the last, so that an axis an integer removes moves none to come
            result = result[(slice(None),) * (axis - gone) + (key[axis],)]
        return result


def as_variable(pixels: Pixels) -> xr.Variable:
    """A variable of dimensions ``(object, band, y, x)``; lazy pixels are read only when its values are asked for."""
    data = indexing.LazilyIndexedArray(_Backend(pixels)) if isinstance(pixels, LazyPixels) else pixels
    return xr.Variable(DIMS, data)


def pixels_of(variable: xr.Variable | xr.DataArray, cache_bytes: int = CACHE_BYTES) -> Pixels:
    """The pixels of a variable: as they are where they lie in memory, else to be read on demand.

    Args:
        variable: made by :func:`as_variable`, or opened from a file by xarray with ``cache=False``.
        cache_bytes: for a variable of a file, how much of it is kept in memory.
    """
    if isinstance(variable, xr.DataArray):
        variable = variable.variable
    data = variable._data  # no public attribute tells a lazy variable without loading it
    if not isinstance(data, indexing.ExplicitlyIndexed):
        return np.asarray(data)
    if isinstance(data, indexing.LazilyIndexedArray) and isinstance(data.array, _Backend):
        key = data.key.tuple
        if all(isinstance(k, slice) and k.indices(n) == (0, n, 1) for k, n in zip(key[1:], data.array.shape[1:], strict=True)):
            return data.array.pixels.take(key[0])
    return LazyPixels(lambda index: variable[index].values, variable.shape, variable.dtype, cache_bytes)


def write_pixels(folder: str | Path, name: str, pixels: Pixels, chunk_bytes: int = 2**18) -> int:
    """Add pixels to a Zarr 2 group on disk, some objects at a time.

    Args:
        folder: of a group that exists.
        name: of the new array.
        pixels: shape ``(object, band, y, x)``.
        chunk_bytes: size of a chunk: whole objects, at least one.

    Returns:
        How many pixels are finite and not zero.
    """
    import zarr

    group = zarr.open_group(str(folder), mode="r+", zarr_format=2, use_consolidated=False)
    chunk = min(objects_within(pixels, chunk_bytes), max(1, len(pixels)))
    array = group.create_array(
        name, shape=pixels.shape, dtype=pixels.dtype, chunks=(chunk, *pixels.shape[1:]),
        attributes={"_ARRAY_DIMENSIONS": list(DIMS)},
        fill_value=None,  # xarray would take one for a null, and bytes of that value for nothing
        config={"write_empty_chunks": True},  # else a lost chunk could not be told from one of zeros
    )  # fmt: skip
    total = 0
    for rows, block in batches(pixels, max(1, objects_within(pixels, BATCH_BYTES) // chunk) * chunk):
        array[rows] = block
        total += tally(block)
    return total


def whole_pixels(folder: str | Path, name: str) -> bool:
    """Whether every chunk :func:`write_pixels` wrote is still there; none is read."""
    import zarr

    array = zarr.open_group(str(folder), mode="r", use_consolidated=False)[name]
    return isinstance(array, zarr.Array) and array.nchunks_initialized == array.nchunks
