"""FITS cut-outs, by band and as cubes."""

import numpy as np
import pytest
from small_images import SIZE, survey

from sbi_da.errors import TableError
from sbi_da.records.image_sets import read_cutouts


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
        ({}, {"table": {"id": np.arange(0)}, "id_column": "id"}, "table: no objects in it"),
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
