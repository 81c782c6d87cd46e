"""Tables that are spoilt are refused in one line."""

import numpy as np
import pytest
from six_stars import GAIA, IDS, PS1, SURVEYS, columns, refused, same

from sbi_da.records import ABSENT, OBSERVED, read_table, write_table


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
