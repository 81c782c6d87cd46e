import copy
import threading

import numpy as np
import pytest
import xarray as xr

from sbi_da.errors import SbiDaError, TableError, UnknownNameError
from sbi_da.records.image_sets import read_cutouts, read_galaxy_da, read_stack, read_table_with_images
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
from sbi_da.records.records import ABSENT, LIMIT, OBSERVED, Records
from sbi_da.records.splits import split_by_group
from sbi_da.surveys.card import Survey

SIZE = 12


def survey(display: bool = True, size: int = SIZE, bands: str = "irg") -> Survey:
    wavelength = {"g": 0.48, "r": 0.62, "i": 0.75}
    held = [{"name": b, "wavelength": wavelength[b], "psf_fwhm": 1.2, "noise": 0.02} for b in bands]
    image = {"bands": held, "pixel_scale": 0.4, "size": size}
    if display:
        image["display"] = {"softening": 10.0, "stretch": 0.5}
    return Survey(name="cam", title="camera", reference="none", image=image)


def bytes_of(n: int, size: int = SIZE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)


# pixels that are read when indexed


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


# stacks


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
        ({"object": np.arange(5)}, {}, "'object' of an array is taken"),
        ({"v": np.array([1, -1, 1, 1, 1])}, {"votes": {"a": "v"}}, "votes for 'a' run from -1 to 1: counts"),
        ({"images": np.zeros((5, 12, 12, 3), np.int16)}, {}, "bytes or floats, not int16"),
        ({"images": np.zeros((5, 12, 12, 3), np.uint8)}, {}, "none of the 5 images can be used; the first: i: blank"),
        ({"images": np.zeros((0, 12, 12, 3), np.uint8)}, {}, "no images"),
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


# tables with pictures


def picture(path, colours, **options):
    from PIL import Image

    Image.fromarray(colours).save(path, **options)


@pytest.fixture
def zoo(tmp_path):
    folder = tmp_path / "pictures"
    folder.mkdir()
    colours = bytes_of(6)
    for k in range(4):
        picture(folder / f"{k}.png", colours[k])
    flat = np.full((SIZE, SIZE, 3), [200, 100, 50], np.uint8)
    flat[0] = 10
    picture(folder / "4.jpg", flat, quality=100, subsampling=0)
    broken = (folder / "2.png").read_bytes()
    (folder / "2.png").write_bytes(broken[: len(broken) // 2])
    (folder / "3.png").write_text("not a picture")
    table = {
        "asset": np.arange(6), "dr7objid": 587722981736120347 + np.arange(6), "kind": np.array(list("SESEXS")),
        "n_smooth": np.array([3, 0, 10, 2, 1, 0]), "n_disc": np.array([1, 9, 0, 2, 1, 4]), "redshift": np.linspace(0, 0.1, 6),
    }  # fmt: skip
    return table, folder, colours


def test_table_with_pictures(zoo):
    table, folder, colours = zoo
    records = read_table_with_images(
        table, folder, survey(), "asset", label_column="kind", classes={"spiral": ["S"], "elliptical": ["E"]},
        votes={"smooth": "n_smooth", "disc": "n_disc"}, columns=["redshift"], id_column="dr7objid",
    )  # fmt: skip
    images, flags = records.images("cam"), records.columns["image_flag"].tolist()
    assert images.state.any(1).tolist() == [True, True, False, False, True, False]
    assert flags[:2] == ["", ""] and flags[4] == "" and flags[5] == "no picture '5'"
    assert "2.png" in flags[2] and "3.png: not a picture" in flags[3]
    assert np.array_equal(images.pixels[0], colours[0].transpose(2, 0, 1)) and not images.pixels[2].any()
    assert np.abs(images.pixels[4][:, 6, 6].astype(int) - [200, 100, 50]).max() <= 4
    assert records.ids[5] == 587722981736120352 and records.parameters == {} and "redshift" in records.columns
    opened = records.opened().parameters
    assert np.array_equal(opened["morphology"], [0, 1, 0, 1, np.nan, 0], equal_nan=True)
    assert opened["morphology_votes_disc"].tolist() == [1, 9, 0, 2, 1, 4]
    assert records.attrs["classes_morphology"] == ["spiral", "elliptical"]


def test_red_goes_to_the_longest_wavelength(zoo):
    table, folder, colours = zoo
    pixels = read_table_with_images(table, folder, survey(bands="gri"), "asset").images("cam").pixels
    assert np.array_equal(pixels[0], colours[0].transpose(2, 0, 1)[::-1])
    pixels = read_table_with_images(table, folder, survey(bands="rgi"), "asset").images("cam").pixels
    assert np.array_equal(pixels[0], colours[0].transpose(2, 0, 1)[[1, 2, 0]])


def test_names_of_pictures(zoo, tmp_path):
    _, folder, colours = zoo
    for names in (["0.png", "1.png"], ["/elsewhere/0.png", "data/pictures/1.png"], ["0", "1"]):
        records = read_table_with_images({"file": np.array(names)}, folder, survey(), "file")
        assert np.array_equal(records.images("cam").pixels[1], colours[1].transpose(2, 0, 1))
    table = tmp_path / "zoo.csv"
    table.write_text("file,fraction,total\n0.png,0.25,8\n1.png,0.5,\n")
    records = read_table_with_images(table, folder, survey(), "file", votes={"bar": "fraction"}, votes_total="total", sealed=False)
    assert np.array_equal(records.parameters["morphology_votes_bar"], [2, np.nan], equal_nan=True)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"image_column": "path"}, "no column 'path'; it has asset"),
        ({"label_column": "type"}, "no column 'type'"),
        ({"id_column": "n_disc"}, "identifier 1 occurs 2 times .rows 0 and 4"),
        ({"survey": survey(False)}, "pictures hold colours"),
        ({"survey": survey(size=20)}, "12 x 12 pixels where the survey has 20 x 20"),
        ({"image_column": "redshift"}, "none of the 6 pictures of the table is there: it names '0.*the folder holds 0.png"),
        ({"folder": "nowhere"}, "nowhere: no such folder"),
        ({"votes": {"a": "n_disc"}, "votes_total": "n_smooth"}, "fractions from 0 to 1"),
    ],
)
def test_bad_tables_with_pictures(zoo, options, said):
    table, folder, _ = zoo
    table = {**table, "redshift": table["redshift"] + 0.5}
    with pytest.raises(TableError, match=said) as caught:
        read_table_with_images(**{"table": table, "folder": folder, "survey": survey(), "image_column": "asset", **options})
    assert "\n" not in str(caught.value)


