"""Refinement by an emulator: the linear toy with its own likelihood as the emulator, from posteriors that are wrong."""

import warnings

import numpy as np
import pytest
import torch
from linear_oracle import NAMES, exact_laws, posterior_of
from scipy.stats import kstest, multivariate_normal, norm

from sbi_da.emulated_refinement import refine_by_emulator, refined_log_density
from sbi_da.emulator import ConstantScatter
from sbi_da.errors import SbiDaError
from sbi_da.importance import local_kernels
from sbi_da.layout import Layout
from sbi_da.records import ABSENT, LIMIT
from sbi_da.simulation import simulate
from sbi_da.simulators import get_simulator

SIMULATOR = get_simulator("linear_gaussian", noise=0.5)
SURVEYS = SIMULATOR.surveys()
MATRIX = np.concatenate([SIMULATOR.matrices[s.name] for s in SURVEYS])


class Wrong:
    """An estimator whose posterior is shifted and widened."""

    target, parameter_names, layout, prior = "density", NAMES, Layout(SURVEYS), SIMULATOR.prior

    def __init__(self, **wrong):
        self.wrong = wrong

    def __call__(self, records):
        return posterior_of(SIMULATOR, *exact_laws(SIMULATOR, records), records.ids, **self.wrong)


@pytest.fixture(scope="module")
def emulator():
    """With the exact law."""
    law = ConstantScatter(3, len(MATRIX), width=8, blocks=1)
    with torch.no_grad():
        law.mean.weight.copy_(torch.tensor(MATRIX)), law.mean.bias.zero_()
        law.log_scales.fill_(-np.log(SIMULATOR.noise))
    return law


@pytest.fixture(scope="module")
def objects():
    records = simulate(SIMULATOR, SURVEYS, 3, 4)
    part = {s: records.survey(s).where(np.array([[True], [s < "modality_c"], [s == "modality_a"]])) for s in records.surveys}
    return records.with_measurements(part)


def refined(records, emulator, draws=4000, known=None, rounds=3, **wrong):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return refine_by_emulator(Wrong(**wrong), records, emulator, draws, known=known, rounds=rounds)


@pytest.mark.parametrize("wrong", [{}, {"shift": 1.5, "widen": 1.5}, {"widen": 0.5}])
def test_a_wrong_posterior_becomes_the_exact_one(objects, emulator, wrong):
    found = refined(objects, emulator, 8000, rounds=8, **wrong)
    means, covariances = exact_laws(SIMULATOR, objects)
    ess = found["effective_sample_size"].values
    assert (ess > 2000).all()
    for k, name in enumerate(NAMES):
        sd, drawn = np.sqrt(covariances[:, k, k]), found[name].values
        assert (np.abs(drawn.mean(1) - means[:, k]) < 4 * sd / np.sqrt(ess)).all()
        assert (np.abs(drawn.std(1) / sd - 1) < 4 / np.sqrt(ess)).all()


def test_draws_that_were_kept_several_times_move_apart(objects, emulator):
    """And leave the law as it is: ranks of the exact law stay uniform."""
    still, moved = (
        refine_by_emulator(Wrong(widen=2.0), objects, emulator, 4000, rounds=1, moves=moves, proposals=2000) for moves in (0, 20)
    )
    means, covariances = exact_laws(SIMULATOR, objects)
    for i in range(3):
        assert len(np.unique(still["theta_1"].values[i])) < 0.4 * 4000 and len(np.unique(moved["theta_1"].values[i])) > 0.95 * 4000
        for k, name in enumerate(NAMES):
            law = norm(means[i, k], np.sqrt(covariances[i, k, k]))
            assert kstest(moved[name].values[i], law.cdf).statistic < 0.04


def test_a_posterior_far_from_the_right_one_is_flagged(objects, emulator):
    with pytest.warns(UserWarning, match="effective sample size below 100 for 3 of 3"):
        found = refine_by_emulator(Wrong(shift=8.0), objects, emulator, 1000, rounds=1)
    assert found["low_ess"].all() and not refined(objects, emulator)["low_ess"].any()


def test_the_evidence_is_exact(objects, emulator):
    found, state = refined(objects, emulator)["log_evidence"].values, Layout(SURVEYS).read(objects)
    for i in range(3):
        seen = state.state[i] != ABSENT
        law = multivariate_normal(np.zeros(seen.sum()), MATRIX[seen] @ MATRIX[seen].T + SIMULATOR.noise**2 * np.eye(seen.sum()))
        assert found[i] == pytest.approx(law.logpdf(state.value[i, seen]), abs=0.05)


