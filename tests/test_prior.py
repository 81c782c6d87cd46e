import json

import numpy as np
import pytest
from scipy.stats import kstest
from scipy.stats import multivariate_normal as multivariate

from sbi_da.distributions import (
    BrokenPowerLaw,
    DustLayer,
    Exponential,
    Family,
    LinearNormal,
    LogOfUniform,
    LogUniform,
    Mixture,
    Normal,
    Tabulated,
    Uniform,
    VolumeDensity,
    distribution_from_dict,
)
from sbi_da.distributions.linear_normal import multivariate_normal
from sbi_da.errors import ConfigError, SbiDaError
from sbi_da.prior import Limits, Prior

LAWS = {
    "uniform": Uniform(low=-1, high=3),
    "log_uniform": LogUniform(low=0.1, high=50),
    "log_of_uniform": LogOfUniform(low=6, high=10.1),
    "normal": Normal(mean=0.2, sd=0.5, low=-2, high=0.5),
    "exponential": Exponential(scale=1.5, high=10),
    "beta": Family.whole("beta", (2.0, 0.7), location=-1, scale=3),
    "gamma": Family.whole("gamma", (2.5,), scale=1.5),
    "half_normal": Family.whole("half_normal", scale=2),
    "laplace": Family(family="laplace", location=1, scale=0.5, low=-3, high=2),
    "log_normal": Family.whole("log_normal", (0.4,), scale=3),
    "volume": VolumeDensity(scale=1350, low=10, high=30_000),
    "power_law": BrokenPowerLaw(low=0.02, high=50),
    "mixture": Mixture(laws=(Uniform(low=6, high=10.1), LogOfUniform(low=6, high=10.1)), weights=(0.3, 0.7)),
    "tabulated": Tabulated.from_draws(np.random.default_rng(1).gamma(3, 1, 20_000), (0.0, 40.0)),
}


@pytest.mark.parametrize("name", LAWS)
class TestEveryLaw:
    def test_density_integrates_to_the_mass_of_an_interval(self, name):
        law = LAWS[name]
        low, high = law.bounds
        a, b = np.array(low) + 0.21 * (high - low), np.array(low) + 0.22 * (high - low)
        x = np.linspace(a, b, 20_001)
        assert np.trapezoid(np.exp(law.log_density(x)), x) == pytest.approx(float(law.mass(a, b)), rel=2e-3)

    def test_quantile_inverts_mass_in_both_tails(self, name):
        law = LAWS[name]
        low, high = law.bounds
        total = float(law.mass(low, high))
        for p in (1e-7, 1e-3, 0.3, 0.5, 0.9, 1 - 1e-3, 1 - 1e-7):
            x = law.quantile(low, high, np.array(p * total), np.array((1 - p) * total))
            below, above = law.mass(low, x) / total, law.mass(x, high) / total
            assert min(below, above) == pytest.approx(min(p, 1 - p), rel=1e-4)

    def test_round_trip_through_normal_scores(self, name, rng):
        prior = Prior({"x": LAWS[name]})
        z = np.clip(rng.standard_normal((5000, 1)) * 1.5, -5, 5)
        theta = prior.from_normal(z)
        assert np.abs(prior.to_normal(theta) - z).max() < 1e-4
        low, high = prior.bounds("x")
        assert theta["x"].min() >= low and theta["x"].max() <= high

    def test_json_round_trip(self, name):
        prior = Prior({"x": LAWS[name]})
        again = Prior.from_dict(json.loads(json.dumps(prior.to_dict())))
        x = prior.sample(100, np.random.default_rng(0))
        assert np.array_equal(again.log_prob(x), prior.log_prob(x))


@pytest.fixture()
def star_like() -> Prior:
    axes = (np.array([6.0, 8.0, 10.0]), np.array([-2.0, 0.5]))
    high = np.log(np.array([[50.0, 50.0], [5.0, 6.0], [0.9, 1.1]]))
    limits = Limits(("log_age", "feh"), axes, np.full((3, 2), np.log(0.1)), high, log=True)
    laws = {
        "log_age": Uniform(low=6, high=10), "feh": Normal(mean=-0.2, sd=0.5, low=-2, high=0.5),
        "mass": BrokenPowerLaw(low=0.02, high=50),
    }
    return Prior(laws, {"mass": limits})


