"""Clusters against exact answers: normal posteriors of the linear toy, whose product is known."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from linear_oracle import NAMES, GaussianHead, contexts, exact_cluster, members, posterior_of

from sbi_da.cluster import combine
from sbi_da.cluster.ratios import MemberRatios
from sbi_da.cluster.tables import clusters
from sbi_da.diagnostics import c2st
from sbi_da.distributions import Uniform
from sbi_da.errors import SbiDaError, UnknownNameError
from sbi_da.posteriors import Posterior
from sbi_da.prior import Prior


def check(cluster, means, covariances, shared, spread=None):
    """Means within Monte Carlo errors, that are small, and standard deviations within 8 %."""
    mean, covariance = exact_cluster(means, covariances, shared, spread)
    sd, found = np.sqrt(np.diag(covariance)), cluster.summary()
    assert (found["mc_error"].values < 0.08 * sd).all()
    assert (np.abs(found["mean"].values - mean) < 4 * found["mc_error"].values).all()
    assert np.allclose(found["sd"].values, sd, rtol=0.08)
    assert cluster.flag == ""


@pytest.mark.parametrize("n", [1, 5, 50, 300])
@pytest.mark.parametrize("shared", [["theta_1"], ["theta_3", "theta_1"]])
def test_the_exact_answer_on_the_conjugate_toy(n, shared):
    simulator, _, means, covariances = members(n, shared, seed=n)
    check(combine(posterior_of(simulator, means, covariances), shared), means, covariances, shared)


def test_draws_are_those_of_the_exact_law():
    shared = ["theta_1", "theta_2"]
    simulator, _, means, covariances = members(20, shared)
    drawn = combine(posterior_of(simulator, means, covariances), shared, points=4000).sample(1000)
    exact = np.random.default_rng(0).multivariate_normal(*exact_cluster(means, covariances, shared), 1000)
    assert c2st(exact, np.stack([drawn[k].values for k in shared], 1), quick=True)[0] < 0.54


def test_one_member_alone_keeps_its_own_posterior():
    simulator, _, means, covariances = members(1, ["theta_2"])
    posterior = posterior_of(simulator, means, covariances)
    found, own = combine(posterior, ["theta_2"], points=4000), posterior.sample(20_000)["theta_2"].values[0]
    assert found.summary()["mean"].item() == pytest.approx(own.mean(), abs=0.03 * own.std())
    assert found.summary()["sd"].item() == pytest.approx(own.std(), rel=0.05)
    assert found.log_bayes_factor == pytest.approx(0.0, abs=0.15)
    given = found.members(4000)
    for k, name in enumerate(NAMES):
        assert given[name].values.mean() == pytest.approx(means[0, k], abs=0.07 * np.sqrt(covariances[0, k, k]))
        assert given[name].values.std() == pytest.approx(np.sqrt(covariances[0, k, k]), rel=0.05)


@pytest.mark.parametrize("spread", [{"theta_1": 0.05}, {"theta_1": 0.6}, {"theta_1": 0.3, "theta_3": 0.1}])
def test_members_may_scatter_about_the_shared_value(spread):
    shared = ["theta_1", "theta_3"]
    simulator, _, means, covariances = members(30, shared, spread=spread)
    check(combine(posterior_of(simulator, means, covariances), shared, spread), means, covariances, shared, spread)


def test_contamination_is_found_and_strangers_named():
    shared = ["theta_1", "theta_3"]
    simulator, truth, means, covariances = members(80, shared, seed=3, outliers=20, noise=0.2)
    posterior = posterior_of(simulator, means, covariances)
    found = combine(posterior, shared, contamination={"kind": "uniform", "low": 0, "high": 0.6}, draws=8)
    summary = found.summary()
    share = summary.sel(parameter="contamination")
    assert share["q05"] < 0.25 < share["q95"] + 0.05 and share["sd"] < 0.1
    for name in shared:
        assert abs(summary["mean"].sel(parameter=name) - truth[name]) < 4 * summary["sd"].sel(parameter=name)
    belongs = found.membership().values
    assert belongs[:60].mean() > 0.85 and belongs[60:].mean() < 0.4
    assert "contamination" in found.sample(50)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plain = combine(posterior, shared, draws=8)
    assert plain.log_bayes_factor < found.log_bayes_factor - 100
    assert np.allclose(plain.membership(), 1)


def test_members_given_the_cluster_follow_the_exact_conditional():
    simulator, _, means, covariances = members(4, ["theta_1"], seed=9)
    found = combine(posterior_of(simulator, means, covariances), ["theta_1"], points=4000).members(3000)
    mean, variance = (x.item() for x in exact_cluster(means, covariances, ["theta_1"]))
    assert (found["effective_sample_size"] > 2000).all()
    for i, (m, c) in enumerate(zip(means, covariances, strict=True)):
        slope = c[1:, 0] / c[0, 0]
        expected = m[1:] + slope * (mean - m[0])
        sd = np.sqrt(np.diag(c)[1:] - slope * c[0, 1:] + slope**2 * variance)
        drawn = np.stack([found[name].values[i] for name in NAMES[1:]])
        assert np.allclose(drawn.mean(1), expected, atol=0.08 * sd.max()) and np.allclose(drawn.std(1), sd, rtol=0.06)


def test_where_integrals_fail_mixtures_serve(monkeypatch):
    """No integral is trusted: the answer is the same within the larger error that is owned to."""
    monkeypatch.setattr("sbi_da.cluster.combination._trusted", lambda inner, *_: np.zeros(len(inner.log_ratio), bool))
    simulator, _, means, covariances = members(20, ["theta_1"], seed=2)
    found = combine(posterior_of(simulator, means, covariances), ["theta_1"])
    mean, variance = (x.item() for x in exact_cluster(means, covariances, ["theta_1"]))
    summary = found.summary()
    assert not found.trusted.any() and summary["sd"].item() == pytest.approx(np.sqrt(variance), rel=0.15)
    assert abs(summary["mean"].item() - mean) < 4 * summary["mc_error"].item() < 1.5 * np.sqrt(variance)
    given = found.members(500)
    assert abs(float(given["theta_1"].mean()) - mean) < 0.5 * np.sqrt(variance) and (given["effective_sample_size"] > 100).all()


def test_a_head_with_marginal_densities_is_not_integrated():
    simulator, _, means, covariances = members(10, ["theta_1"])

    class Marginal:
        def log_prob(self, theta):
            value, sd = theta["theta_1"], np.sqrt(covariances[:, 0, 0])[:, None]
            return -0.5 * ((value - means[:, :1]) / sd) ** 2 - np.log(sd * np.sqrt(2 * np.pi))

    class Own(Posterior):
        def marginal(self, names):
            return Marginal()

    posterior = Own(GaussianHead(), contexts(means, covariances), simulator.prior, np.arange(10))
    found = combine(posterior, ["theta_1"])
    assert found.ratios.marginal and found.ratios.own == []
    check(found, means, covariances, ["theta_1"])
    assert abs(float(found.members(300)["theta_2"].mean()) - means[:, 1].mean()) < 0.5


def test_another_prior_of_what_is_shared_replaces_the_first_once():
    simulator, _, means, covariances = members(5, ["theta_1"])
    narrow = {"kind": "normal", "mean": 0.5, "sd": 0.2, "low": -8, "high": 8}
    summary = combine(posterior_of(simulator, means, covariances), ["theta_1"], prior={"theta_1": narrow}).summary()
    mean, variance = (x.item() for x in exact_cluster(means, covariances, ["theta_1"]))
    precision = 1 / variance - 1 + 1 / 0.04
    assert summary["mean"].item() == pytest.approx((mean / variance + 0.5 / 0.04) / precision, abs=0.1 * precision**-0.5)
    assert summary["sd"].item() == pytest.approx(precision**-0.5, rel=0.08)


def test_ratios_do_not_depend_on_how_many_points_are_asked_at_once(monkeypatch):
    from sbi_da.cluster.shared_prior import SharedPrior

    simulator, _, means, covariances = members(3, ["theta_1"])
    ratios = MemberRatios(posterior_of(simulator, means, covariances), SharedPrior(simulator.prior, ["theta_1"]), {})
    u, noise = np.linspace(-1, 1, 7)[:, None], ratios.points(128, 0)
    whole = ratios(u, noise).log_ratio
    monkeypatch.setattr("sbi_da.cluster.ratios.BLOCK", 50)
    assert np.allclose(whole, ratios(u, noise).log_ratio, atol=1e-5)
    sd = np.sqrt(covariances[:, 0, 0])[:, None]
    exact = -0.5 * ((u.T - means[:, :1]) / sd) ** 2 - np.log(sd) + 0.5 * u.T**2
    assert np.allclose(whole, exact, atol=0.15)


def test_what_cannot_be_combined_is_refused():
    simulator, _, means, covariances = members(2, ["theta_1"])
    posterior = posterior_of(simulator, means, covariances)
    with pytest.raises(UnknownNameError, match="theta_9"):
        combine(posterior, ["theta_9"])
    for message, options in {
        "at least one": {"shared": []}, "not shared": {"shared": ["theta_1"], "spread": {"theta_2": 0.1}},
        "positive standard deviation": {"shared": ["theta_1"], "spread": {"theta_1": 0.0}},
        "share from 0": {"shared": ["theta_1"], "contamination": 1.0}, "power of two": {"shared": ["theta_1"], "draws": 12},
        "law of a share": {"shared": ["theta_1"], "contamination": Uniform(low=0, high=2)},
        "at least 100": {"shared": ["theta_1"], "points": 9},
        "can be replaced here": {"shared": ["theta_1"], "prior": {"theta_2": Uniform(low=0, high=1)}},
    }.items():
        with pytest.raises(SbiDaError, match=message):
            combine(posterior, **options)
    with pytest.raises(SbiDaError, match="before given"):
        combine(posterior.given(theta_2=0.0), ["theta_1"])
    with pytest.raises(SbiDaError, match="no members"):
        combine(replace(posterior, context=posterior.context[:0], ids=posterior.ids[:0]), ["theta_1"])


def test_dust_is_shared_with_distance_only():
    """The prior of A_V depends on distance: alone it is refused; the mass limits, which depend on what is shared, are no obstacle."""
    from sbi_da.cluster.shared_prior import SharedPrior
    from sbi_da.simulators import get_simulator

    prior = get_simulator("stars").prior
    with pytest.raises(SbiDaError, match="share distance as well"):
        SharedPrior(prior, ["av"])
    shared = SharedPrior(prior, ["av", "feh", "distance", "log_age"])
    theta = prior.sample(1000, np.random.default_rng(0))
    z = prior.to_normal(theta)
    own = shared.coordinates.to_normal({k: theta[k] for k in shared.names})
    assert np.allclose(own, z[:, [prior.names.index(k) for k in shared.names]])


def test_a_table_of_groups(calibrated, toy_config):
    from sbi_da.runs import build
    from sbi_da.simulation import simulate

    simulator, surveys, _ = build(toy_config)
    rng = np.random.default_rng(2)
    theta = {k: rng.standard_normal(26) for k in NAMES}
    theta["theta_2"][:12], theta["theta_2"][12:25] = 0.8, -0.6
    records = simulate(simulator, surveys, 26, 5, theta=theta).with_columns({"group": np.repeat(["a", "b", "c"], [12, 13, 1])})
    blank = {s: records.survey(s).where(np.arange(26)[:, None] < 25) for s in records.surveys}
    with pytest.raises(SbiDaError, match="column group"):
        clusters(calibrated, simulate(simulator, surveys, 3, 1), ["theta_2"])
    columns = clusters(calibrated, records.with_measurements(blank), ["theta_2"], draws=300)
    assert columns["group"].tolist() == ["a", "b", "c"] and columns["members"].tolist() == [12, 13, 0]
    assert columns["flag"][2] == "no_data" and np.isnan(columns["theta_2_mean"][2])
    assert np.abs(columns["theta_2_mean"][:2] - [0.8, -0.6]).max() < 0.3 and (columns["theta_2_mc_error"][:2] < 0.1).all()


def test_the_order_of_names_does_not_matter():
    prior = Prior({"a": Uniform(low=0, high=1), "b": Uniform(low=0, high=1)})
    from sbi_da.cluster.shared_prior import SharedPrior

    assert SharedPrior(prior, ["b", "a"]).names == ["a", "b"]
