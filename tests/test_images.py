"""Pixels in memory and pixels that are read when indexed."""

import copy
import threading

import numpy as np
import pytest
import xarray as xr
from small_images import bytes_of

from sbi_da.errors import SbiDaError
from sbi_da.records.images import (
    DIMS,
    Images,
    LazyPixels,
    as_variable,
    count_nonzero,
    pixels_of,
    whole_pixels,
    write_pixels,
)
from sbi_da.records.records import ABSENT, LIMIT, OBSERVED


class Counting:
    def __init__(self, base: np.ndarray) -> None:
        self.base, self.read = base, []

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        assert (np.diff(positions) > 0).all()
        self.read += positions.tolist()
        return self.base[positions]


@pytest.fixture
def counting():
    return Counting(np.moveaxis(bytes_of(40), 3, 1))


def lazy(counting: Counting, objects_kept: int = 100) -> LazyPixels:
    return LazyPixels(counting, counting.base.shape, np.uint8, objects_kept * counting.base[0].nbytes)


@pytest.mark.parametrize(
    "key",
    [3, -1, np.int64(2), slice(30, 2, -7), [5, 1, 5], np.arange(40) % 3 == 0, [], ..., (slice(2, 4), 1), ([4, 0], slice(None), 3),
     (7, 1, 2, 3), (..., 0), (slice(None), [0, 2])],
)  # fmt: skip
def test_lazy_pixels_index_as_an_array(counting, key):
    pixels, expected = lazy(counting), counting.base[key]
    assert pixels[key].dtype == np.uint8
    assert np.array_equal(pixels[key], expected) and pixels[key].shape == expected.shape
    if not isinstance(key, tuple) and key is not ... and np.ndim(key if not isinstance(key, slice) else [0]):
        assert np.array_equal(pixels.take(key)[:], expected)


def test_cache_is_bounded_keeps_the_latest_and_is_shared(counting):
    pixels = lazy(counting, 10)
    np.asarray(pixels)
    assert len(counting.read) == 40
    counting.read.clear()
    pixels.take(np.arange(30, 40))[:]
    assert counting.read == []
    pixels[[30, 2, 2]]  # 30 is used again, so that 31 is now the oldest
    assert counting.read == [2]
    pixels[30], pixels[31]
    assert counting.read == [2, 31]


def test_lazy_pixels_from_threads(counting):
    pixels, wrong = lazy(counting, 5), []

    def work(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(50):
            index = rng.integers(0, 40, 7)
            if not np.array_equal(pixels[index], counting.base[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_a_tree_with_lazy_pixels_reads_nothing_until_values_are_asked_for(counting):
    pixels = lazy(counting, 0)
    data = xr.Dataset({"value": as_variable(pixels), "state": (("object", "band"), np.ones((40, 3)))}, coords={"band": list("irg")})
    some = data.isel(object=np.array([5, 1, 9])).isel(object=slice(1, 3))
    tree = xr.DataTree.from_dict({"/": xr.Dataset(coords={"object": np.arange(40)}), "/images/cam": data})
    repr(tree), tree.copy(), copy.deepcopy(tree), tree.isel(object=[2, 3])
    again = pixels_of(some["value"])
    assert isinstance(again, LazyPixels) and counting.read == []
    assert np.array_equal(again[:], counting.base[[1, 9]])
    assert np.array_equal(some["value"].values, counting.base[[1, 9]])
    assert np.array_equal(data["value"].isel(object=3, band=1, y=[0, 2]).values, counting.base[3, 1, [0, 2]])
    assert np.array_equal(pixels_of(data["value"].isel(y=slice(2, 5)))[4], counting.base[4, :, 2:5])
    loaded = xr.Variable(DIMS, counting.base)
    assert isinstance(pixels_of(loaded), np.ndarray)


def test_pixels_are_written_some_at_a_time_and_a_lost_chunk_is_noticed(counting, tmp_path):
    biggest = []

    def read(positions: np.ndarray) -> np.ndarray:
        biggest.append(len(positions))
        return counting(positions)

    base = counting.base
    base[:] = np.where(base < 128, 0, base)
    base[10:20] = 0
    xr.Dataset({"state": ("object", np.ones(40))}).to_zarr(tmp_path / "z", zarr_format=2, consolidated=False)
    written = write_pixels(tmp_path / "z", "value", LazyPixels(read, base.shape, np.uint8), chunk_bytes=10 * base[0].nbytes)
    assert written == np.count_nonzero(base) and whole_pixels(tmp_path / "z", "value")
    opened = xr.open_dataset(tmp_path / "z", engine="zarr", consolidated=False, cache=False)["value"]
    assert opened.dims == DIMS and opened.dtype == np.uint8
    pixels = pixels_of(opened)
    assert isinstance(pixels, LazyPixels) and count_nonzero(pixels) == written
    assert np.array_equal(pixels[[31, 2]], base[[31, 2]])
    (tmp_path / "z" / "value" / "1.0.0.0").unlink()  # objects 10 to 19, all of them zero
    assert not whole_pixels(tmp_path / "z", "value")


def test_images_check_their_shapes():
    good = {"bands": ("i", "r"), "pixels": np.zeros((4, 2, 5, 5), np.uint8), "error": np.zeros((4, 2)), "state": np.ones((4, 2), np.uint8)}
    images = Images(**good)
    assert len(images) == 4 and len(images.take([1, 3])) == 2 and images.take(np.array([True, False, False, True])).error.shape == (2, 2)
    hidden = images.where(np.array([[True, False]] * 4))
    assert (hidden.state == [[OBSERVED, ABSENT]] * 4).all() and hidden.state.dtype == np.uint8
    for name, bad, said in (
        ("pixels", np.zeros((4, 3, 5, 5), np.uint8), "need the shape"),
        ("pixels", np.zeros((4, 2, 5, 5)), "float64: convert"),
        ("state", np.ones((3, 2), np.uint8), "state must have the shape"),
        ("error", np.ones(4), "error must have the shape"),
    ):
        with pytest.raises(SbiDaError, match=said):
            Images(**{**good, name: bad})
    from sbi_da.records import states

    assert (ABSENT, OBSERVED, LIMIT) == (states.ABSENT, states.OBSERVED, states.LIMIT)