def test_scores_of_prior_draws_are_standard_normal(star_like, rng):
    """A direct simulation of the truncated joint law must look standard normal through the map."""
    n = 400_000
    log_age, feh = rng.uniform(6, 10, n), np.clip(rng.normal(-0.2, 0.5, n), -2, 0.5)
    u = rng.random(n)
    edges = np.array([0.1, 0.5, 50.0])
    c = np.array([edges[0] ** -0.3 - edges[1] ** -0.3, 0.0]) / 0.3
    c[1] = 0.5 ** (2.3 - 1.3) * (edges[1] ** -1.3 - edges[2] ** -1.3) / 1.3
    first = u < c[0] / c.sum()
    v = rng.random(n)
    mass = np.where(
        first,
        (0.1**-0.3 - v * (0.1**-0.3 - 0.5**-0.3)) ** (-1 / 0.3),
        (0.5**-1.3 - v * (0.5**-1.3 - 50**-1.3)) ** (-1 / 1.3),
    )
    low, high = star_like.limits["mass"]({"log_age": log_age, "feh": feh})
    alive = (mass > low) & (mass < high) & (feh > -2) & (feh < 0.5)
    theta = {"log_age": log_age[alive], "feh": feh[alive], "mass": mass[alive]}
    z = star_like.to_normal(theta)
    assert kstest(z[:20_000, 2], "norm").pvalue > 1e-3
    z[:, 2][theta["log_age"] < 9] = np.nan
    assert kstest(z[:, 2][np.isfinite(z[:, 2])][:20_000], "norm").pvalue > 1e-3


def test_no_draw_leaves_conditional_limits(star_like, rng):
    theta = star_like.from_normal(rng.standard_normal((200_000, 3)) * 4)
    low, high = star_like.limits["mass"](theta)
    assert (theta["mass"] >= low).all() and (theta["mass"] <= high).all()
    assert np.isfinite(star_like.log_prob(theta)).all()


def test_jacobian_matches_finite_differences(star_like, rng):
    z = rng.standard_normal((500, 3))
    theta, h, total = star_like.from_normal(z), 1e-5, 0.0
    for i, name in enumerate(star_like.names):
        step = np.zeros(3)
        step[i] = h
        slope = (star_like.from_normal(z + step)[name] - star_like.from_normal(z - step)[name]) / (2 * h)
        total = total - np.log(slope)
    assert np.abs(total - star_like.log_jacobian(theta, z)).max() < 1e-5


def test_outside_the_support_is_nan_and_minus_infinity(star_like):
    theta = {"log_age": np.array([10.0]), "feh": np.array([0.0]), "mass": np.array([20.0])}
    assert np.isnan(star_like.to_normal(theta)[0, 2])
    assert star_like.log_prob(theta)[0] == -np.inf


def test_limits_must_come_after_what_they_depend_on(star_like):
    with pytest.raises(SbiDaError, match="must come first"):
        Prior({"mass": LAWS["power_law"], "log_age": LAWS["uniform"]}, {"mass": star_like.limits["mass"]})


@pytest.fixture()
def dusty() -> Prior:
    return Prior({"distance": LAWS["volume"], "av": DustLayer(high=10)})


def test_dust_grows_with_distance_as_sightlines_through_a_layer_do(rng):
    layer = DustLayer(high=50, density=2.0, half_thickness=100)
    sine = rng.random(200_000)
    for d in (30.0, 100.0, 700.0, 5000.0):
        mean_path = np.mean(np.minimum(d, 100.0 / sine))
        assert float(layer.at({"distance": np.array(d)}).scale) == pytest.approx(2e-3 * mean_path, rel=0.02)


def test_a_law_that_depends_on_an_earlier_parameter(dusty, rng):
    z = np.clip(rng.standard_normal((20_000, 2)) * 1.5, -5, 5)
    theta = dusty.from_normal(z)
    assert np.abs(dusty.to_normal(theta) - z).max() < 1e-4
    scale = dusty.laws["av"].at(theta).scale
    drawn = dusty.sample(50_000, rng)
    near = drawn["distance"] < 1000
    assert drawn["av"][near].mean() < 0.8 * drawn["av"][~near].mean()
    expected = -np.log(scale) - theta["av"] / scale - np.log(-np.expm1(-10 / scale))
    only = dusty.log_prob(theta) - Prior({"distance": LAWS["volume"]}).log_prob(theta)
    assert np.abs(only - expected).max() < 1e-8
    again = Prior.from_dict(json.loads(json.dumps(dusty.to_dict())))
    assert np.array_equal(again.log_prob(theta), dusty.log_prob(theta))
    plain = dusty.replaced({"av": Exponential(scale=0.5, high=10)})
    assert np.abs(plain.log_density_ratio("av", theta, plain.to_normal(theta)[:, 1])).max() < 50


