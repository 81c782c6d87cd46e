"""Where an uncertainty is too small, and where too large, is found from objects that were held out."""

import numpy as np
import pytest
from scipy.stats import norm

from sbi_da.alignment.inflation import FACTORS, Inflation


def held_out(n, variance, seed=0):
    """Objects at x whose residuals have a variance of their own; the fit took it as one."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-2, 2, (n, 2))
    residual = np.sqrt(variance(x)) * rng.standard_normal(n)
    return Inflation(x, np.array([0.5, 5.0]), norm.logpdf(residual[:, None], 0, np.sqrt(FACTORS)))


def test_the_factor_is_found_place_by_place():
    found = held_out(600, lambda x: np.where(x[:, 0] > 0, 16.0, 0.25))
    low, high = found(np.array([[-1.5, 0.0], [1.5, 0.0]]))
    assert low == pytest.approx(0.25, rel=0.5) and high == pytest.approx(16.0, rel=0.5)


def test_far_from_every_object_the_prior_decides():
    far, empty = held_out(50, lambda x: np.full(len(x), 16.0))(np.array([[40.0, 0.0]])), held_out(0, lambda x: np.ones(0))
    assert far == pytest.approx(empty(np.array([[0.0, 0.0]]))) and 1.0 < far[0] < 2.0
