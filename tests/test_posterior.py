import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from sbi_da.distributions import LogUniform, Normal, Uniform
from sbi_da.errors import SbiDaError, UnknownNameError
from sbi_da.posteriors import Posterior, SplineHead
from sbi_da.prior import Limits, Prior

COVARIANCE = np.array([[1.0, 0.8, 0.3], [0.8, 1.0, 0.1], [0.3, 0.1, 1.0]]) * 0.25
MEAN = np.array([0.3, -0.2, 0.5])


class GaussianHead:
    """An exact head: the same correlated Gaussian in normal scores for every object."""

    def __init__(self):
        self.root = torch.linalg.cholesky(torch.tensor(COVARIANCE))
        self.law = torch.distributions.MultivariateNormal(torch.tensor(MEAN), torch.tensor(COVARIANCE))

    def log_prob(self, z, context):
        return self.law.log_prob(z.double())

    def transform(self, noise, context):
        return (torch.tensor(MEAN) + noise.double() @ self.root.T).float()


@pytest.fixture()
def posterior() -> Posterior:
    prior = Prior({k: Normal(mean=0, sd=1, low=-8, high=8) for k in "abc"})
    return Posterior(GaussianHead(), torch.zeros(2, 4), prior, np.array([10, 11]), units={"a": "mag"})


def test_samples_have_names_units_and_moments(posterior):
    sample = posterior.sample(40_000)
    assert sample["a"].dims == ("object", "draw") and sample["a"].attrs["units"] == "mag"
    stacked = np.stack([sample[k].values[0] for k in "abc"], 1)
    assert np.allclose(stacked.mean(0), MEAN, atol=0.02) and np.allclose(np.cov(stacked.T), COVARIANCE, atol=0.02)


def test_given_matches_the_exact_conditional(posterior):
    """Conditioning a Gaussian is known in closed form; one condition is near, one 2.4 sigma out."""
    for value in (0.4, 1.5):
        conditioned = posterior.given(a=value).sample(4000)
        expected = MEAN[1] + COVARIANCE[1, 0] / COVARIANCE[0, 0] * (value - MEAN[0])
        sd = np.sqrt(COVARIANCE[1, 1] - COVARIANCE[1, 0] ** 2 / COVARIANCE[0, 0])
        assert (conditioned["a"] == value).all()
        assert conditioned["b"].values[0].mean() == pytest.approx(expected, abs=0.03)
        assert conditioned["b"].values[0].std() == pytest.approx(sd, rel=0.06)
        assert (conditioned["effective_sample_size"] > 1000).all()


def test_given_two_parameters(posterior):
    conditioned = posterior.given(a=0.5).given(c=0.2).sample(4000)
    held, free = [0, 2], [1]
    gain = COVARIANCE[np.ix_(free, held)] @ np.linalg.inv(COVARIANCE[np.ix_(held, held)])
    expected = MEAN[1] + float((gain @ (np.array([0.5, 0.2]) - MEAN[held]))[0])
    assert conditioned["b"].values[1].mean() == pytest.approx(expected, abs=0.03)


def test_a_poor_proposal_warns(posterior):
    """A density much narrower than the draws suggest leaves few effective samples, and says so."""

    class Spike(GaussianHead):
        def log_prob(self, z, context):
            return super().log_prob(z, context) - 0.5 * ((z[..., 2].double() - 1.5) / 1e-3) ** 2

    with pytest.warns(UserWarning, match="effective sample size below"):
        replace(posterior, head=Spike()).given(a=0.3).sample(50)


def test_given_and_another_prior_do_not_depend_on_the_batch(posterior):
    wide = {"kind": "normal", "mean": 0, "sd": 0.9, "low": -8, "high": 8}
    both = posterior.given(a=0.4).under(b=wide).sample(300, seed=-3)
    alone = replace(posterior, context=posterior.context[1:], ids=posterior.ids[1:])
    one = alone.given(a=0.4).under(b=wide).sample(300, seed=-3)
    assert np.allclose(both["c"].values[1], one["c"].values[0], atol=1e-5)


def test_a_condition_that_contradicts_the_prior_is_answered_by_nan():
    """Old stars of thirty solar masses do not exist."""
    axis = (np.array([6.0, 10.0]),)
    limits = Limits(("log_age",), axis, np.log([0.1, 0.1]), np.log([50.0, 1.0]), log=True)
    prior = Prior({"log_age": Uniform(low=6, high=10), "mass": LogUniform(low=0.1, high=50), "c": Uniform(low=0, high=1)},
                  {"mass": limits})
    posterior = Posterior(
        GaussianHead(), torch.zeros(2, 4), prior, np.array([1, 2]), derived=("twice",), derive=lambda t: {"twice": 2 * t["mass"]}
    )
    with pytest.warns(UserWarning, match="effective sample size"):
        sample = posterior.given(log_age=10.0, mass=30.0).sample(50)
    assert (sample["effective_sample_size"] == 0).all()
    assert np.isnan(sample["mass"]).all() and np.isnan(sample["twice"]).all()
    allowed = posterior.given(log_age=6.0, mass=30.0).sample(50)
    assert (allowed["twice"] == 60).all()


