"""Tables and records as they are written."""

import os
from pathlib import Path

import numpy as np
import pytest
from six_stars import IDS, SURVEYS, columns, same

from sbi_da.errors import TableError
from sbi_da.records import Records, read_table, write_table


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
