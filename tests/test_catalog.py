"""Inference over catalogues: the same bytes however it is run, nothing lost, nothing mixed up."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalogue_tables import QUESTION, answer_rows, answers, by_id, contents, folder_of, rows, untrained_answerer

from sbi_da.catalog import Flag, Question, infer, read_draws, sources
from sbi_da.catalog.ledger import Ledger
from sbi_da.catalog.modes import densest
from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.records import write_table


@pytest.fixture()
def small_partitions(monkeypatch):
    monkeypatch.setattr(sources, "SMALLEST", 70)
    monkeypatch.setattr(sources, "LARGEST", 70)


def test_answers_depend_on_the_object_alone(tmp_path, toy_run, table, small_partitions, rng):
    order = rng.permutation(300)
    infer(toy_run, write_table(tmp_path / "a.parquet", table), tmp_path / "a", QUESTION, 1)
    infer(toy_run, write_table(tmp_path / "b.parquet", rows(table, order)), tmp_path / "b", QUESTION, 1)
    infer(toy_run, folder_of(rows(table, order[:100]), tmp_path / "c"), tmp_path / "d", QUESTION, 1)
    infer(toy_run, write_table(tmp_path / "e.parquet", rows(table, order[:1])), tmp_path / "e", QUESTION, 1)
    assert len(contents(tmp_path / "a" / "objects")) == 5
    whole = by_id(tmp_path / "a")
    assert by_id(tmp_path / "b").equals(whole)
    for out, count in (("d", 100), ("e", 1)):
        index = np.isin(whole["id"].to_numpy(), table["source_id"][order[:count]])
        assert by_id(tmp_path / out).equals(whole.filter(pa.array(index)).combine_chunks())


def test_answers_are_those_of_a_query(tmp_path, toy_run, table):
    from sbi_da.inference import query
    from sbi_da.records import read_table

    infer(toy_run, write_table(tmp_path / "a.parquet", table), tmp_path / "a", QUESTION, 1)
    estimator = Estimator.load(toy_run)
    asked = query(estimator, read_table(table, estimator.layout.surveys, id_column="source_id"), 20)
    found = answers(tmp_path / "a")
    for name in estimator.parameter_names:
        for statistic in ("mean", "sd", "q05", "q50", "q95"):
            np.testing.assert_allclose(found[f"{name}_{statistic}"], asked[f"{name}_{statistic}"], rtol=1e-3, atol=1e-3)
        drawn = estimator(read_table(table, estimator.layout.surveys, id_column="source_id")).sample(20)[name].values[:, :4]
        np.testing.assert_allclose(read_draws(tmp_path / "a" / "objects")[name].values, drawn, atol=5e-3, rtol=5e-3)
        modes = np.asarray(found[f"{name}_map"])
        assert (np.abs(modes - asked[f"{name}_mean"]) < 2 * asked[f"{name}_sd"]).mean() > 0.95
    assert (np.abs(np.stack(found["correlations"].to_numpy(zero_copy_only=False))) <= 1 + 1e-5).all()


def test_answers_are_read_by_astropy_and_arviz(tmp_path, toy_run, table):
    from astropy.table import Table

    infer(toy_run, write_table(tmp_path / "a.parquet", rows(table, slice(0, 9))), tmp_path / "a", QUESTION, 1)
    assert len(Table.read(tmp_path / "a" / "objects" / "a.parquet")) == 9
    az = pytest.importorskip("arviz")
    draws = read_draws(tmp_path / "a" / "objects").expand_dims("chain").transpose("chain", "draw", "object")
    assert len(az.summary(draws, kind="stats")) == 27
    infer(toy_run, tmp_path / "a.parquet", tmp_path / "b", Question(draws=10), 1)
    with pytest.raises(SbiDaError, match="--keep-draws"):
        read_draws(tmp_path / "b" / "objects")


def test_a_finished_inference_is_not_run_again(tmp_path, toy_run, table):
    path = write_table(tmp_path / "a.parquet", table)
    first = infer(toy_run, path, tmp_path / "out", QUESTION, 1)
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    assert infer(toy_run, path, tmp_path / "out", QUESTION, 1) == first
    assert {p: p.stat().st_mtime_ns for p in times if p.is_file()} == {p: t for p, t in times.items() if p.is_file()}


def test_another_catalogue_estimator_or_question_is_refused(tmp_path, toy_run, table):
    path, out = write_table(tmp_path / "a.parquet", table), tmp_path / "out"
    infer(toy_run, path, out, QUESTION, 1)
    before = contents(out)
    with pytest.raises(SbiDaError, match="begun with draws 20, not 30"):
        infer(toy_run, path, out, QUESTION.model_copy(update={"draws": 30}), 1)
    estimator = Estimator.load(toy_run)
    estimator.save(tmp_path / "again")
    estimator.head.log_prob  # noqa: B018
    next(estimator.parameters()).data += 1e-3
    estimator.save(tmp_path / "other")
    infer(tmp_path / "again", path, out, QUESTION, 1)
    with pytest.raises(SbiDaError, match="another estimator"):
        infer(tmp_path / "other", path, out, QUESTION, 1)
    write_table(path, rows(table, slice(None, None, -1)))
    with pytest.raises(SbiDaError, match="a.parquet was changed since"):
        infer(toy_run, path, out, QUESTION, 1)
    assert contents(out) == before


def test_a_second_process_is_refused(tmp_path, toy_run, table):
    path = write_table(tmp_path / "a.parquet", table)
    ledger = Ledger(tmp_path / "out")
    ledger.open()
    with pytest.raises(SbiDaError, match="another process writes to it"):
        infer(toy_run, path, tmp_path / "out", QUESTION, 1)
    ledger.close()
    infer(toy_run, path, tmp_path / "out", QUESTION, 1)


def test_something_else_in_the_folder_is_left_alone(tmp_path, toy_run, table):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("x")
    with pytest.raises(SbiDaError, match="something else"):
        infer(toy_run, write_table(tmp_path / "a.parquet", table), tmp_path / "out", QUESTION, 1)
    assert list(contents(tmp_path / "out")) == ["thesis.tex"]


def test_an_altered_answer_is_made_again(tmp_path, toy_run, table, small_partitions, monkeypatch):
    path, out = write_table(tmp_path / "a.parquet", table), tmp_path / "out"
    infer(toy_run, path, tmp_path / "whole", QUESTION, 1)
    monkeypatch.setattr(Ledger, "finish", lambda *_: {})
    infer(toy_run, path, out, QUESTION, 1)
    monkeypatch.undo()
    monkeypatch.setattr(sources, "SMALLEST", 70)
    monkeypatch.setattr(sources, "LARGEST", 70)
    victim = sorted((out / "objects").iterdir())[1]
    victim.write_bytes(victim.read_bytes()[:-100])
    infer(toy_run, path, out, QUESTION, 1)
    assert contents(out) == contents(tmp_path / "whole")


def test_rows_set_aside_are_found_again(tmp_path, toy_run, table, monkeypatch):
    """Where the disk has lost what was written down of them."""
    spoilt = rows(table, slice(0, 60))
    spoilt["source_id"] = spoilt["source_id"].astype(float) / 4  # no exact whole numbers, most of them
    path, out = folder_of(spoilt, tmp_path / "catalogue", 20), tmp_path / "out"
    infer(toy_run, path, tmp_path / "whole", QUESTION, 1)
    monkeypatch.setattr(Ledger, "finish", lambda *_: {})
    infer(toy_run, path, out, QUESTION, 1)
    monkeypatch.undo()
    first, second, *_ = sorted((out / ".progress" / "rejected").rglob("*.json"))
    first.unlink()
    second.write_bytes(second.read_bytes()[:10])
    infer(toy_run, path, out, QUESTION, 1)
    assert contents(out) == contents(tmp_path / "whole") and len(pq.read_table(out / "rejected.parquet")) >= 40


def test_without_a_plan_nothing_is_known(tmp_path, toy_run, table, monkeypatch):
    path, out = folder_of(rows(table, slice(0, 60)), tmp_path / "catalogue", 20), tmp_path / "out"
    monkeypatch.setattr(Ledger, "finish", lambda *_: {})
    infer(toy_run, path, out, QUESTION.model_copy(update={"seed": 3}), 1)
    monkeypatch.undo()
    (out / ".progress" / "plan.json").write_text("{")
    infer(toy_run, path, out, QUESTION, 1)
    infer(toy_run, path, tmp_path / "whole", QUESTION, 1)
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.parametrize("suffix", [".csv", ".fits", ".ecsv", ".vot", ".fits.gz"])
def test_other_formats_give_the_same_answers(tmp_path, toy_run, table, suffix):
    some = rows(table, slice(0, 80))
    infer(toy_run, write_table(tmp_path / "a.parquet", some), tmp_path / "a", QUESTION, 1)
    infer(toy_run, write_table(tmp_path / f"b{suffix}", some), tmp_path / "b", QUESTION, 1)
    assert list(contents(tmp_path / "b" / "objects")) == ["b.parquet"]
    one, other = answers(tmp_path / "a"), answers(tmp_path / "b")
    assert [str(i) for i in one["id"].to_pylist()] == [i.decode() if isinstance(i, bytes) else str(i) for i in other["id"].to_pylist()]
    assert other.drop_columns(["id"]).cast(one.drop_columns(["id"]).schema).equals(one.drop_columns(["id"]))
    assert not (tmp_path / "b" / ".progress").exists()


def test_bad_rows_are_flagged_or_set_aside(tmp_path, toy_run, table):
    names = [n for n in table if n != "source_id"]
    spoilt = {name: values[:12].copy() for name, values in table.items()}
    for name in names:
        spoilt[name] = np.where(np.isnan(spoilt[name]), 1.0, spoilt[name])
    error = names[1]
    text = spoilt[names[0]].astype(object)
    text[1] = "bright"
    spoilt[error][2] = -1.0
    spoilt[error][3] = np.inf
    spoilt[error][4] = np.nan
    for name in names:
        spoilt[name][5] = np.nan
    text[5] = None
    text[8] = "1e300"
    ids = spoilt["source_id"].astype(float)
    ids[6], ids[7], ids[10] = np.nan, 0.5, ids[9]
    fields = {"source_id": pa.array(ids), names[0]: pa.array([None if t is None else str(t) for t in text])}
    fields |= {name: pa.array(spoilt[name]) for name in names[1:]}
    pq.write_table(pa.table(fields), tmp_path / "a.parquet")
    manifest = infer(toy_run, tmp_path / "a.parquet", tmp_path / "out", QUESTION, 1)
    assert manifest["counts"] == {"rows": 12, "answered": 10, "rejected": 2}
    found = answers(tmp_path / "out")
    flags = dict(zip([0, 1, 2, 3, 4, 5, 8, 9, 10, 11], found["flags"].to_pylist(), strict=True))
    assert flags == {
        0: 0, 1: Flag.LEFT_OUT, 2: Flag.LEFT_OUT, 3: Flag.LEFT_OUT, 4: Flag.NO_ERROR, 5: Flag.NO_DATA, 8: Flag.LEFT_OUT,
        9: Flag.REPEATED, 10: Flag.REPEATED, 11: 0,
    }
    aside = pq.read_table(tmp_path / "out" / "rejected.parquet").to_pydict()
    assert aside == {"row": [6, 7], "reason": ["no identifier", "the identifier is no exact whole number"]}
    assert np.isfinite(np.asarray(found["theta_1_mean"])).all()


def test_malformed_lines_are_set_aside(tmp_path, toy_run, table):
    path = write_table(tmp_path / "a.csv", rows(table, slice(0, 5)))
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:3], "1,2", *lines[3:]]) + "\n")
    manifest = infer(toy_run, path, tmp_path / "out", QUESTION, 1)
    assert manifest["counts"] == {"rows": 6, "answered": 5, "rejected": 1}
    aside = pq.read_table(tmp_path / "out" / "rejected.parquet").to_pydict()
    assert aside["row"] == [None] and "2 entries in place of" in aside["reason"][0]


def test_columns_are_kept_and_described(tmp_path, toy_run, table):
    some = {**rows(table, slice(0, 9)), "field": np.array(list("abcdefghi")), "ra": np.arange(9.0)}
    question = QUESTION.model_copy(update={"keep": ("field", "ra")})
    infer(toy_run, write_table(tmp_path / "a.parquet", some, {"ra": "deg"}), tmp_path / "out", question, 1)
    found = answers(tmp_path / "out")
    assert found["field"].to_pylist() == list("abcdefghi") and found["ra"].to_pylist() == list(range(9))
    assert found.schema.field("ra").metadata == {b"unit": b"deg"}
    said = json.loads(found.schema.metadata[b"sbi_da"])
    assert said["schema"] == 1 and said["flags"]["1"].startswith("none of its measurements")


@pytest.mark.parametrize("make, words", [
    (lambda p: p / "nothing.parquet", "no such file"),
    (lambda p: (p / "empty").mkdir() or p / "empty", "no Parquet file in this folder"),
    (lambda p: (p / "a.xyz").write_text("") and p / "a.xyz" or p / "a.xyz", "unknown table format"),
    (lambda p: (p / "a.parquet").write_text("not") and p / "a.parquet", "cannot be read as parquet"),
    (lambda p: (p / "a.csv").write_text("") or p / "a.csv", "no line of column names"),
    (lambda p: (p / "a.csv").write_text("ra,dec\n1,2\n") and p / "a.csv", "no column of any survey"),
    (lambda p: (p / "a.csv").write_text("ra,dec\n") and p / "a.csv", "no rows"),
])
def test_what_cannot_be_read_is_said_in_a_line(tmp_path, toy_run, make, words):
    with pytest.raises(SbiDaError, match=words) as error:
        infer(toy_run, make(tmp_path), tmp_path / "out", Question(), 1)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_files_with_other_columns_are_refused(tmp_path, toy_run, table):
    path = folder_of(table, tmp_path / "catalogue", 150)
    write_table(path / "part9.parquet", {**rows(table, slice(0, 5)), "extra": np.arange(5)})
    with pytest.raises(SbiDaError, match="part9.parquet: columns differ.*extra"):
        infer(toy_run, path, tmp_path / "out", QUESTION, 1)


def test_a_column_of_a_wrong_type_is_found_before_anything_is_done(tmp_path, toy_run, table):
    path = folder_of(table, tmp_path / "catalogue", 100)
    name = next(n for n in table if n != "source_id")
    days = np.full(5, "2020-01-01", "datetime64[D]")
    write_table(path / "part9.parquet", {**rows(table, slice(0, 5)), name: days})
    with pytest.raises(SbiDaError, match="part9.parquet: column.*numbers are needed, not datetime64"):
        infer(toy_run, path, tmp_path / "out", QUESTION, 1)
    assert not (tmp_path / "out").exists()


def test_a_kept_column_must_not_be_one_of_the_answer(tmp_path, toy_run, table):
    path = write_table(tmp_path / "a.parquet", {**rows(table, slice(0, 5)), "flags": np.arange(5)})
    with pytest.raises(SbiDaError, match="'flags' cannot be kept"):
        infer(toy_run, path, tmp_path / "out", QUESTION.model_copy(update={"keep": ("flags",)}), 1)


def test_identifiers_are_chosen_by_how_many_there_are(tmp_path, toy_run, table):
    some = {k: v for k, v in rows(table, slice(0, 6)).items() if k != "source_id"}
    infer(toy_run, write_table(tmp_path / "a.parquet", some), tmp_path / "out", Question(draws=10), 1)
    assert answers(tmp_path / "out")["id"].to_pylist() == list(range(6))


def test_the_densest_draw_of_known_laws(rng):
    wide = rng.uniform(-1, 1, (200, 400, 2)) * [1.0, 50.0]
    assert (np.abs(wide[np.arange(200), densest(wide)]) < [0.9, 45.0]).all(1).mean() > 0.9
    skewed = rng.lognormal(sigma=1.0, size=(200, 400, 1))
    assert np.median(skewed[np.arange(200), densest(skewed), 0]) < 0.9  # mode 0.37, median 1, mean 1.6
    two = np.where(rng.random((200, 400, 1)) < 0.8, 0.0, 10.0) + rng.normal(size=(200, 400, 1))
    assert (np.abs(two[np.arange(200), densest(two), 0]) < 2).all()
    assert densest(np.zeros((3, 10, 2))).shape == (3,)


@pytest.mark.parametrize("head", ["spline", "mixture", "flow_matching", "few_step"])
def test_every_head_answers_each_object_alone(toy_config, table, head, rng):
    """To the bit, with arrays of sizes that are no multiples of anything; weights are random: nothing is zero by initialisation."""
    answerer, question = untrained_answerer(toy_config, head), QUESTION.model_copy(update={"draws": 77})
    n = 60 if head == "flow_matching" else 200
    whole = answer_rows(answerer, table, np.arange(n), question)
    assert np.std(whole["theta_1_mean"]) > 0 and np.nanstd(whole["p_fault"]) > 0
    for index in (rng.permutation(n), rng.permutation(n)[:37], np.array([5])):
        part = answer_rows(answerer, table, index, question)
        for name, values in whole.items():
            assert np.asarray(part[name]).tobytes() == np.asarray(values)[index].tobytes(), name


def test_files_of_one_stem_are_refused(tmp_path, toy_run, table):
    path = folder_of(table, tmp_path / "catalogue", 150)
    write_table(path / "part0.pq", rows(table, slice(0, 5)))
    with pytest.raises(SbiDaError, match="part0.parquet and .*part0.pq would both be answered in part0.parquet"):
        infer(toy_run, path, tmp_path / "out", QUESTION, 1)


def test_kept_columns_have_the_type_they_had(tmp_path, toy_run, table, monkeypatch):
    """Whatever a block of rows happens to hold: the first ones nothing but nulls."""
    monkeypatch.setattr("sbi_da.catalog.partition.BLOCK", 20)
    columns = {
        "note": pa.array([None] * 30 + ["x"] * 20), "pair": pa.array([None] * 30 + [[1.0, 2.0]] * 20),
        "day": pa.array([None] * 30 + [5] * 20, pa.timestamp("us", "UTC")), "whole": pa.array([None] * 30 + [2**60] * 20),
        "flag": pa.array([None] * 30 + [True] * 20),
    }
    whole = pa.table({**rows(table, slice(0, 50)), **columns})
    pq.write_table(whole, tmp_path / "a.parquet")
    infer(toy_run, tmp_path / "a.parquet", tmp_path / "out", QUESTION.model_copy(update={"keep": tuple(columns)}), 1)
    found = answers(tmp_path / "out")
    for name in columns:
        assert found[name].type == whole[name].type and found[name].to_pylist() == whole[name].to_pylist(), name


def test_more_draws_kept_than_there_are():
    with pytest.raises(ValueError, match="20 of 10 draws cannot be kept"):
        Question(draws=10, kept_draws=20)
