"""Laws over classes and laws that depend on the class; the inclination of randomly oriented discs."""

import json

import numpy as np
import pytest
from scipy.stats import kstest, norm

from sbi_da.distributions import ByClass, Categorical, Isotropic, Normal, Uniform, distribution_from_dict
from sbi_da.errors import ConfigError, SbiDaError
from sbi_da.prior import Prior

KINDS = Categorical(probabilities=(0.22, 0.06, 0.72), names=("elliptical", "irregular", "spiral"))
BULGE = ByClass(laws=(Uniform(low=0.5, high=1), Uniform(low=0, high=0.1), Normal(mean=0.2, sd=0.2, low=0, high=0.7)))


def prior():
    return Prior({"morphology": KINDS, "bulge_to_total": BULGE})


def test_draws_are_codes_in_the_given_shares(rng):
    code = prior().sample(40_000, rng)["morphology"]
    assert set(code) == {0.0, 1.0, 2.0}
    assert np.bincount(code.astype(int)) / len(code) == pytest.approx(KINDS.probabilities, abs=0.01)


def test_the_score_of_a_code_is_that_of_the_middle_of_its_cell():
    z = Prior({"morphology": KINDS}).to_normal({"morphology": np.arange(3.0)})[:, 0]
    assert z == pytest.approx(norm.ppf([0.11, 0.25, 0.64]), abs=1e-9)


def test_any_score_maps_to_a_code_and_its_score_maps_back(rng):
    law = Prior({"morphology": KINDS})
    z = np.concatenate([[-9.0, 9.0], rng.standard_normal(500)])[:, None]
    code = law.from_normal(z)["morphology"]
    assert code[0] == 0 and code[1] == 2
    assert np.array_equal(law.from_normal(law.to_normal({"morphology": code}))["morphology"], code)


def test_the_density_of_a_code_is_its_probability():
    law = Prior({"morphology": KINDS})
    assert np.exp(law.log_prob({"morphology": np.arange(3.0)})) == pytest.approx(KINDS.probabilities)
    assert law.log_prob({"morphology": np.array([3.0])})[0] == -np.inf
    assert KINDS.mass(*KINDS.bounds) == pytest.approx(1)


def test_each_class_keeps_to_its_own_law(rng):
    theta = prior().sample(30_000, rng)
    for code, law in enumerate(BULGE.laws):
        own = theta["bulge_to_total"][theta["morphology"] == code]
        assert own.min() >= law.bounds[0] and own.max() <= law.bounds[1]
        scores = Prior({"x": law}).to_normal({"x": own})[:, 0]
        assert kstest(scores, "norm").pvalue > 1e-3


def test_scores_come_back_and_densities_are_those_of_the_class(rng):
    theta = prior().sample(2000, rng)
    z = prior().to_normal(theta)
    again = prior().from_normal(z)
    assert np.abs(again["bulge_to_total"] - theta["bulge_to_total"]).max() < 1e-9
    irregular = theta["morphology"] == 1
    log_prob = prior().log_prob(theta)[irregular]
    assert log_prob == pytest.approx(np.log(0.06) + np.log(10.0), abs=1e-9)
    strange = {"morphology": np.array([1.0]), "bulge_to_total": np.array([0.5])}
    assert prior().log_prob(strange)[0] == -np.inf


def test_draws_broadcast_over_objects():
    z = np.random.default_rng(0).standard_normal((7, 5, 2))
    theta = prior().from_normal(z, fixed={"morphology": 1.0})
    assert theta["bulge_to_total"].shape == (7, 5) and theta["bulge_to_total"].max() <= 0.1


def test_a_code_no_class_has_gives_nan():
    z = prior().to_normal({"morphology": np.array([np.nan, 0.0]), "bulge_to_total": np.array([0.6, 0.6])})
    assert np.isnan(z[0]).all() and np.isfinite(z[1]).all()


def test_the_class_must_come_first():
    with pytest.raises(SbiDaError, match="must come before"):
        Prior({"bulge_to_total": BULGE, "morphology": KINDS})


def test_json_round_trip(rng):
    again = Prior.from_dict(json.loads(json.dumps(prior().to_dict())))
    theta = prior().sample(100, rng)
    assert np.array_equal(again.log_prob(theta), prior().log_prob(theta))


def test_randomly_oriented_discs_have_uniform_cosines(rng):
    law = Prior({"i": Isotropic()})
    i = law.sample(20_000, rng)["i"]
    assert kstest(np.cos(np.radians(i)), "uniform").pvalue > 1e-3
    assert law.from_normal(law.to_normal({"i": i}))["i"] == pytest.approx(i, abs=1e-7)
    grid = np.linspace(0, 90, 2001)
    density = np.exp(law.log_prob({"i": grid}))
    assert np.sum(0.5 * (density[1:] + density[:-1])) * (grid[1] - grid[0]) == pytest.approx(1, abs=1e-5)
    assert float(Isotropic(low=0, high=90).mass(0, 60)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("content", "message"),
    [({"kind": "categorical", "probabilities": [0.5, 0.4], "names": ["a", "b"]}, "sum to 1"),
     ({"kind": "categorical", "probabilities": [0.5, 0.5], "names": ["a"]}, "names"),
     ({"kind": "categorical", "probabilities": [0.5, 0.5], "names": ["a", "a"]}, "different"),
     ({"kind": "by_class", "laws": []}, "laws"), ({"kind": "isotropic", "low": 0, "high": 200}, "high")],
)
def test_bad_laws_name_the_key(content, message):
    with pytest.raises(ConfigError, match=message):
        distribution_from_dict(content, "prior.x")
