"""Identifiers that occur more than once in a catalogue, wherever they are."""

import errno
import os

import numpy as np
import pyarrow.parquet as pq
import pytest
from catalogue_tables import QUESTION, answers, folder_of, rows

from sbi_da.catalog import Flag, infer
from sbi_da.catalog.answering import Answerer
from sbi_da.catalog.repeats import find_repeats, read_repeats, write_repeats
from sbi_da.catalog.sources import find_files, open_catalogue
from sbi_da.catalog.workers import Task
from sbi_da.errors import SbiDaError, TableError
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
    write_repeats(tmp_path / "repeats", find_repeats(catalogue.partitions, "source_id", tmp_path / "keys"))
    found = read_repeats(tmp_path / "repeats")
    assert found.tolist() == sorted(keys(ids[:300]).tolist()) and not (tmp_path / "keys").exists()
    assert not list(find_repeats(catalogue.partitions, ROW_NUMBER, tmp_path / "keys"))
    whole = (tmp_path / "repeats").read_bytes()
    for size in (0, 8, 100, len(whole) - 8):
        (tmp_path / "repeats").write_bytes(whole[:size])
        assert read_repeats(tmp_path / "repeats") is None


def test_one_identifier_for_most_rows_takes_no_room(tmp_path, monkeypatch):
    ids = np.concatenate([np.zeros(4000, int), np.arange(1000)])
    path = write_table(tmp_path / "a.parquet", {"source_id": ids})
    monkeypatch.setattr("sbi_da.catalog.sources.SMALLEST", 500)
    monkeypatch.setattr("sbi_da.catalog.sources.LARGEST", 500)
    monkeypatch.setattr("sbi_da.catalog.repeats.AT_ONCE", 700)
    catalogue = open_catalogue(str(path), find_files(path)[0], False, tmp_path)
    sizes = []

    def read(place, kind):
        sizes.append(place.stat().st_size // 8)
        return np.frombuffer(place.read_bytes(), kind)

    monkeypatch.setattr(np, "fromfile", read)
    found = np.concatenate(list(find_repeats(catalogue.partitions, "source_id", tmp_path / "keys")))
    assert found.tolist() == keys(np.zeros(1, int)).tolist() and sum(sizes) <= 1000 + 2 * len(catalogue.partitions)


def test_numbers_and_their_texts_are_alike():
    numbers = np.array([0, 5, -3, 2**62, -(2**63), 2**63 - 1])
    assert (keys(numbers) == keys(numbers.astype(str))).all() and len(set(keys(numbers).tolist())) == len(numbers)
    large = np.array([2**63, 2**64 - 1], np.uint64)
    assert (keys(large) == keys(large.astype(str))).all()
    texts = np.array(["05", "+5", "-0", "5.0", "", "-", "Gaia 5", "٥"])
    assert not set(keys(large).tolist()) & set(keys(numbers).tolist())
    assert not set(keys(texts).tolist()) & set(keys(np.array([0, 5])).tolist())


def test_repeats_across_types(tmp_path, toy_run, table):
    (tmp_path / "catalogue").mkdir()
    for k, kind in enumerate((np.int64, str)):
        part = rows(table, slice(20 * k, 20 * k + 20))
        part["source_id"] = (np.arange(20) + 15 * k).astype(kind)
        write_table(tmp_path / "catalogue" / f"{k}.parquet", part)
    infer(toy_run, tmp_path / "catalogue", tmp_path / "out", QUESTION, 1)
    found = [pq.read_table(tmp_path / "out" / "objects" / f"{k}.parquet") for k in (0, 1)]
    for t in found:
        again = (t["flags"].to_numpy() & Flag.REPEATED) > 0
        assert {int(i) for i in np.array(t["id"].to_pylist())[again]} == set(range(15, 20))


def test_no_room_for_repeats(tmp_path, toy_run, table, monkeypatch):
    """Said in a line, and nothing is left."""

    def full(*_):
        yield np.zeros(3, np.uint64)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("sbi_da.catalog.ledger.find_repeats", full)
    path = write_table(tmp_path / "a.parquet", rows(table, slice(0, 5)))
    with pytest.raises(TableError, match=r"out: cannot be written \(.*No space left on device.*\): .*free space"):
        infer(toy_run, path, tmp_path / "out", QUESTION, 1)
    assert not (tmp_path / "out").exists()


def test_a_worker_that_does_not_see_the_folder(tmp_path, toy_run, table):
    path = write_table(tmp_path / "a.parquet", rows(table, slice(0, 5)))
    partition = open_catalogue(str(path), find_files(path)[0], False, tmp_path).partitions[0]
    with pytest.raises(SbiDaError, match="elsewhere: .*need the run, the catalogue and --out under the same paths"):
        Task(tmp_path / "elsewhere", QUESTION, "source_id")(Answerer.load(toy_run), partition)


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
