"""Weights of importance sampling, those of measurements that nothing explains among them, and draws by weight."""

import numpy as np
import pytest

from sbi_da.importance import effective, normalised, tempered
from sbi_da.posteriors.noise import resample


@pytest.mark.parametrize("spread", [1e-2, 3.0, 1e3, 1e9, 1e18, 1e300])
def test_tempered_to_an_effective_size(rng, spread):
    log_weight = -spread * rng.chisquare(3, 200)
    assert effective(tempered(log_weight, 40)) == pytest.approx(max(40, effective(normalised(log_weight))), rel=1e-3)
    log_weight[:100] = -np.inf
    assert effective(tempered(log_weight, 40)) >= 39.9 and (tempered(log_weight, 40)[:100] == 0).all()


def test_the_first_few_draws_by_weight_are_a_sample(rng):
    """Their mean has the variance of a mean of as many independent draws."""
    x, few = rng.standard_normal((400, 1000)), 20
    log_weight = -0.5 * x**2 + 2 * x  # of a normal law about 1, of variance 1/2
    chosen, ess = resample(log_weight, 1000, np.arange(400), 0)
    assert (ess < 900).all() and (ess > 100).all()
    mean = np.take_along_axis(x, chosen, axis=1)[:, :few].mean(1)
    assert abs(mean.mean() - 1) < 4 * np.sqrt(0.5 / few / 400)
    assert 0.8 < mean.var() / (0.5 / few) < 1.4


def test_draws_by_weight_depend_on_identifier_and_seed(rng):
    log_weight = rng.standard_normal((3, 50))
    chosen, _ = resample(log_weight, 30, np.array([7, 8, 9]), 1)
    assert (resample(log_weight[1:2], 30, np.array([8]), 1)[0][0] == chosen[1]).all()
    assert (resample(log_weight[1:2], 30, np.array([8]), 2)[0][0] != chosen[1]).any()
    assert resample(log_weight[:0], 30, np.array([], int), 1)[0].shape == (0, 30)
