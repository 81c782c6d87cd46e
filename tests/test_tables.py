"""Synthetic tables with the columns of the public ones, in every format."""

import warnings

import numpy as np
import pytest
from six_stars import IDS, PS1, SURVEYS, TWOMASS, WISE, columns, refused, same

from sbi_da.errors import UnknownNameError
from sbi_da.records import ABSENT, LIMIT, OBSERVED, read_table, write_table

FORMATS = [".parquet", ".fits", ".fit", ".ecsv", ".csv", ".vot", ".xml"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_gives_the_same_records(tmp_path, suffix):
    options = {"group_column": "cluster", "parameters": {"teff": ("label_teff", "label_teff_error")}}
    units = {"parallax": "mas", "parallax_error": "mas", "j_m": "mag"}
    path = write_table(tmp_path / f"stars{suffix}", columns(), units)
    records, expected = read_table(path, SURVEYS, **options), read_table(columns(), SURVEYS, **options)
    assert records.surveys == ["gaia", "panstarrs", "twomass", "wise"]
    same(records, expected)
    assert records.ids.dtype.kind == "i" and (records.ids == IDS).all()
    assert records.columns["group"].tolist() == ["a", "a", "b", "b", "c", "c"]
    assert list(tmp_path.iterdir()) == [path]


def test_states_and_values():
    records = read_table(columns(), SURVEYS)
    gaia, wise, ps1 = (records.survey(n) for n in ("gaia", "wise", "panstarrs"))
    assert gaia.channels == ("G", "BP", "RP", "parallax")
    assert gaia.state[:, 0].tolist() == [OBSERVED] * 5 + [ABSENT]
    assert (gaia.state[:, 2] == ABSENT).all() and np.isnan(gaia.value[:, 2]).all()
    assert wise.state[:, 0].tolist() == [OBSERVED, OBSERVED, OBSERVED, LIMIT, ABSENT, ABSENT]
    assert wise.value[3, 0] == 17.9
    assert wise.error[3, 0] == pytest.approx(float(WISE.channels[0].noise.sigma(np.array(WISE.channels[0].depth))))
    assert ps1.state[:, 0].tolist() == [ABSENT, OBSERVED, OBSERVED, OBSERVED, ABSENT, ABSENT]
    for m in (gaia, wise, ps1):
        assert np.isnan(m.value[m.state == ABSENT]).all() and np.isnan(m.error[m.state == ABSENT]).all()
        assert np.isfinite(m.value[m.state != ABSENT]).all() and (m.error[m.state != ABSENT] > 0).all()
    assert len(records) == 6 and records.pattern()[5] == "none"
    assert records.attrs["domain"] == "real"


def test_order_further_columns_and_spelling_do_not_matter():
    expected = read_table(columns(), SURVEYS)
    shuffled = dict(reversed(columns().items())) | {"comment": np.array(["x"] * 6), "flag": np.arange(6) > 2}
    same(read_table(shuffled, SURVEYS), expected)
    spelt = {
        "w1mpro_error": "w1sigmpro", "j_m": "Jmag", "j_m_error": "e_Jmag", "parallax": "Plx", "parallax_error": "e_Plx",
        "phot_g_mean_mag": "PHOT_G_MEAN_MAG", "phot_g_mean_mag_error": "PHOT_G_MEAN_MAG_ERROR",
        "source_id": "SOURCE_ID", "gMeanPSFMag_error": "gMeanPSFMagErr",
    }  # fmt: skip
    renamed = read_table({spelt.get(k, k): v for k, v in columns().items()}, SURVEYS)
    same(renamed, expected)
    assert (renamed.ids == IDS).all()


@pytest.mark.parametrize("suffix", [".parquet", ".fits", ".ecsv", ".vot"])
def test_units_in_the_file_are_converted(tmp_path, suffix):
    table = columns()
    expected = read_table(table, SURVEYS)
    table["parallax"] = table["parallax"] * 1e-3
    table["parallax_error"] = table["parallax_error"] * 1e3
    table["j_m_error"] = table["j_m_error"] * 1e3
    units = {"parallax": "arcsec", "parallax_error": "uas", "j_m": "mag", "j_m_error": "mmag"}
    same(read_table(write_table(tmp_path / f"a{suffix}", table, units), SURVEYS), expected)


def test_units_stated_by_hand_and_by_astropy():
    from astropy import units as u
    from astropy.table import QTable

    table = columns()
    expected = read_table(table, SURVEYS)
    table["parallax"] = table["parallax"] * 1e3
    table["parallax_error"] = table["parallax_error"] * 1e3
    same(read_table(table, SURVEYS, units={"parallax": "uas", "parallax_error": "uas"}), expected)
    same(read_table(table, SURVEYS, units={"parallax": "uas"}), expected)
    quantities = QTable(table)
    quantities["parallax"] = table["parallax"] * u.uas
    quantities["parallax_error"] = table["parallax_error"] * u.uas
    same(read_table(quantities, SURVEYS), expected)


def test_parquet_written_by_astropy_keeps_units(tmp_path):
    from astropy import units as u
    from astropy.table import Table

    table = Table(columns())
    table["parallax"] = table["parallax"] / 1e3 * u.arcsec
    table["parallax_error"] = table["parallax_error"] / 1e3 * u.arcsec
    table.write(tmp_path / "a.parquet")
    same(read_table(tmp_path / "a.parquet", SURVEYS), read_table(columns(), SURVEYS))


@pytest.mark.parametrize("unit, factor", [("Jy", 3631.0), ("uJy", 3631e6), ("nJy", 3631e9), ("nmgy", 1e9)])
def test_fluxes_of_an_ab_survey_become_magnitudes_and_limits(unit, factor):
    magnitude = np.array([15.0, 18.0, 20.0, 20.0, np.nan])
    flux = 10 ** (-0.4 * magnitude) * factor
    error = flux * np.array([0.01, 0.02, 0.5, 0.1, 0.1])
    flux[3], error[3] = -error[3], error[3]
    table = {"rMeanPSFMag": flux, "rMeanPSFMagErr": error}
    m = read_table(table, [PS1], units=dict.fromkeys(table, unit)).survey("panstarrs")
    assert m.state[:, 1].tolist() == [OBSERVED, OBSERVED, LIMIT, LIMIT, ABSENT]
    np.testing.assert_allclose(m.value[:2, 1], magnitude[:2], atol=1e-9)
    np.testing.assert_allclose(m.error[:2, 1], [0.01 * 1.0857, 0.02 * 1.0857], rtol=1e-4)
    np.testing.assert_allclose(m.value[2, 1], 20 - 2.5 * np.log10(1.5), atol=1e-9)
    np.testing.assert_allclose(m.value[3, 1], 20 - 2.5 * np.log10(0.3), atol=1e-9)


def test_a_survey_without_columns_is_not_there_unless_required():
    table = {"phot_g_mean_mag": np.array([15.0]), "phot_g_mean_mag_error": np.array([0.01])}
    assert read_table(table, SURVEYS).surveys == ["gaia"]
    assert read_table(table, SURVEYS, required=["gaia"]).surveys == ["gaia"]
    refused(table, "'wise'", "w1mpro", "phot_g_mean_mag", required=["gaia", "wise"])
    with pytest.raises(UnknownNameError, match="known are"):
        read_table(table, SURVEYS, required=["wize"])
    part = read_table({**columns(), "phot_g_mean_mag_error": -np.ones(6)}, SURVEYS, only=["wise"])
    assert part.surveys == ["wise"] and (part.ids == IDS).all()
    refused({"x": np.array([1.0])}, "no column of any survey", "phot_g_mean_mag", "j_m", "has x")


def test_an_alias_goes_with_its_own_error():
    table = {"Jmag": np.ones(1), "j_msigcom": np.full(1, 0.5), "e_Jmag": np.full(1, 0.1)}
    assert read_table(table, [TWOMASS]).survey("twomass").error[0, 0] == 0.1
    del table["e_Jmag"]
    assert read_table(table, [TWOMASS]).survey("twomass").error[0, 0] == 0.5


@pytest.mark.parametrize("suffix", [".parquet", ".fits", ".csv"])
def test_a_slice_of_rows(tmp_path, suffix):
    path = write_table(tmp_path / f"a{suffix}", columns())
    part, whole = read_table(path, SURVEYS, start=1, stop=4), read_table(path, SURVEYS)
    same(part, whole.isel(slice(1, 4)))
    assert (part.ids == IDS[1:4]).all()
    refused(path, "no rows", start=6)


def test_rows_out_of_several_parquet_groups(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = columns()
    pq.write_table(pa.table({k: pa.array(v) for k, v in table.items()}), tmp_path / "a.parquet", row_group_size=2)
    whole = read_table(table, SURVEYS)
    for start, stop in [(0, 6), (1, 2), (1, 5), (3, 4), (4, None)]:
        same(read_table(tmp_path / "a.parquet", SURVEYS, start=start, stop=stop), whole.isel(slice(start, stop)))
    table["parallax"][5] = np.inf
    refused(table, "row 5", start=4)


def test_other_kinds_of_tables_and_columns():
    import pyarrow as pa
    from astropy.table import Table

    expected = read_table(columns(), SURVEYS)
    same(read_table(Table(columns()), SURVEYS), expected)
    same(read_table(Table(columns(), masked=True), SURVEYS), expected)
    arrow = pa.table({k: pa.array(v, mask=np.isnan(v) if v.dtype.kind == "f" else None) for k, v in columns().items()})
    same(read_table(arrow, SURVEYS), expected)
    index = arrow.column_names.index("j_m")
    same(read_table(arrow.set_column(index, "j_m", arrow["j_m"].cast(pa.float32())), SURVEYS), expected)
    index = arrow.column_names.index("cluster")
    coded = arrow.set_column(index, "cluster", arrow["cluster"].dictionary_encode())
    assert read_table(coded, SURVEYS, group_column="cluster").columns["group"].tolist() == list("aabbcc")
    masked = {k: np.ma.masked_invalid(v) if v.dtype.kind == "f" else v for k, v in columns().items()}
    masked["j_m"].data[2] = 1e30
    same(read_table(masked, SURVEYS), expected)
    refused({"j_m": np.ones(2), "j_msigcom": np.ones(3)}, "one length")


def test_groups_and_labels():
    table = columns()
    records = read_table(table, SURVEYS, parameters={"teff": ("label_teff", "label_teff_error"), "logg": ("ra", None)})
    assert set(records.parameters) == {"teff", "teff_error", "logg"}
    assert np.isnan(records.parameters["teff"][3])
    refused(table, "no column 'label_feh'", parameters={"feh": ("label_feh", None)})
    refused(table, "no column 'klaster'", group_column="klaster")
    table["label_teff"][0] = np.inf
    refused(table, "'label_teff'", "infinite", "row 0", parameters={"teff": ("label_teff", None)})


def test_reading_leaves_the_warnings_of_others_alone(tmp_path):
    path = write_table(tmp_path / "a.vot", columns())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_table(path, SURVEYS)
    assert not caught
