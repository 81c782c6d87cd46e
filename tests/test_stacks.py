"""Images stacked in one array, read from files of every format; and their split."""

import numpy as np
import pytest
from small_images import SIZE, bytes_of, survey

from sbi_da.errors import TableError, UnknownNameError
from sbi_da.records.image_sets import read_stack
from sbi_da.records.images import LazyPixels
from sbi_da.records.records import OBSERVED, Records
from sbi_da.records.splits import split_by_group
from sbi_da.surveys.card import Survey


def write_npz(path, images, **arrays):
    np.savez(path, images=images, **arrays)
    return path


def write_h5(path, images, **arrays):
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as held:
        for key, values in {"images": images, **arrays}.items():
            held.create_dataset(key, data=values.astype("S") if values.dtype.kind == "U" else values, chunks=True)
    return path


def write_zarr(path, images, **arrays):
    import zarr

    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    for key, values in {"images": images, **arrays}.items():
        group.create_array(key, data=values, chunks=(7, *values.shape[1:]))
    return path


@pytest.mark.parametrize(("write", "suffix"), [(write_npz, ".npz"), (write_h5, ".h5"), (write_zarr, "")])
@pytest.mark.parametrize("first", [False, True])
def test_stack(tmp_path, write, suffix, first):
    pixels = bytes_of(20)
    stored = np.moveaxis(pixels, 3, 1) if first else pixels
    label = np.arange(20) % 3 - (np.arange(20) == 4)
    arrays = {
        "label": label.astype(np.int8), "label_names": np.array(["early", "late", "merger"]), "z": np.linspace(0, 1, 20),
        "objid": np.array([f"g{k}" for k in range(20)]), "host": np.arange(20) // 2,
    }  # fmt: skip
    path = write(tmp_path / f"set{suffix}", stored, **arrays)
    records = read_stack(path, survey(), labels="label", id_column="objid", group_column="host", domain="simulated")
    assert records.attrs["domain"] == "simulated" and records.attrs["classes_morphology"] == ["early", "late", "merger"]
    assert records.ids.tolist() == arrays["objid"].tolist()
    assert np.array_equal(records.parameters["morphology"], label.astype(float))
    assert np.allclose(records.columns["z"], arrays["z"]) and records.columns["group"][3] == "1"
    assert (records.columns["image_flag"] == "").all()
    images = records.images("cam")
    assert np.array_equal(records.isel([7, 3]).images("cam").pixels[:], np.moveaxis(pixels, 3, 1)[[7, 3]])
    assert isinstance(images.pixels, LazyPixels) and images.bands == ("i", "r", "g")
    assert np.array_equal(images.pixels[:], np.moveaxis(pixels, 3, 1)) and (images.state == OBSERVED).all()
    saved = Records.open(records.save(tmp_path / "saved"))
    assert np.array_equal(saved.images("cam").pixels[5], np.moveaxis(pixels, 3, 1)[5])


def test_labels_of_real_objects_are_sealed(tmp_path):
    path = write_npz(tmp_path / "s.npz", bytes_of(6), label=np.array(["a", "b", "", "a", "b", "c"]), mass=np.arange(6.0))
    kept = {"labels": "label", "parameters": ["mass"], "classes": {"first": "a", "second": ["b"]}}
    records = read_stack(path, survey(), **kept)
    assert records.parameters == {}
    opened = records.opened().parameters
    assert np.array_equal(opened["morphology"], [0, 1, np.nan, 0, 1, np.nan], equal_nan=True) and opened["mass"][5] == 5
    assert "morphology" in read_stack(path, survey(), **kept, sealed=False).parameters
    assert read_stack(path, survey(), labels="label").attrs["classes_morphology"] == ["a", "b", "c"]
    whole = read_stack(write_npz(tmp_path / "n.npz", bytes_of(4), label=np.array([10, -1, 2, 2])), survey(), labels="label", sealed=False)
    assert np.array_equal(whole.parameters["morphology"], [1, np.nan, 0, 0], equal_nan=True)
    assert whole.attrs["classes_morphology"] == ["2", "10"]


