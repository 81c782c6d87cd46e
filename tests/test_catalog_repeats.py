"""Identifiers that occur more than once in a catalogue, wherever they are."""

import numpy as np
import pytest
from catalogue_tables import QUESTION, answers, folder_of, rows

from sbi_da.catalog import Flag, infer
from sbi_da.catalog.repeats import find_repeats
from sbi_da.catalog.sources import find_files, open_catalogue
from sbi_da.records import write_table
from sbi_da.records.identifiers import ROW_NUMBER, keys


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("at_once", [2_000_000, 40])
def test_repeats_are_flagged_across_files(tmp_path, toy_run, table, text, at_once, monkeypatch):
    """However the table is split, and whether or not the identifiers fit into memory."""
    monkeypatch.setattr("sbi_da.catalog.repeats.AT_ONCE", at_once)
    spoilt = {name: values[:200].copy() for name, values in table.items()}
    spoilt["source_id"][[7, 150, 199]] = spoilt["source_id"][100]
    spoilt["source_id"][3] = spoilt["source_id"][4]
    ids = spoilt["source_id"].copy()
    if text:
        spoilt["source_id"] = np.array([f"star {i}" for i in ids])
    found = []
    for size in (30, 200):
        place = folder_of(spoilt, tmp_path / f"by{size}", size)
        infer(toy_run, place, tmp_path / f"out{size}", QUESTION, 1)
        flags = answers(tmp_path / f"out{size}").sort_by("id")["flags"].to_numpy()
        found.append(flags & Flag.REPEATED > 0)
    unique, counts = np.unique(spoilt["source_id"], return_counts=True)
    assert (found[0] == np.repeat(counts > 1, counts)).all() and found[0].sum() == 6 and (found[0] == found[1]).all()
    assert not (tmp_path / "out30" / ".progress").exists()


def test_keys_of_many_rows(tmp_path, rng, monkeypatch):
    ids = rng.integers(-(2**62), 2**62, 5000)
    ids[:300] = ids[4000:4300]
    path = write_table(tmp_path / "a.parquet", {"source_id": ids})
    files, _ = find_files(path)
    catalogue = open_catalogue(str(path), files, False, tmp_path)
    monkeypatch.setattr("sbi_da.catalog.repeats.AT_ONCE", 700)
    found = find_repeats(catalogue.partitions, "source_id", tmp_path / "keys")
    assert found.tolist() == sorted(keys(ids[:300]).tolist()) and not (tmp_path / "keys").exists()
    assert not len(find_repeats(catalogue.partitions, ROW_NUMBER, tmp_path / "keys"))


def test_repeats_are_looked_for_once(tmp_path, toy_run, table, monkeypatch):
    """A run that goes on takes what the first one found."""
    path = folder_of(rows(table, slice(0, 60)), tmp_path / "catalogue", 20)

    def stop(done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        infer(toy_run, path, tmp_path / "out", QUESTION, 1, told=stop)
    monkeypatch.setattr("sbi_da.catalog.ledger.find_repeats", lambda *_: pytest.fail("looked again"))
    assert infer(toy_run, path, tmp_path / "out", QUESTION, 1)["counts"]["answered"] == 60