def test_bad_conditions(posterior):
    with pytest.raises(UnknownNameError):
        posterior.given(d=1.0)
    with pytest.raises(SbiDaError, match="prior allows"):
        posterior.given(a=99.0)
    with pytest.raises(SbiDaError, match="at least one"):
        posterior.given(a=0.0, b=0.0, c=0.0)


def test_another_prior_matches_the_exact_product(posterior):
    """A Gaussian posterior under a narrower Gaussian prior is known: precisions add, minus that of the first prior."""
    narrow = {"kind": "normal", "mean": 0.5, "sd": 0.5, "low": -8, "high": 8}
    drawn = posterior.under(a=narrow).sample(8000)
    variance = COVARIANCE[0, 0]
    precision = 1 / variance + 1 / 0.25 - 1
    mean = (MEAN[0] / variance + 0.5 / 0.25) / precision
    assert drawn["a"].values[0].mean() == pytest.approx(mean, abs=0.02)
    assert drawn["a"].values[0].std() == pytest.approx(precision**-0.5, rel=0.04)
    shift = COVARIANCE[0, 1] / variance * (mean - MEAN[0])
    assert drawn["b"].values[0].mean() == pytest.approx(MEAN[1] + shift, abs=0.02)
    assert (drawn["effective_sample_size"] > 3000).all()


def test_the_same_prior_changes_nothing(posterior):
    drawn = posterior.under(a=posterior.prior.laws["a"]).sample(2000)
    assert (drawn["effective_sample_size"] == 2000).all()
    assert drawn["a"].values[0].mean() == pytest.approx(MEAN[0], abs=0.03)


def test_a_prior_beyond_the_training_prior_is_refused(posterior):
    with pytest.raises(SbiDaError, match="reaches beyond"):
        posterior.under(a={"kind": "uniform", "low": -20, "high": 20})
    with pytest.raises(UnknownNameError):
        posterior.under(d={"kind": "uniform", "low": 0, "high": 1})
    far = posterior.under(a={"kind": "normal", "mean": -4, "sd": 0.1, "low": -8, "high": 8})
    with pytest.warns(UserWarning, match="effective sample size"):
        far.sample(500)


def test_marginal_keeps_only_what_is_asked(posterior):
    assert list(posterior.marginal(["c", "a"]).sample(5).data_vars) == ["c", "a"]
    with pytest.raises(UnknownNameError):
        posterior.marginal(["d"])
    with pytest.raises(SbiDaError, match="density of marginals"):
        posterior.marginal(["a"]).log_prob({"a": np.zeros(2)})


def test_log_prob_is_a_density_in_parameter_units():
    """On a one-parameter posterior it integrates to one in the parameter's own unit, and is -inf outside the prior."""
    torch.manual_seed(0)
    prior = Prior({"x": Normal(mean=5, sd=3, low=0, high=12)})
    posterior = Posterior(SplineHead(1, 4, transforms=1, bins=5, hidden=(8,)), torch.randn(1, 4), prior, np.array([0]))
    grid = np.linspace(-1, 13, 40_001)
    density = np.exp(posterior.log_prob({"x": grid[None]}).values[0])
    assert np.trapezoid(density, grid) == pytest.approx(1, abs=2e-3)
    assert (density[(grid < 0) | (grid > 12)] == 0).all()


def test_log_prob_shapes_and_errors(posterior):
    zero = np.zeros((2, 6))
    assert posterior.log_prob({k: zero for k in "abc"}).dims == ("object", "draw")
    with pytest.raises(SbiDaError, match="'b' is missing"):
        posterior.log_prob({"a": zero, "c": zero})
    with pytest.raises(SbiDaError, match="2 objects"):
        posterior.log_prob({k: np.zeros(3) for k in "abc"})


def test_summary_and_arviz(posterior):
    summary = posterior.summary(2000)
    assert summary["q50"].sel(parameter="a").dims == ("object",)
    assert (summary["q16"] < summary["q84"]).all()
    tree = posterior.arviz(100)
    assert tree["posterior"]["a"].dims == ("chain", "draw", "object")


def test_a_million_draws_stay_inside_the_prior(toy_estimator, toy_records):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample = toy_estimator(toy_records).sample(16_000)
    theta = {k: sample[k].values.ravel() for k in toy_estimator.parameter_names}
    assert len(theta["theta_1"]) > 1e6
    assert np.isfinite(toy_estimator.prior.log_prob(theta)).all()
