"""Many classifier two-sample tests at once, against the test one pair at a time and against the best classifier there is."""

import numpy as np
import pytest
from scipy.stats import norm

from sbi_da.diagnostics import c2st, c2st_many
from sbi_da.errors import SbiDaError


def test_accuracy_is_that_of_the_best_classifier(rng):
    """Unit Gaussians a distance apart are told apart with probability Phi(distance / 2)."""
    shift = [0.0, 0.5, 2.0, 6.0]
    x = [rng.normal(size=(3000, 2)) for _ in shift]
    y = [rng.normal(size=(3000, 2)) + [s, 0] for s in shift]
    value, error = c2st_many(x, y)
    assert value == pytest.approx(norm.cdf(np.array(shift) / 2), abs=0.025)
    assert (error[:3] > 0.002).all() and (error < 0.03).all()
    assert (c2st_many(x, y)[0] == value).all() and (c2st_many(x, y, seed=1)[0] != value).any()


def test_agrees_with_one_pair_at_a_time(rng):
    ring = rng.normal(size=(2000, 2))
    hollow = ring * (1 + 0.3 / np.linalg.norm(ring, axis=1, keepdims=True))
    scaled = rng.normal(size=(2000, 2)) * [100.0, 1e-3] + [5.0, 1.0]
    x, y = [ring, scaled], [hollow, 1.4 * scaled]
    assert c2st_many(x, y)[0] == pytest.approx([c2st(a, b)[0] for a, b in zip(x, y, strict=True)], abs=0.02)


def test_a_constant_parameter_and_unequal_numbers(rng):
    x = [np.column_stack([rng.normal(size=n), np.ones(n)]) for n in (800, 500)]
    y = [np.column_stack([rng.normal(size=n), np.ones(n)]) for n in (600, 900)]
    assert c2st_many(x, y)[0] == pytest.approx([0.5, 0.5], abs=0.07)


def test_bad_samples(rng):
    good, bad = rng.normal(size=(100, 2)), rng.normal(size=(100, 2))
    bad[3, 1] = np.nan
    with pytest.raises(SbiDaError, match="same parameters"):
        c2st_many([good], [good[:, :1]])
    with pytest.raises(SbiDaError, match="not finite"):
        c2st_many([good], [bad])
    with pytest.raises(SbiDaError, match="3 draws cannot be split"):
        c2st_many([good], [good[:3]])


def test_networks_are_not_judged_on_what_they_were_trained_on(rng):
    """Few draws of many parameters can be learned by heart."""
    x, y = rng.normal(size=(2, 8, 100, 8))
    assert c2st_many(list(x), list(y))[0].mean() == pytest.approx(0.5, abs=0.06)