def test_a_folder_of_broken_pictures_is_an_error(tmp_path):
    for k in range(3):
        (tmp_path / f"{k}.png").write_text("no")
    with pytest.raises(TableError, match="none of the 3 images can be used; the first: 0.png: not a picture"):
        read_table_with_images({"k": np.arange(3)}, tmp_path, survey(), "k")


# the sets of galaxy-da


def test_galaxy_da(tmp_path):
    colours = bytes_of(4)
    for folder in ("source/galaxy_images_rgb", "target/gz2_images", "target/gz_desi"):
        (tmp_path / folder).mkdir(parents=True)
    for k in range(4):
        picture(tmp_path / f"source/galaxy_images_rgb/subhalo_{k + 100}.png", colours[k])
        picture(tmp_path / f"target/gz2_images/{k + 7}.jpg", colours[k], quality=95)
        picture(tmp_path / f"target/gz_desi/33_{k}.png", colours[k])
    (tmp_path / "source/source_galaxy_labels.csv").write_text(
        "image_path,subhalo_id,mass,classification\n" + "".join(f"x/subhalo_{k + 100}.png,{k + 100},1e10,{k % 3}\n" for k in range(4))
    )
    (tmp_path / "target/gz2_galaxy_labels.csv").write_text(
        "subhalo_id,objid,mass,classification\n" + "".join(f"{k + 7},{58800 + k},,{k % 3}\n" for k in range(5))
    )
    (tmp_path / "target/gz_desi_labels.csv").write_text(
        "brickid,objid,classification\n33,0,elliptical\n33,1,spiral\n33,2,irregular\n34,2,spiral\n"
    )
    source = read_galaxy_da(tmp_path, "source", survey=survey())
    assert source.attrs["domain"] == "simulated" and source.ids.tolist() == [100, 101, 102, 103]
    assert source.parameters["morphology"].tolist() == [0, 1, 2, 0] and source.columns["mass"][0] == 1e10
    assert source.attrs["classes_morphology"] == ["elliptical", "irregular", "spiral"]
    assert np.array_equal(source.images("cam").pixels[2], colours[2].transpose(2, 0, 1))
    target = read_galaxy_da(tmp_path, "target", survey=survey())
    assert target.parameters == {} and target.opened().parameters["morphology"].tolist() == [0, 1, 2, 0, 1]
    assert target.ids[0] == 58800 and target.columns["image_flag"][4] == "no picture '11'" and "classification" not in target.columns
    desi = read_galaxy_da(tmp_path, "desi", survey=survey())
    assert desi.ids.tolist() == [0, 1, 2, 3] and desi.images("cam").state.any(1).tolist() == [True] * 3 + [False]
    assert desi.opened().parameters["morphology"].tolist() == [0, 2, 1, 2]
    with pytest.raises(UnknownNameError, match="unknown side 'left': known are source, target, desi"):
        read_galaxy_da(tmp_path, "left")
    with pytest.raises(TableError, match="12 x 12 pixels where the survey has 64 x 64"):
        read_galaxy_da(tmp_path, "source")
    assert read_galaxy_da(tmp_path, "source", resize="zoom").images("tng").pixels.shape == (4, 3, 64, 64)


