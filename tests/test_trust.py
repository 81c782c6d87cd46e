"""How strange objects are: against answers that are known, and in the answers to catalogues."""

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from catalogue_tables import columns_of
from scipy.special import logsumexp
from scipy.stats import chi2, kstest, multivariate_normal
from sklearn.metrics import roc_auc_score

from sbi_da.catalog import Flag, Question, infer
from sbi_da.errors import ArtefactError, SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.layout import Observations
from sbi_da.records import ABSENT, OBSERVED, write_table
from sbi_da.runs import build, sources_of
from sbi_da.simulation import simulate
from sbi_da.trust import Reference, TrustTraining, learn_reference
from sbi_da.trust.faults import FAULTY, KINDS, LARGEST, LEAST, spoilt
from sbi_da.trust.learning import features_of
from sbi_da.trust.tails import Tails

SHORT = TrustTraining(steps=1000, batch=256, objects=16_000, width=64, learning_rate=5e-3)


@pytest.fixture(scope="module")
def learned(toy_run):
    estimator = Estimator.load(toy_run)
    return estimator, learn_reference(estimator, sources_of(estimator), SHORT)


@pytest.fixture(scope="module")
def observed(toy_config, learned):
    simulator, surveys, _ = build(toy_config)
    return learned[0].layout.read(simulate(simulator, surveys, 4000, 11, toy_config.missing))


def p_values(learned, observed):
    estimator, reference = learned
    found = [reference.p_values(reference.statistics(estimator, f, *part)) for f, part in features_of(estimator, observed)]
    return {k: np.concatenate([p[k] for p in found]) for k in found[0]}


