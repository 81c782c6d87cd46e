"""Refinement by the likelihood: wrong posteriors of the linear toy made right, and the likelihood of surveys against what they record."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from linear_oracle import NAMES, exact_laws, posterior_of
from scipy.stats import kstest, multivariate_normal

from sbi_da.errors import SbiDaError
from sbi_da.inference import query
from sbi_da.likelihood import log_likelihood, systematic_terms
from sbi_da.records import ABSENT, LIMIT, OBSERVED
from sbi_da.refinement import Joint, refine, simulator_of
from sbi_da.runs import build
from sbi_da.simulation import observe, simulate
from sbi_da.surveys import Channel, Noise, Survey


class Oracle:
    """An estimator whose posterior is the exact one, or one made wrong on purpose."""

    target, parameter_names, derived, metadata = "density", NAMES, (), {}

    def __init__(self, base, **wrong):
        self.layout, self.simulator, self.wrong = base.layout, base.simulator, wrong

    def __call__(self, records):
        return posterior_of(simulator_of(self), *exact_laws(simulator_of(self), records), records.ids, **self.wrong)


@pytest.fixture(scope="module")
def objects(toy_config):
    simulator, surveys, _ = build(toy_config)
    records = simulate(simulator, surveys, 3, 4)
    part = {s: records.survey(s).where(np.array([[True], [s < "modality_c"], [s == "modality_a"]])) for s in records.surveys}
    return records.with_measurements(part)


def refined(base, objects, draws=4000, **options):
    wrong = {k: options.pop(k) for k in ("shift", "widen") if k in options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return refine(Oracle(base, **wrong), objects, draws, **options)


@pytest.mark.parametrize("wrong", [{}, {"shift": 1.0, "widen": 1.5}, {"shift": -0.7}, {"widen": 0.6}])
def test_a_wrong_posterior_becomes_the_exact_one(base, objects, wrong):
    found = refined(base, objects, 8000, **wrong)
    means, covariances = exact_laws(simulator_of(base), objects)
    ess = found["effective_sample_size"].values
    for k, name in enumerate(NAMES):
        sd, drawn = np.sqrt(covariances[:, k, k]), found[name].values
        assert (np.abs(drawn.mean(1) - means[:, k]) < 4 * sd / np.sqrt(ess)).all()
        assert (np.abs(drawn.std(1) / sd - 1) < 4 / np.sqrt(ess)).all()
    assert not found["low_ess"].any()


def test_the_effective_sample_size_says_how_wrong_it_was(base, objects):
    exact, wide, narrow, far = (refined(base, objects, **w)["effective_sample_size"].values for w in (
        {}, {"widen": 1.6}, {"widen": 0.3}, {"shift": 6.0}))
    assert (exact > 0.85 * 4000).all() and (wide < exact).all()
    assert (narrow < 0.1 * 4000).all(), "a posterior that is too narrow must show"
    assert (far < 30).all()
    with pytest.warns(UserWarning, match="effective sample size below 100 for 3 of 3"):
        found = refine(Oracle(base, shift=6.0), objects, 1000)
    assert found["low_ess"].all()
    assert (refined(base, objects, shift=3.0, rounds=4)["effective_sample_size"] > 1000).all()


def test_the_evidence_is_exact(base, objects):
    found = refined(base, objects)["log_evidence"].values
    simulator = simulator_of(base)
    for i in range(3):
        seen = [s for s in objects.surveys if objects.survey(s).state[i].all()]
        matrix = np.concatenate([simulator.matrices[s] for s in seen])
        law = multivariate_normal(np.zeros(len(matrix)), matrix @ matrix.T + simulator.noise**2 * np.eye(len(matrix)))
        assert found[i] == pytest.approx(law.logpdf(np.concatenate([objects.survey(s).value[i] for s in seen])), abs=0.05)


def test_absent_channels_leave_no_trace(base, objects):
    spoilt = {s: objects.survey(s) for s in objects.surveys}
    spoilt = {
        s: replace(m, **{k: np.where(m.state == ABSENT, np.nan, getattr(m, k)) for k in ("value", "error")}) for s, m in spoilt.items()
    }
    one, other = (refined(base, o, 200) for o in (objects, objects.with_measurements(spoilt)))
    assert one.identical(other)


def test_order_and_company_do_not_matter(base, objects):
    whole, alone = refined(base, objects, 300), refined(base, objects.isel([2]), 300)
    assert np.allclose(whole["theta_1"].values[2], alone["theta_1"].values[0], atol=1e-5)


def test_parameters_that_are_not_inferred_are_integrated(base, objects):
    """Of p(theta_1, x) only theta_1 is given: the mean over draws of the others is the exact marginal likelihood."""
    simulator = simulator_of(base)
    joint = Joint(simulator, simulator.prior, base.layout, 20_000)
    observed = base.layout.read(objects.isel([2]))
    grid = np.array([-1.0, 0.0, 1.0])
    found = joint.log_prob({"theta_1": grid}, observed, np.random.default_rng(0))
    matrix, x = simulator.matrices["modality_a"], objects.survey("modality_a").value[2]
    covariance = matrix[:, 1:] @ matrix[:, 1:].T + simulator.noise**2 * np.eye(2)
    exact = [multivariate_normal(matrix[:, 0] * t, covariance).logpdf(x) - 0.5 * t**2 - 0.5 * np.log(2 * np.pi) for t in grid]
    assert np.allclose(found, exact, atol=0.1)


class Sky:
    def __init__(self, values):
        self.values = values

    def signal(self, channel):
        return self.values[channel.name]


def camera(**options):
    """Two magnitudes with errors that rise, and a parallax whose error follows the first."""
    law = Noise(points=((14.0, 0.002), (18.0, 0.01), (20.0, 0.05), (21.0, 0.12)), scatter=0.15, floor=0.01)
    plain = {"system": "AB", "wavelength": 0.5, "noise": law, "depth_scatter": 0.2, **options}
    return Survey(name="camera", title="", reference="", channels=(
        Channel(name="g", column="g", error_column="e_g", depth=20.5, **plain),
        Channel(name="r", column="r", error_column="e_r", depth=19.5, **plain),
        Channel(name="p", kind="parallax", unit="mas", column="p", error_column="e_p",
                noise=Noise(points=((14.0, 0.02), (21.0, 1.0)), reference="g", scatter=0.1)),
    ))


def test_the_likelihood_is_that_of_what_surveys_record():
    """Ranks of the true magnitude in posteriors from the likelihood alone are uniform: quoted errors, floors, limits and all."""
    survey, rng = camera(), np.random.default_rng(1)
    truth = rng.uniform(15, 22, 500)

    def signals(m):
        return {"g": m + 0.3, "r": m, "p": 10 ** ((15 - m) / 5)}

    seen = observe(survey, Sky(signals(truth)), rng)
    assert (seen.state == LIMIT).any() and (seen.state == OBSERVED).any() and (seen.state == ABSENT).any()
    ranks, narrow = [], []
    for i in range(500):
        grid = np.linspace(15, 22, 301)
        for _ in range(2):
            signal = np.stack(list(signals(grid).values()), 1)
            log_p = log_likelihood(survey, signal, seen.value[i], seen.error[i], seen.state[i], np.zeros(3))
            weight = np.exp(log_p - log_p.max())
            kept = np.flatnonzero(weight > 1e-8)
            cumulative = weight.cumsum() / weight.sum()
            rank = np.interp(truth[i], grid, cumulative - weight / weight.sum() / 2)
            grid = np.linspace(grid[max(0, kept[0] - 1)], grid[min(300, kept[-1] + 1)], 301)
        ranks.append(rank)
        if (seen.state[i] == OBSERVED).all():
            narrow.append(rank)
    assert kstest(ranks, "uniform").pvalue > 0.01 and kstest(narrow, "uniform").pvalue > 0.01


def test_limits_saturation_and_references():
    survey = camera(saturation=14.0)
    signal = np.array([[16.0, 16.0, 1.0], [25.0, 25.0, 1.0], [13.0, 16.0, 1.0]])
    error, value = np.full(3, 0.1), np.array([20.5, 19.5, 1.0])

    def of(*state):
        return log_likelihood(survey, signal, value, error, np.array(state), np.zeros(3))

    limit = of(LIMIT, ABSENT, ABSENT)
    assert limit[0] < -100 and limit[1] == pytest.approx(0, abs=1e-6), "a limit enters by its probability"
    assert np.isinf(limit[2]), "a star brighter than saturation is in no table"
    alone = of(ABSENT, ABSENT, OBSERVED)
    with_limit = of(LIMIT, ABSENT, OBSERVED)
    assert alone[1] < alone[0] - 20 and np.isfinite(alone[2]), "a parallax without its magnitude: that one was detected"
    assert with_limit[0] < -100
    assert (of(ABSENT, ABSENT, ABSENT) == 0).all()


def test_the_likelihood_is_a_density_of_values_and_quoted_errors():
    survey, state = camera(), np.array([OBSERVED, ABSENT, ABSENT])
    signal, total = np.full((1, 3), 17.0), 0.0
    quoted = np.geomspace(0.002, 0.1, 1500)
    for error in quoted:
        values = 17.0 + np.linspace(-6, 6, 41) * np.hypot(error, 0.01)
        density = [log_likelihood(survey, signal, np.array([v, 0, 0]), np.array([error, 1, 1]), state, np.zeros(3))[0] for v in values]
        total += np.trapezoid(np.exp(density), values) * error * np.log(quoted[1] / quoted[0])
    assert total == pytest.approx(1.0, abs=0.03)


def test_offsets_widen_exactly():
    survey, rng = camera(), np.random.default_rng(0)
    signal, state = np.full((1, 3), 17.0), np.array([OBSERVED, ABSENT, ABSENT])
    value, error = np.array([17.05, 0, 0]), np.array([0.012, 1, 1])
    found = log_likelihood(survey, signal, value, error, state, np.array([0.03, 0, 0]))
    moved = np.column_stack([17.0 + 0.03 * rng.standard_normal(20_000), np.full((20_000, 2), 17.0)])
    drawn = log_likelihood(survey, moved, value, error, state, np.zeros(3))
    assert found[0] == pytest.approx(np.log(np.exp(drawn).mean()), abs=0.1)


@pytest.mark.parametrize("smallest", [0.001, 0.005, 0.0051, 0.02, 0.0501, 0.3, np.inf])
def test_systematic_terms_are_a_law(smallest):
    value, probability = systematic_terms(smallest)
    possible = 0.5 + 0.5 * np.log10(min(max(smallest, 0.005), 0.05) / 0.005)
    assert probability.sum() == pytest.approx(possible, abs=2e-3) and (probability >= 0).all()
    assert (value < smallest).all() and (np.diff(value) > 0).all()


def test_stars_have_a_likelihood(star_estimator):
    estimator, records = star_estimator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = refine(estimator, records, 200, nuisances=4)
    ess = found["effective_sample_size"].values
    assert found["low_ess"].sum() >= len(records) - 1 and np.median(ess) < 20, "an untrained head explains little"
    assert {"log_age", "teff"} <= set(found.data_vars) and np.isfinite(found["teff"].values[ess > 0]).all()


@pytest.fixture(scope="module")
def star_estimator():
    from sbi_da.config import load_config

    simulator, surveys, estimator = build(load_config("demo", ["surveys=[gaia, twomass, wise]"]))
    theta = {"log_age": 9.0, "feh": 0.0, "mass": 0.9, "distance": 400.0, "av": 0.3}
    return estimator.eval(), simulate(simulator, surveys, 4, 2, theta={k: np.full(4, v) for k, v in theta.items()})


def test_the_truth_is_likelier_than_what_is_far_from_it(star_estimator):
    estimator, records = star_estimator
    simulator = simulator_of(estimator)
    joint = Joint(simulator, simulator.prior, estimator.layout, 64)
    theta = {k: np.array([v[0], v[0]]) for k, v in records.parameters.items() if k in simulator.prior.names}
    theta["distance"][1] = 600.0
    for i in range(4):
        found = joint.log_prob(theta, estimator.layout.read(records.isel([i])), np.random.default_rng(i))
        assert found[0] > found[1] + 10


def test_query_with_refinement(calibrated, objects):
    columns = query(calibrated, objects, 1000, refinement=5)
    means, covariances = exact_laws(simulator_of(calibrated), objects)
    assert (columns["ess"] > 100).all() and (columns["flag"] == "").all() and np.isfinite(columns["log_evidence"]).all()
    for k, name in enumerate(NAMES):
        error = np.abs(columns[f"{name}_mean"] - means[:, k]) / np.sqrt(covariances[:, k, k])
        assert (error < 4 / np.sqrt(columns["ess"])).all()
    assert "log_evidence" not in query(calibrated, objects, 50)


def test_what_cannot_be_refined_is_refused(base, objects, toy_config):
    with pytest.raises(SbiDaError, match="cannot be held"):
        query(base, objects, 50, given={"theta_1": 0.0}, refinement=1)
    nameless = Oracle(base)
    nameless.simulator = None
    with pytest.raises(SbiDaError, match="names no simulator"):
        refine(nameless, objects)
    aligned = Oracle(base)
    aligned.metadata = {"alignment": {"verdict": {"kept": True}}}
    with pytest.raises(SbiDaError, match="was aligned"):
        refine(aligned, objects)
    derived = Oracle(base)
    derived.parameter_names = ["theta_1", "teff"]
    with pytest.raises(SbiDaError, match="teff is inferred"):
        refine(derived, objects)
    with pytest.raises(SbiDaError, match="at least 2"):
        refine(base, objects, 1)
    classes = Oracle(base)
    classes.target = "class"
    with pytest.raises(SbiDaError, match="no likelihood"):
        refine(classes, objects)