def test_order_of_the_axes(tmp_path):
    square = np.arange(2 * 3 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3, 3)
    path = write_npz(tmp_path / "s.npz", np.repeat(np.repeat(square, 4, 1), 4, 2))
    assert read_stack(path, survey()).images("cam").pixels[0, :, 0, 0].tolist() == [0, 1, 2]
    open_order = write_npz(tmp_path / "o.npz", square)
    with pytest.raises(TableError, match="order of the axes open: pass order="):
        read_stack(open_order, survey(), resize="zoom")
    last = read_stack(open_order, survey(), resize="zoom", order="band last").images("cam").pixels
    first = read_stack(open_order, survey(), resize="zoom", order="band first").images("cam").pixels
    assert last[0, 1, 0, 0] == square[0, 0, 0, 1] and first[0, 1, 0, 0] == square[0, 1, 0, 0]
    with pytest.raises(TableError, match="has not the survey's bands: 3 .* band last or 3 .* band first"):
        read_stack(write_npz(tmp_path / "b.npz", np.zeros((2, 12, 12, 4), np.uint8)), survey())


def test_size_is_changed_on_request_only(tmp_path):
    path = write_npz(tmp_path / "s.npz", bytes_of(3, 24))
    with pytest.raises(TableError, match="24 x 24 pixels where the survey has 12 x 12: pass resize='crop'"):
        read_stack(path, survey())
    cropped = read_stack(path, survey(), resize="crop").images("cam").pixels[:]
    assert np.array_equal(cropped, np.moveaxis(bytes_of(3, 24)[:, 6:18, 6:18], 3, 1))
    with pytest.raises(TableError, match="too few to crop"):
        read_stack(path, survey(size=32), resize="crop")
    flux = np.random.default_rng(0).random((3, 3, 24, 24), np.float32)
    zoomed = read_stack(write_npz(tmp_path / "f.npz", flux), survey(False), resize="zoom").images("cam").pixels[:]
    assert zoomed.sum((2, 3)) == pytest.approx(flux.sum((2, 3)), rel=0.03)
    assert np.allclose(zoomed[0, 0, 5, 5] / 4, flux[0, 0, 10:12, 10:12].mean(), atol=0.2)


def test_floats_nulls_blanks_and_noise(tmp_path):
    rng = np.random.default_rng(1)
    flux = rng.normal(0, [[[[0.1]], [[0.2]], [[0.4]]]], (30, 3, SIZE, SIZE)).astype(np.float32)
    flux[2, 1] = np.nan
    flux[3, 0, 0, :4] = np.inf
    flux[4] = 0
    records = read_stack(write_npz(tmp_path / "f.npz", flux), survey(False))
    images, flags = records.images("cam"), records.columns["image_flag"]
    assert images.state[2].tolist() == [1, 0, 1] and images.state[3].all() and not images.state[4].any()
    assert flags[2] == "r: 100% nulls" and flags[3] == "" and flags[4] == "i: blank; r: blank; g: blank"
    assert np.nanmedian(images.error, 0) == pytest.approx([0.1, 0.2, 0.4], rel=0.3) and np.isnan(images.error[2, 1])
    assert np.isfinite(images.pixels[:]).all() and images.pixels[3, 0, 0, 0] == np.median(flux[3, 0][np.isfinite(flux[3, 0])])
    assert (images.pixels[2, 1] == 0).all() and np.array_equal(images.pixels[2, 0], flux[2, 0])