def exact_conflict(toy_config, observed):
    """p-values of each survey given the others, of the linear-Gaussian toy, in closed form; NaN where there is nothing to compare."""
    simulator = build(toy_config)[0]
    matrix = np.concatenate(list(simulator.matrices.values()))
    out = np.full((len(observed), 4), np.nan)
    for i in range(len(observed)):
        seen = observed.state[i] == OBSERVED
        for k in range(4):
            own, others = seen & (np.arange(8) // 2 == k), seen & (np.arange(8) // 2 != k)
            if own.any() and others.any():
                precision = np.eye(3) + matrix[others].T @ matrix[others] / simulator.noise**2
                mean = np.linalg.solve(precision, matrix[others].T @ observed.value[i, others] / simulator.noise**2)
                covariance = matrix[own] @ np.linalg.solve(precision, matrix[own].T) + simulator.noise**2 * np.eye(own.sum())
                away = observed.value[i, own] - matrix[own] @ mean
                out[i, k] = chi2.sf(away @ np.linalg.solve(covariance, away), own.sum())
    return out


def test_tails_of_a_known_law(rng):
    value, group = rng.chisquare(2 + 4 * (np.arange(40_000) % 2)), np.arange(40_000) % 2
    tails = Tails.fit(value, group, 2, np.ones(40_000))
    for g, dof in enumerate((2, 6)):
        shares = np.array([0.9, 0.5, 0.1, 0.01])
        p = tails(chi2.isf([*shares, 1e-4], dof), np.full(5, g))
        assert (np.abs(p[:4] - shares) < 3 * np.sqrt(shares * (1 - shares) / 20_000)).all()
        assert 1e-6 < p[4] < 1e-3
    far = tails(np.array([1e3, 1e4, 1e5, np.nan]), np.zeros(4, int))
    assert 0 < far[2] < far[1] < far[0] < 1e-3 and np.isnan(far[3])


def test_tails_of_weighted_objects(rng):
    value = rng.exponential(size=40_000) * 2
    weight = 2 * np.exp(-value / 2)  # makes it an exponential of scale one
    tails = Tails.fit(value, np.zeros(40_000, int), 1, weight)
    np.testing.assert_allclose(tails(np.array([0.1, 1.0, 3.0]), np.zeros(3, int)), np.exp([-0.1, -1.0, -3.0]), rtol=0.1)


def test_conflict_is_that_of_the_exact_prediction(toy_config, learned, observed):
    some = observed.take(np.arange(1500))
    p, exact = p_values(learned, some), exact_conflict(toy_config, some)
    for k, name in enumerate(learned[0].surveys):
        found, held = p[f"conflict_{name}"], np.isfinite(exact[:, k])
        assert (np.isfinite(found) == held).all()
        assert np.corrcoef(found[held], exact[held, k])[0, 1] > 0.9
        assert np.abs(found[held] - exact[held, k]).mean() < 0.08


def test_p_values_of_simulated_objects_are_uniform(learned, observed):
    p = p_values(learned, observed)
    for name, values in p.items():
        held = values[np.isfinite(values)]
        assert kstest(held, "uniform").statistic < 0.05, name


def test_nothing_is_said_where_nothing_can_be(learned, observed):
    state = observed.state[:50].copy()
    state[:, 2:] = ABSENT
    p = p_values(learned, Observations(observed.value[:50], observed.error[:50], state))
    assert all(np.isnan(p[f"conflict_{name}"]).all() for name in learned[0].surveys)
    nobody = Observations(observed.value[:5], observed.error[:5], np.zeros_like(state[:5]))
    assert all(np.isnan(values).all() for values in p_values(learned, nobody).values())


def test_a_shifted_survey_stands_out(learned, observed):
    whole = observed.take((observed.state == OBSERVED).all(1))
    value = whole.value.copy()
    value[:, 2:4] += 4.0
    clean, shifted = p_values(learned, whole), p_values(learned, Observations(value, whole.error, whole.state))
    truth = np.repeat([0, 1], len(whole))
    for name in ("conflict_modality_b", "fault_modality_b", "fault", "all"):
        assert roc_auc_score(truth, -np.log(np.concatenate([clean[name], shifted[name]]))) > 0.95


def test_faults_are_what_they_are_called():
    torch.manual_seed(0)
    own = torch.tensor([[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 1]]) > 0
    unit = torch.tensor([1.0, 1.0, -1.0, 1.0, 1.0, -2.0])  # the third is a parallax, the last a temperature
    value, error = torch.randn(4000, 6), torch.rand(4000, 6) + 0.1
    state = torch.where(torch.rand(4000, 6) < 0.3, ABSENT, OBSERVED).to(torch.uint8)
    new, new_error, new_state, fault = spoilt(value, error, state, own, unit)
    away, survey = new - value, (fault - 1) % 3
    assert (away[fault == 0] == 0).all() and (new_state[fault == 0] == state[fault == 0]).all()
    assert 0.5 < (fault > 0).float().mean() < FAULTY
    for number, kind in enumerate(KINDS):
        rows = (fault > 0) & ((fault - 1) // 3 == number)
        assert set(survey[rows].tolist()) == ({0, 1} if kind == "trend" else {0, 1, 2})
        assert (away[rows][~own[survey[rows]]] == 0).all(), "other surveys are left alone"
        if kind == "mismatch":
            one = torch.nonzero(rows & (survey == 1))[0, 0]
            assert (value[:, 3:5] == new[one, 3:5]).all(1).sum() == 1 and (new_state != state)[rows].any()
            continue
        assert (new_state == state)[rows].all()
        assert ((away != 0) & (state == OBSERVED))[rows].any(1).all(), "something that was measured is wrong"
        first = away[rows & (survey == 0)]
        if kind == "offset":
            both = (first[:, :2] != 0).all(1)
            assert both.any() and torch.allclose(first[both, 0], first[both, 1], atol=1e-5) and (first[:, 2] == 0).all()
        elif kind == "trend":
            ratio = (first[:, 0] / first[:, 1])[(first[:, :2] != 0).all(1)]
            assert (first[:, 2] == 0).all() and (ratio > 0).all() and (ratio > 1).any() and (ratio < 1).any()
        else:
            assert ((away[rows] != 0).sum(1) == 1).all()
        amount = away[rows].abs()[away[rows] != 0]
        assert amount.max() < 2 * LARGEST * 1.01 and (amount.min() > LEAST * 0.99 or kind == "trend")
    ratio = (new_error / error)[fault == 0]
    assert torch.allclose(ratio[:, 0], ratio[:, 1]) and 0.07 < float(ratio[:, 0].log10().std()) < 0.13


def test_no_test_finds_offsets_much_better(toy_config, learned, observed):
    """Beside the ratio of exact likelihoods, which by Neyman and Pearson nothing surpasses."""
    whole = observed.take((observed.state == OBSERVED).all(1))
    simulator = build(toy_config)[0]
    matrix = np.concatenate(list(simulator.matrices.values()))
    law = multivariate_normal(np.zeros(8), matrix @ matrix.T + simulator.noise**2 * np.eye(8))
    scale = learned[0].encoder.scale[0].numpy()
    rng = np.random.default_rng(3)

    def amounts(count):
        size = np.exp(rng.uniform(np.log(LEAST), np.log(LARGEST), (count, 2))) * rng.choice([-1, 1], (count, 2))
        return np.pad(size * scale[2:4], ((0, 0), (2, 4)))

    shifted = whole.value + amounts(len(whole))
    trials = amounts(4000)

    def exact(x):
        return np.array([logsumexp(law.logpdf(row - trials)) for row in x]) - law.logpdf(x)

    def found(x):
        return -np.log(p_values(learned, Observations(x, whole.error, whole.state))["fault_modality_b"])

    truth = np.repeat([0, 1], len(whole))
    best = roc_auc_score(truth, np.concatenate([exact(whole.value), exact(shifted)]))
    reached = roc_auc_score(truth, np.concatenate([found(whole.value), found(shifted)]))
    assert best > 0.75 and reached > best - 0.03


def test_saved_and_loaded(tmp_path, learned, observed):
    estimator, reference = learned
    estimator.save(tmp_path / "run" / "estimator")
    assert Reference.load(tmp_path / "run", estimator) is None
    reference.save(tmp_path / "run", tmp_path / "run")
    loaded = Reference.load(tmp_path / "run", estimator)
    one, other = p_values(learned, observed.take(np.arange(60))), p_values((estimator, loaded), observed.take(np.arange(60)))
    assert all(np.array_equal(one[k], other[k], equal_nan=True) for k in one)
    estimator.metadata["trained"] = "again"
    estimator.save(tmp_path / "run" / "estimator")
    del estimator.metadata["trained"]
    with pytest.raises(ArtefactError, match="another estimator.*sbi-da trust"):
        Reference.load(tmp_path / "run", estimator)


def test_catalogues_are_told(tmp_path, toy_config, learned):
    estimator, reference = learned
    run = tmp_path / "run"
    estimator.save(run / "estimator")
    simulator, surveys, _ = build(toy_config)
    table = columns_of(simulate(simulator, surveys, 40, 5), surveys)
    table["modality_b_0"][7] += 40.0
    path = write_table(tmp_path / "a.parquet", table)
    question = Question(draws=10, id_column="source_id")
    infer(run, path, tmp_path / "without", question, 1)
    assert not any(name.startswith("p_") for name in pq.read_table(tmp_path / "without" / "objects").column_names)
    reference.save(run, run)
    with pytest.raises(SbiDaError, match="another reference"):
        infer(run, path, tmp_path / "without", question, 1)
    infer(run, path, tmp_path / "out", question, 1)
    found = pq.read_table(tmp_path / "out" / "objects")
    assert found["flags"].to_pylist()[7] == Flag.STRANGE
    p = np.array(found["p_conflict_modality_b"])
    assert p[7] < 1e-4 and (np.delete(p, 7) < 1e-3).sum() <= 1
    assert np.isfinite(np.array(found["edge"])).all()