# FITS cut-outs


def cutout(path, data, **header):
    from astropy.io import fits

    units = [fits.PrimaryHDU(data)]
    for key in ("IVAR", "ERR"):
        if key in header:
            units.append(fits.ImageHDU(header.pop(key), name=key))
    units[0].header.update(header)
    fits.HDUList(units).writeto(path)


def test_cutouts_by_band(tmp_path):
    rng = np.random.default_rng(0)
    flux = rng.normal(0, 0.1, (4, 3, SIZE, SIZE)).astype(np.float32)
    for k in range(4):
        for j, band in enumerate("gri"):
            header = [{"MAGZERO": 25.0}, {"BUNIT": "nanomaggy"}, {"BUNIT": "uJy"}][j]
            cutout(tmp_path / f"ngc_{k}_{band}.fits", flux[k, j], **header)
    (tmp_path / "ngc_1_r.fits").unlink()
    whole = (tmp_path / "ngc_2_g.fits").read_bytes()
    (tmp_path / "ngc_2_g.fits").write_bytes(whole[:3000])
    (tmp_path / "ngc_2_r.fits").write_bytes(whole[:100])
    records = read_cutouts(tmp_path, survey(False, bands="gri"))
    images, flags = records.images("cam"), records.columns["image_flag"]
    assert records.ids.tolist() == [f"ngc_{k}" for k in range(4)]
    assert images.state.tolist() == [[1, 1, 1], [1, 0, 1], [0, 0, 1], [1, 1, 1]]
    assert flags[0] == "" and flags[1] == "r: no file" and "ngc_2_g.fits" in flags[2] and "ngc_2_r.fits" in flags[2]
    # a flux of magnitude m is 10^(0.4 (22.5 - m)) nanomaggies; one microjansky has 23.9 mag
    factor = [10**-1.0, 1.0, 10 ** (0.4 * (22.5 - 23.9))]
    assert np.allclose(images.pixels[0], flux[0] * np.reshape(factor, (3, 1, 1)), rtol=1e-3, atol=1e-7)
    assert images.error[3] == pytest.approx(0.1 * np.array(factor), rel=0.6)
    assert not images.pixels[2][:2].any()


def test_cutout_cubes_with_a_table_and_noise_maps(tmp_path):
    flux = np.random.default_rng(0).normal(1, 0.1, (3, 4, SIZE, SIZE)).astype(np.float32)
    for k in range(3):
        weight = np.full((4, SIZE, SIZE), 25.0, np.float32)
        weight[:, 0] = 0
        cutout(tmp_path / f"{k}.fits", flux[k], BANDS="griz", BUNIT="nanomaggy", IVAR=weight)
    table = {"id": np.array([2, 0, 9]), "kind": np.array(["E", "S", "S"])}
    records = read_cutouts(tmp_path, survey(False, bands="irg"), table=table, id_column="id", label_column="kind")
    images = records.images("cam")
    assert np.allclose(images.pixels[0], flux[2, [2, 1, 0]]) and np.allclose(images.error[:2], 0.2)
    assert records.columns["image_flag"].tolist() == ["", "", "no file"] and not images.state[2].any()
    assert records.opened().parameters["morphology"].tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("header", "options", "said"),
    [
        ({"CTYPE1": "RA---TAN", "CD1_1": -1e-3, "CD2_2": 1e-3}, {}, "pixels of 3.6 arcsec where the survey has 0.4"),
        ({}, {"survey": survey()}, "'cam' has colour composites"),
        ({}, {"survey": survey(False, 20)}, "12 x 12 pixels where the survey has 20 x 20"),
        ({}, {"label_column": "kind"}, "the column 'kind' needs a table"),
        ({}, {"table": {"id": np.arange(2)}}, "pass id_column="),
        ({}, {"table": {"id": np.arange(7, 9)}, "id_column": "id"}, "no file for any of the 2 objects: 7_i.fits or 7.fits"),
    ],
)
def test_bad_cutouts(tmp_path, header, options, said):
    cutout(tmp_path / "0.fits", np.random.default_rng(0).random((3, SIZE, SIZE), np.float32), MAGZERO=22.5, **header)
    with pytest.raises(TableError, match=said) as caught:
        read_cutouts(**{"folder": tmp_path, "survey": survey(False), **options})
    assert "\n" not in str(caught.value)


def test_cutouts_of_unknown_unit_say_so(tmp_path):
    cutout(tmp_path / "0.fits", np.random.default_rng(0).random((3, SIZE, SIZE), np.float32), BUNIT="ADU")
    with pytest.warns(UserWarning, match="1 of 1 objects have neither a zero point nor units"):
        read_cutouts(tmp_path, survey(False))


# splits


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