@pytest.mark.parametrize(
    ("changes", "options", "said"),
    [
        ({}, {"images": "pictures"}, "no array 'pictures'; it has images"),
        ({}, {"labels": "kind"}, "no array 'kind'"),
        ({"label": np.arange(4)}, {"labels": "label"}, "shape .4,., but there are 5 images"),
        ({"label": np.arange(5), "label_names": np.array(["a", "b"])}, {"labels": "label"}, "the label 4 has no name; there are 2: a, b"),
        ({"label": np.array(list("abcab"))}, {"labels": "label", "classes": {"x": ["q"]}}, "no row is of any class: .* hold q; .* a, b, c"),
        ({"label": np.array(list("abcab"))}, {"labels": "label", "classes": {"x": "a", "y": "a"}}, "'a' is given to two classes"),
        ({"objid": np.array([1, 2, 3, 2, 5])}, {"id_column": "objid"}, "identifier 2 occurs 2 times .rows 1 and 3.*id_column='#row'"),
        ({"objid": np.array([1, 2, 3, 2.5, 5])}, {"id_column": "objid"}, "whole numbers or text"),
        ({"objid": 5.9e17 + 1e3 * np.arange(5)}, {"id_column": "objid"}, "floats cannot hold identifiers exactly"),
        ({"object": np.arange(5)}, {}, "'object' of a root column is taken: rename that array"),
        ({"v": np.array([1, -1, 1, 1, 1])}, {"votes": {"a": "v"}}, "votes for 'a' run from -1 to 1: counts"),
        ({"images": np.zeros((5, 12, 12, 3), np.int16)}, {}, "bytes or floats, not int16"),
        ({"images": np.zeros((5, 12, 12, 3), np.uint8)}, {}, "none of the 5 images can be used; the first: i: blank"),
        ({"images": np.zeros((0, 12, 12, 3), np.uint8)}, {}, "no objects in it"),
        ({"mass": np.array(list("abcde"))}, {"parameters": ["mass"]}, "array 'mass': 'a', which is not a number, in 5 rows"),
        ({"images": np.array([{}, {}])}, {}, "cannot be read .Object arrays cannot be loaded"),
    ],
)  # fmt: skip
def test_bad_stacks(tmp_path, changes, options, said):
    np.savez(tmp_path / "s.npz", **{"images": bytes_of(5), **changes})
    with pytest.raises(TableError, match=said) as caught:
        read_stack(tmp_path / "s.npz", survey(), **options)
    assert "\n" not in str(caught.value)


def test_bad_stack_files(tmp_path):
    path = write_npz(tmp_path / "s.npz", bytes_of(5))
    (tmp_path / "t.npz").write_bytes(path.read_bytes()[:900])
    for name, said in (("t.npz", "cannot be read"), ("u.npz", "no such file"), ("v.txt", "unknown format")):
        if name == "v.txt":
            (tmp_path / name).write_text("x")
        with pytest.raises(TableError, match=said):
            read_stack(tmp_path / name, survey())
    with pytest.raises(TableError, match="bytes, but the survey's pixels are fluxes"):
        read_stack(path, survey(False))
    plain = Survey(name="s", title="s", reference="r", image=None, channels=[
        {"name": "p", "kind": "scalar", "column": "p", "error_column": "e", "noise": {"points": 1.0}}])  # fmt: skip
    with pytest.raises(TableError, match="'s' has no images"):
        read_stack(path, plain)


def test_a_damaged_chunk_is_flagged_and_not_a_crash(tmp_path):
    path = write_zarr(tmp_path / "z", bytes_of(20))
    (path / "images" / "1.0.0.0").write_bytes(b"nothing of the kind")
    records = read_stack(path, survey())
    bad = (records.columns["image_flag"] != "").nonzero()[0]
    assert bad.tolist() == list(range(7, 14)) and not records.images("cam").state[bad].any()
    assert np.array_equal(records.images("cam").pixels[6:15][[0, 8]], np.moveaxis(bytes_of(20), 3, 1)[[6, 14]])


def test_one_band_without_an_axis_and_a_class_without_objects(tmp_path):
    flux = np.random.default_rng(0).random((4, SIZE, SIZE), np.float32)
    path = write_npz(tmp_path / "s.npz", flux, label=np.array(list("aaba")))
    assert read_stack(path, survey(False, bands="r")).images("cam").pixels.shape == (4, 1, SIZE, SIZE)
    with pytest.warns(UserWarning, match="no object of class merger; the column has a, b"):
        read_stack(path, survey(False, bands="r"), labels="label", classes={"merger": "m", "other": ["a", "b"]})


def test_stratified_split_shares_each_class_and_keeps_groups(tmp_path):
    n = 400
    label = np.where(np.arange(n) < 40, "rare", "common")
    path = write_npz(tmp_path / "s.npz", bytes_of(n), label=label, host=np.arange(n) // 2)
    records = read_stack(path, survey(), labels="label", group_column="host", domain="simulated")
    for seed in range(3):
        parts = split_by_group(records, [0.6, 0.2, 0.2], seed, stratify="morphology")
        assert [int((p.parameters["morphology"] == 1).sum()) for p in parts] == [24, 8, 8]
        assert [len(p) for p in parts] == [240, 80, 80]
        groups = [set(p.columns["group"]) for p in parts]
        assert not groups[0] & groups[1] and not groups[1] & groups[2]
    with pytest.raises(UnknownNameError, match="'kind': known are morphology"):
        split_by_group(records, [0.5, 0.5], stratify="kind")