def test_the_density_of_what_was_refined_is_the_exact_one(objects, emulator):
    found = refined_log_density(Wrong(widen=1.5), objects, emulator, 4000)
    for i, (mean, covariance) in enumerate(zip(*exact_laws(SIMULATOR, objects), strict=True)):
        truth = [objects.parameters[name][i] for name in NAMES]  # of a standard normal prior: its own scores
        assert found[i] == pytest.approx(multivariate_normal(mean, covariance).logpdf(truth), abs=0.06)


def test_parameters_that_are_known_are_conditioned_on(objects, emulator):
    found = refined(objects, emulator, 8000, known={"theta_2": 0.4})
    assert "theta_2" not in found
    means, covariances = exact_laws(SIMULATOR, objects)
    for i in range(3):
        gain = covariances[i][[0, 2], 1] / covariances[i][1, 1]
        mean = means[i][[0, 2]] + gain * (0.4 - means[i][1])
        sd = np.sqrt(np.diagonal(covariances[i])[[0, 2]] - gain * covariances[i][[0, 2], 1])
        drawn = np.stack([found["theta_1"].values[i], found["theta_3"].values[i]], -1)
        ess = float(found["effective_sample_size"][i])
        assert (np.abs(drawn.mean(0) - mean) < 4 * sd / np.sqrt(ess)).all() and (np.abs(drawn.std(0) / sd - 1) < 0.1).all()
        whole = multivariate_normal(means[i], covariances[i])
        # log p(x, known) is log p(x) and the density of the known value under the posterior
        expected = refined(objects, emulator)["log_evidence"].values[i] + norm(whole.mean[1], np.sqrt(whole.cov[1, 1])).logpdf(0.4)
        assert float(found["log_evidence"][i]) == pytest.approx(expected, abs=0.08)


def test_company_does_not_matter_and_a_seed_repeats(objects, emulator):
    whole, alone = refined(objects, emulator, 300), refined(objects.isel([2]), emulator, 300)
    assert np.allclose(whole["theta_1"].values[2], alone["theta_1"].values[0], atol=1e-5)
    assert whole.identical(refined(objects, emulator, 300))


def test_what_cannot_be_refined_is_refused(objects, emulator):
    few = ConstantScatter(3, 2, width=8, blocks=1)
    state = objects.survey("modality_a").state.copy()
    state[0] = LIMIT
    classes = Wrong()
    classes.target = "class"
    limit = objects.with_measurements({**{s: objects.survey(s) for s in objects.surveys}, "modality_a": _with(objects, state)})
    for options, message in (
        ({"emulator": few}, "draws 2 entries"), ({"known": dict.fromkeys(NAMES, 0.0)}, "every parameter is known"),
        ({"draws": 1}, "draws must be at least 2, not 1"), ({"pilot": 5}, "pilot must be at least 20"),
        ({"records": limit}, "upper limits"), ({"known": {"theta_9": 1.0}}, "theta_9"),
        ({"estimator": classes}, "infers the class"),
    ):
        with pytest.raises(SbiDaError, match=message):
            refine_by_emulator(**{"estimator": Wrong(), "records": objects, "emulator": emulator, "draws": 50, **options})


def _with(objects, state):
    from dataclasses import replace

    return replace(objects.survey("modality_a"), state=state)


def test_local_kernels_follow_a_ring():
    """On a thin ring they waste few proposals, and importance weights from them are exact."""
    rng = np.random.default_rng(0)
    angle = 2 * np.pi * rng.random(3000)
    ring = (1 + 0.02 * rng.standard_normal(3000))[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    kernels = local_kernels(ring, np.full(3000, 1 / 3000), rng)
    u = kernels.sample(20_000, rng)
    radius = np.hypot(*u.T)
    weight = np.exp(norm(1, 0.02).logpdf(radius) - np.log(2 * np.pi * radius) - kernels.log_prob(u))
    assert weight.mean() == pytest.approx(1, abs=0.03)
    assert weight.sum() ** 2 / (weight**2).sum() > 0.4 * len(u)
    phase = np.sort(np.arctan2(u[:, 1], u[:, 0]))
    assert kstest(phase, "uniform", (-np.pi, 2 * np.pi)).statistic < 0.15
