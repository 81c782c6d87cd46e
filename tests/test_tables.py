"""Synthetic tables with the columns of the public ones, in every format, whole and spoilt."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from sbi_da.errors import TableError, UnknownNameError
from sbi_da.records import ABSENT, LIMIT, OBSERVED, Records, read_table, write_table
from sbi_da.surveys import get_survey, list_surveys

FORMATS = [".parquet", ".fits", ".fit", ".ecsv", ".csv", ".vot", ".xml"]
SURVEYS = [get_survey(name) for name in list_surveys()]
GAIA, WISE, PS1, TWOMASS = (get_survey(n) for n in ("gaia", "wise", "panstarrs", "twomass"))
IDS = np.array([4295806720, 5853498713190525696, 6019091933163241601, 7, 216677767189697024, 9223372036854775807])


def columns():
    """Six stars as Gaia, 2MASS, WISE and Pan-STARRS list them; all is missing for the last."""
    nan = np.nan
    return {
        "source_id": IDS.copy(),
        "ra": np.linspace(0.1, 359.0, 6),
        "phot_g_mean_mag": np.array([12.3, 15.1, 17.25, 19.5, 6.125, nan]),
        "phot_g_mean_mag_error": np.array([0.003, 0.003, 0.0035, 0.006, 0.01, nan]),
        "phot_bp_mean_mag": np.array([12.7, 15.6, 18.0, nan, 6.3, nan]),
        "phot_bp_mean_mag_error": np.array([0.003, 0.005, 0.02, nan, 0.01, nan]),
        "parallax": np.array([2.5, 1.25, 0.5, -0.3, 25.0, nan]),
        "parallax_error": np.array([0.02, 0.03, 0.08, 0.4, 0.05, nan]),
        "j_m": np.array([11.2, 14.0, nan, nan, 5.0, nan]),
        "j_m_error": np.array([0.03, 0.035, nan, nan, 0.2, nan]),
        "w1mpro": np.array([10.5, 13.2, 16.9, 17.9, nan, nan]),
        "w1mpro_error": np.array([0.023, 0.03, 0.2, nan, nan, nan]),
        "gMeanPSFMag": np.array([-999.0, 15.7, 18.1, 20.5, -999.0, -999.0]),
        "gMeanPSFMag_error": np.array([-999.0, 0.02, 0.02, 0.05, -999.0, -999.0]),
        "cluster": np.array(["a", "a", "b", "b", "c", "c"]),
        "label_teff": np.array([5800.0, 4500.0, 6100.0, nan, 9000.0, nan]),
        "label_teff_error": np.array([50.0, 60.0, 70.0, nan, 200.0, nan]),
    }


def same(a, b, tolerance=1e-6):
    assert a.surveys == b.surveys
    for name in a.surveys:
        one, two = a.survey(name), b.survey(name)
        assert one.channels == two.channels and one.units == two.units
        np.testing.assert_array_equal(one.state, two.state)
        np.testing.assert_allclose(one.value, two.value, rtol=tolerance)
        np.testing.assert_allclose(one.error, two.error, rtol=tolerance)
    assert a.parameters.keys() == b.parameters.keys()
    for key, label in a.parameters.items():
        np.testing.assert_allclose(label, b.parameters[key], rtol=tolerance)


def refused(table, *words, surveys=SURVEYS, **options):
    with pytest.raises(TableError) as caught:
        read_table(table, surveys, **options)
    message = str(caught.value)
    assert message.isprintable()
    for word in words:
        assert str(word) in message, message
    return message


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


def test_units_that_do_not_fit(tmp_path):
    table = {"j_m": np.array([1.0]), "j_msigcom": np.array([0.1])}
    refused(table, "'j_m'", "Jy", "Vega", "zero point", units={"j_m": "Jy", "j_msigcom": "Jy"})
    refused(table, "'j_m'", "mag(AB)", "Vega", units={"j_m": "mag(AB)"})
    refused(table, "'j_m'", "unit s ", "mag", units={"j_m": "s"})
    refused(table, "'j_m'", "unknown unit 'quux'", "units=", "--unit", units={"j_m": "quux"})
    refused(table, "'k_m'", "j_m", units={"k_m": "mag"})
    gaia = {"parallax": np.array([1.0]), "parallax_error": np.array([0.1])}
    refused(gaia, "'parallax'", "pc", "mas", units={"parallax": "pc"})
    ps1 = {"gMeanPSFMag": np.array([1.0]), "gMeanPSFMagErr": np.array([0.1])}
    refused(ps1, "gMeanPSFMagErr", "Jy", units={"gMeanPSFMag": "mag", "gMeanPSFMagErr": "Jy"})
    refused(ps1, "gMeanPSFMagErr", "Jy", "none", units={"gMeanPSFMagErr": "Jy"})
    refused(write_table(tmp_path / "a.ecsv", gaia, {"parallax": "kpc"}), "a.ecsv", "'parallax'", "kpc")
    assert read_table(ps1, [PS1], units={"gMeanPSFMag": "mag(AB)"}).survey("panstarrs").value[0, 0] == 1.0


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


@pytest.mark.parametrize(
    "name, row, entry, words",
    [
        ("phot_g_mean_mag", 2, np.inf, ["'phot_g_mean_mag'", "infinite", "row 2"]),
        ("parallax", 1, -np.inf, ["'parallax'", "infinite", "row 1"]),
        ("parallax_error", 3, np.inf, ["'parallax_error'", "infinite", "row 3"]),
        ("phot_g_mean_mag_error", 4, 0.0, ["'phot_g_mean_mag_error'", "not positive", "1 row ", "row 4", "leave"]),
        ("w1mpro_error", 0, -0.02, ["'w1mpro_error'", "not positive", "row 0"]),
        ("phot_bp_mean_mag", 2, 99.0, ["'phot_bp_mean_mag'", "outside -5 to 35 mag", "row 2"]),
    ],
)
def test_bad_numbers_are_named(tmp_path, name, row, entry, words):
    table = columns()
    table[name][row] = entry
    refused(table, *words)
    refused(write_table(tmp_path / "bad.parquet", table), "bad.parquet", *words)
    refused(write_table(tmp_path / "bad.csv", table), "bad.csv", *words)


def test_many_bad_rows_are_counted():
    table = columns()
    table["parallax_error"][:5] = -1
    message = refused(table, "in 5 rows", "row 0, 1, 2, ...")
    assert len(message) < 250


def test_texts_are_parsed_or_refused(tmp_path):
    table = columns()
    table["j_m"] = np.array([" 11.2", "14.0", "", "nan", "5.0", "null"], dtype="U10")
    same(read_table(table, SURVEYS), read_table(columns(), SURVEYS))
    table["j_m"][1] = "fourteen"
    refused(table, "'j_m'", "row 1", "'fourteen'", "not a number")
    refused(write_table(tmp_path / "bad.csv", table), "bad.csv", "'j_m'", "row 1", "'fourteen'")
    refused({"j_m": np.array(["2020-01-01"], "datetime64[D]"), "j_msigcom": np.array([1.0])}, "'j_m'", "datetime64")
    refused({"j_m": np.ones((2, 3)), "j_msigcom": np.ones(2)}, "'j_m'", "one number per row")


def test_errors_that_are_missing():
    refused({"j_m": np.array([12.0])}, "'j_m'", "'j_msigcom'", "'j_m_error'", "no error column")
    table = columns()
    table["phot_g_mean_mag_error"][[0, 2]] = np.nan
    table["gMeanPSFMag_error"][1] = -999.0
    with pytest.warns(UserWarning, match="without an error.*2 in 'phot_g_mean_mag'.*1 in 'gMeanPSFMag'"):
        records = read_table(table, SURVEYS)
    assert records.survey("gaia").state[:, 0].tolist() == [ABSENT, OBSERVED, ABSENT, OBSERVED, OBSERVED, ABSENT]
    assert records.survey("panstarrs").state[1, 0] == ABSENT


def test_an_alias_goes_with_its_own_error():
    table = {"Jmag": np.ones(1), "j_msigcom": np.full(1, 0.5), "e_Jmag": np.full(1, 0.1)}
    assert read_table(table, [TWOMASS]).survey("twomass").error[0, 0] == 0.1
    del table["e_Jmag"]
    assert read_table(table, [TWOMASS]).survey("twomass").error[0, 0] == 0.5


def test_two_columns_of_one_name_are_refused():
    import pyarrow as pa

    refused(pa.table([pa.array([1.0])] * 3, names=["j_m", "j_msigcom", "j_m"]), "two columns", "'j_m'")


def test_columns_that_differ_in_case_only_are_refused():
    refused({"J_M": np.ones(1), "J_m": np.ones(1), "j_msigcom": np.ones(1)}, "'J_M'", "'J_m'", "case")


def test_identifiers(tmp_path):
    table = columns()
    assert read_table(table, SURVEYS, id_column="cluster", stop=1).ids.tolist() == ["a"]
    refused(table, "'cluster'", "identifier a occurs 2 times", "rows 0 and 1", id_column="cluster")
    table["source_id"][4] = table["source_id"][1]
    for where in (table, write_table(tmp_path / "twice.fits", table)):
        refused(where, "'source_id'", IDS[1], "occurs 2 times", "rows 1 and 4")
    assert read_table(table, SURVEYS, id_column="#row").ids.tolist() == list(range(6))
    refused(table, "no column 'nme'", "source_id", id_column="nme")
    table["source_id"] = IDS.astype(float)
    refused(table, "'source_id'", "floats")
    table["source_id"] = np.arange(6.0)
    assert read_table(table, SURVEYS).ids.dtype.kind == "i"
    table["source_id"] = np.ma.MaskedArray(np.arange(6), mask=[0, 0, 1, 0, 0, 0])
    for where in (table, write_table(tmp_path / "null.parquet", table)):
        refused(where, "'source_id'", "nulls", "row 2", id_column="source_id")
        with pytest.warns(UserWarning, match="'source_id' .1 nulls.*row numbers") as caught:
            assert read_table(where, SURVEYS).ids.tolist() == list(range(6))
        assert len(caught) == 1
    table["objID"] = np.arange(10, 16)
    with pytest.warns(UserWarning, match="column 'objID' serves"):
        assert read_table(table, SURVEYS).ids.tolist() == list(range(10, 16))
    del table["objID"]
    del table["source_id"]
    assert read_table(table, SURVEYS).ids.tolist() == list(range(6))
    assert read_table(table, SURVEYS, start=2, stop=5).ids.tolist() == [2, 3, 4]


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


def test_files_that_are_no_tables(tmp_path):
    refused(tmp_path / "nowhere.parquet", "nowhere.parquet", "no such file")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 this is none")
    (tmp_path / "a.fits").write_text("nor this")
    (tmp_path / "a.vot").write_text("<html>nor this</html>")
    (tmp_path / "a.ecsv").write_text("nor, this\n1, 2\n")
    (tmp_path / "a.dat").write_text("1 2 3")
    for suffix in ("parquet", "fits", "vot", "ecsv"):
        refused(tmp_path / f"a.{suffix}", f"a.{suffix}", ".parquet, .pq, .fits")
    refused(tmp_path / "a.dat", "unknown table format '.dat'", ".parquet", ".csv")
    (tmp_path / "folder.csv").mkdir()
    refused(tmp_path / "folder.csv", "a folder")
    whole = write_table(tmp_path / "whole.parquet", columns()).read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "cut.parquet", "cut.parquet", "cannot be read")
    (tmp_path / "hole.parquet").write_bytes(whole[:4] + b"\xff" * 600 + whole[604:])
    refused(tmp_path / "hole.parquet", "hole.parquet: column", "cannot be read", surveys=[GAIA])


@pytest.mark.parametrize("suffix", [".parquet", ".fits", ".ecsv", ".csv", ".vot"])
def test_a_table_without_rows(tmp_path, suffix):
    path = write_table(tmp_path / f"none{suffix}", {k: v[:0] for k, v in columns().items()})
    refused(path, f"none{suffix}", "no rows")


def test_groups_and_labels():
    table = columns()
    records = read_table(table, SURVEYS, parameters={"teff": ("label_teff", "label_teff_error"), "logg": ("ra", None)})
    assert set(records.parameters) == {"teff", "teff_error", "logg"}
    assert np.isnan(records.parameters["teff"][3])
    refused(table, "no column 'label_feh'", parameters={"feh": ("label_feh", None)})
    refused(table, "no column 'klaster'", group_column="klaster")
    table["label_teff"][0] = np.inf
    refused(table, "'label_teff'", "infinite", "row 0", parameters={"teff": ("label_teff", None)})


def test_from_table_to_disk_and_back(tmp_path):
    records = read_table(columns(), SURVEYS, group_column="cluster")
    records.save(tmp_path / "r.zarr")
    again = Records.open(tmp_path / "r.zarr")
    same(again, records)
    assert (again.ids == records.ids).all() and again.columns["group"].tolist() == list("aabbcc")


@pytest.mark.parametrize("suffix", [".parquet", ".fits", ".ecsv", ".vot"])
def test_draws_units_and_nulls_are_written(tmp_path, suffix):
    from sbi_da.records.columns import open_source

    draws = np.arange(6.0).reshape(3, 2)
    mean = np.ma.MaskedArray([1.0, 2.0, 3.0], mask=[False, True, False])
    path = write_table(tmp_path / f"a{suffix}", {"id": IDS[:3], "age": mean, "draws": draws}, {"age": "Gyr"})
    source = open_source(path)
    assert source.column("age").unit == "Gyr"
    age = source.column("age")
    assert (age.missing | ~np.isfinite(age.values)).tolist() == [False, True, False]
    assert np.array(source.column("draws").values.tolist()).tolist() == draws.tolist()


def test_writing_is_whole_or_not_at_all(tmp_path, monkeypatch):
    with pytest.raises(TableError, match="unknown table format"):
        write_table(tmp_path / "a.txt", columns())
    with pytest.raises(TableError, match="one length"):
        write_table(tmp_path / "a.csv", {"x": np.ones(2), "y": np.ones(3)})
    with pytest.raises(TableError, match="'z'.*no column"):
        write_table(tmp_path / "a.csv", {"x": np.ones(2)}, {"z": "mag"})
    (tmp_path / "file").write_text("")
    with pytest.raises(TableError, match="cannot be written") as caught:
        write_table(tmp_path / "file" / "a.csv", {"x": np.ones(2)})
    assert "\n" not in str(caught.value) and "free space" not in str(caught.value)
    path = write_table(tmp_path / "a.parquet", {"x": np.ones(2)})
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    for suffix in (".parquet", ".csv", ".fits"):
        with pytest.raises(TableError, match="No space left.*: free space or choose"):
            write_table(tmp_path / f"a{suffix}", {"x": np.zeros(5)})
    assert path.read_bytes() == before
    assert sorted(p.name for p in Path(tmp_path).iterdir()) == ["a.parquet", "file"]


def test_reading_leaves_the_warnings_of_others_alone(tmp_path):
    path = write_table(tmp_path / "a.vot", columns())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        read_table(path, SURVEYS)
    assert not caught
