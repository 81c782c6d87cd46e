"""Tables beside folders of pictures, those of galaxy-da among them."""

import numpy as np
import pytest
from small_images import SIZE, bytes_of, survey

from sbi_da.errors import TableError, UnknownNameError
from sbi_da.records.image_sets import read_galaxy_da, read_table_with_images


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
