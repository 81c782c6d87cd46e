"""Catalogues whose answers are refined by the likelihood: the exact posteriors of the toy, each object alone, and what nothing explains."""

import numpy as np
import pytest
from catalogue_tables import answer_rows, rows, untrained_answerer
from linear_oracle import NAMES, exact_laws

from sbi_da.catalog import Flag, Question, infer
from sbi_da.catalog.answering import Answerer
from sbi_da.catalog.rows import read_rows
from sbi_da.errors import SbiDaError
from sbi_da.records import ABSENT, write_table
from sbi_da.records.columns import open_source
from sbi_da.refinement import Refinement, simulator_of

QUESTION = Question(draws=20, kept_draws=4, correlations=True, id_column="source_id", refine=2)


def test_refined_answers_are_exact(toy_run, table):
    answerer = Answerer.load(toy_run)
    question = Question(draws=2000, id_column="source_id", refine=4)
    read = read_rows(open_source(rows(table, np.arange(60))), answerer.estimator.layout.surveys, question, "source_id")
    found = answerer(read, question)
    means, covariances = exact_laws(simulator_of(answerer.estimator), read.records)
    fine = found["flags"] & Flag.LOW_ESS == 0
    assert (fine == (found["ess"] >= 100)).all()
    states = [read.records.survey(s).state != ABSENT for s in read.records.surveys]
    fine &= np.all([seen.all(1) | ~seen.any(1) for seen in states], axis=0)  # the others have exact posteriors, too, but not here
    assert fine.sum() >= 10
    error = np.sqrt(np.diagonal(covariances, axis1=1, axis2=2) / found["ess"][:, None])
    away = np.stack([found[f"{name}_mean"] for name in NAMES], axis=1) - means
    assert (np.abs(away / error)[fine] < 4.5).all()


@pytest.mark.parametrize("head", ["spline", "mixture", "flow_matching"])
def test_each_object_is_refined_alone(toy_config, table, head, rng):
    """To the bit; of few objects, where densities take long."""
    answerer, n = untrained_answerer(toy_config, head), 3 if head == "flow_matching" else 30
    whole = answer_rows(answerer, table, np.arange(n), QUESTION)
    assert np.std(whole["ess"]) > 0 and np.std(whole["log_evidence"]) > 0
    for index in (rng.permutation(n), rng.permutation(n)[: n // 2], np.array([2])):
        part = answer_rows(answerer, table, index, QUESTION)
        for name, values in whole.items():
            assert np.asarray(part[name]).tobytes() == np.asarray(values)[index].tobytes(), name


@pytest.mark.parametrize("head", ["spline", "mixture"])
def test_measurements_beyond_all_simulations(toy_config, table, head):
    """Every object has an answer, or none and the flag that says so, whatever the size of values and errors."""
    answerer = untrained_answerer(toy_config, head)
    for share, powers in ((0.05, (-30, 15)), (0.5, (-30, 15)), (1.0, (-10, 0))):
        rng = np.random.default_rng(1)
        far = {k: v * 10 ** (rng.uniform(*powers, 40) * (rng.random(40) < share)) for k, v in rows(table, slice(0, 40)).items()}
        far["source_id"] = table["source_id"][:40]
        for question in (QUESTION, QUESTION.model_copy(update={"refine": 0})):
            found = answer_rows(answerer, far, np.arange(40), question)
            lost = found.get("ess", np.ones(40)) == 0
            assert (found["flags"][lost] & Flag.LOW_ESS).all()
            for name in ("theta_1_mean", "theta_2_sd", "theta_3_map", "theta_1_draws"):
                assert (np.isfinite(found[name].reshape(40, -1)).all(1) == ~lost).all(), name
            assert np.isnan(found["p_all"]).sum() <= np.isnan(answer_rows(answerer, table, np.arange(40), question)["p_all"]).sum()


def test_kept_draws_of_refined_answers_are_a_sample(toy_run, table):
    answerer, few = Answerer.load(toy_run), 20
    question = Question(draws=1000, kept_draws=few, id_column="source_id", refine=1)
    found = answer_rows(answerer, table, np.arange(300), question)
    fine = found["ess"] > 300
    away = np.stack([found[f"{name}_draws"][fine] for name in NAMES]).astype(float)
    assert fine.sum() > 50 and np.square(away).mean() == pytest.approx(1, abs=0.1)
    assert few * np.square(away.mean(-1)).mean() < 1.4, "as far from the mean as a mean of independent draws"


def test_partitions_to_refine_are_small(tmp_path, toy_run, table, monkeypatch):
    """So that little is lost when one is killed, and several processes have something to do."""
    monkeypatch.setattr("sbi_da.catalog.sources.SMALLEST", 100)
    path = write_table(tmp_path / "a.parquet", rows(table, slice(0, 20)))
    manifests = [infer(toy_run, path, tmp_path / str(k), QUESTION.model_copy(update={"refine": k}), 1) for k in (0, 1)]
    assert [len(m["partitions"]) for m in manifests] == [1, 4]


def test_what_no_draw_explains_has_no_answer(toy_config, table, monkeypatch):
    weigh = Refinement.weigh

    def spoilt(self, posterior, observed, draws, seed):
        z, log_weight = weigh(self, posterior, observed, draws, seed)
        log_weight[np.asarray(posterior.ids[: len(observed)]) == table["source_id"][3]] = -np.inf
        return z, log_weight

    answerer = untrained_answerer(toy_config, "mixture")
    before = answer_rows(answerer, table, np.arange(10), QUESTION)
    monkeypatch.setattr(Refinement, "weigh", spoilt)
    found = answer_rows(answerer, table, np.arange(10), QUESTION)
    assert found["ess"][3] == 0 and found["flags"][3] & Flag.LOW_ESS
    assert np.isnan(found["edge"][3])
    for name in ("theta_1_mean", "theta_3_map", "correlations", "theta_2_draws"):
        assert np.isnan(found[name][3]).all(), name
        assert np.isfinite(found[name][:3]).all() and (found[name][4:] == before[name][4:]).all(), name


def test_what_cannot_be_refined_is_refused(tmp_path, toy_config, toy_run, table):
    answerer = untrained_answerer(toy_config, "few_step")
    with pytest.raises(SbiDaError, match="few_step head draws and has no density: ask the estimator that it was distilled from"):
        answerer.check(QUESTION)
    with pytest.raises(ValueError, match="none are asked for"):
        Question(draws=0, refine=1)
    path = write_table(tmp_path / "a.parquet", rows(table, slice(0, 5)))
    infer(toy_run, path, tmp_path / "out", QUESTION, 1)
    with pytest.raises(SbiDaError, match="begun with refine 2, not 0"):
        infer(toy_run, path, tmp_path / "out", QUESTION.model_copy(update={"refine": 0}), 1)