def test_laws_in_a_row_give_every_multivariate_normal(rng):
    root = np.array([[1.5, 0.0, 0.0, 0.0], [1.0, 0.2, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0], [-0.7, 2.0, 0.5, 0.4]])
    mean, covariance = np.array([100.0, -3.0, 0.0, 2.0]), root @ root.T
    names = list("abcd")
    laws = multivariate_normal(names, mean, covariance)
    assert isinstance(laws["a"], Normal) and isinstance(laws["c"], Normal)  # they depend on nothing before them
    prior = Prior(laws)
    z = np.clip(rng.standard_normal((4000, 4)) * 2, -6, 6)  # laws are cut at 8
    theta = mean + z @ root.T
    columns = dict(zip(names, theta.T, strict=True))
    assert np.abs(prior.to_normal(columns) - z).max() < 1e-5
    assert np.allclose(np.stack(list(prior.from_normal(z).values()), -1), theta, atol=1e-5)
    assert np.allclose(prior.log_prob(columns), multivariate(mean, covariance).logpdf(theta), atol=1e-8)
    again = Prior.from_dict(json.loads(json.dumps(prior.to_dict())))
    assert np.array_equal(again.log_prob(columns), prior.log_prob(columns))


def test_a_mean_that_follows_earlier_parameters_needs_them_first():
    law = LinearNormal(coefficients={"a": 2.0}, intercept=1.0, sd=0.1, low=-50, high=50)
    with pytest.raises(SbiDaError, match="must come before"):
        Prior({"b": law, "a": LAWS["uniform"]})
    drawn = Prior({"a": LAWS["uniform"], "b": law}).sample(1000, np.random.default_rng(0))
    assert np.std(drawn["b"] - 2 * drawn["a"] - 1) == pytest.approx(0.1, rel=0.1)


def test_a_mixture_holds_its_components_in_the_given_shares(rng):
    field, cluster = LogOfUniform(low=6, high=10.1), Normal(mean=7, sd=0.01, low=6, high=10.1)
    prior = Prior({"log_age": Mixture(laws=(field, cluster), weights=(0.75, 0.25))})
    drawn = prior.sample(40_000, rng)["log_age"]
    assert (np.abs(drawn - 7) < 0.05).mean() == pytest.approx(0.25, abs=0.01)
    rest = drawn[np.abs(drawn - 7) > 0.05]
    assert kstest((10**rest - 10**6) / (10**10.1 - 10**6), "uniform").pvalue > 0.01


def test_reweighting_a_mixture_to_a_component_is_bounded_by_its_share():
    field, flat = LogOfUniform(low=6, high=10.1), Uniform(low=6, high=10.1)
    both = Prior({"x": Mixture(laws=(field, flat), weights=(0.5, 0.5))})
    x = {"x": np.linspace(6.001, 10.099, 500)}
    for law in (field, flat):
        ratio = np.exp(Prior({"x": law}).log_prob(x) - both.log_prob(x))
        assert ratio.max() <= 2 + 1e-9


def test_what_a_law_depends_on_must_come_before_it():
    with pytest.raises(SbiDaError, match="must come before"):
        Prior({"av": DustLayer(high=10), "distance": LAWS["volume"]})


@pytest.mark.parametrize(
    ("content", "message"),
    [({"kind": "norml", "low": 0, "high": 1}, "norml"), ({"kind": "uniform", "low": 1, "high": 0}, "larger"),
     ({"kind": "normal", "mean": 0, "sd": -1, "low": 0, "high": 1}, "sd"), ({"kind": "uniform", "lo": 0}, "low|lo"),
     ({"kind": "linear_normal", "coefficients": {}, "sd": 1, "low": 0, "high": 1}, "coefficients"),
     ({"kind": "family", "family": "gamma", "low": 0, "high": 1}, "shape of gamma must be 1 positive"),
     ({"kind": "family", "family": "beta", "shape": [1, 1], "low": 0, "high": 2}, "between 0 and 1"),
     ({"kind": "mixture", "laws": [{"kind": "uniform", "low": 0, "high": 1}], "weights": [0.5]}, "sum to 1"),
     ({"kind": "mixture", "laws": [{"kind": "uniform", "low": 0, "high": h} for h in (1, 2)], "weights": [0.5, 0.5]}, "same low"),
     ({"kind": "mixture", "laws": [{"kind": "dust_layer", "high": 9}], "weights": [1.0]}, "dust_layer")],
)
def test_bad_laws_name_the_key(content, message):
    with pytest.raises(ConfigError, match=message) as error:
        distribution_from_dict(content, "prior.mass")
    assert "\n" not in str(error.value)
