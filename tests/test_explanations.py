"""Explanations compete by how well they fit."""

import numpy as np
import pytest
from scipy.stats import multivariate_t

from sbi_da.alignment.explanations import TAIL, Hypotheses, compare, masked_inverse


def test_shares_and_densities_are_those_of_student_laws():
    rng = np.random.default_rng(0)
    signal, weight = rng.standard_normal((4, 6, 3)), rng.standard_normal((4, 6))
    inputs, shift, value = rng.standard_normal((4, 2, 2)), rng.standard_normal((4, 2, 3)), rng.standard_normal((4, 3))
    root = rng.standard_normal((4, 3, 3))
    covariance = root @ root.transpose(0, 2, 1) + np.eye(3)
    found = compare(Hypotheses(inputs, signal, weight), value, np.ones((4, 3), bool), shift, covariance)
    for i in range(4):
        each = np.array([
            multivariate_t(signal[i, h] + shift[i, h // 3], covariance[i], TAIL).logpdf(value[i]) for h in range(6)
        ])
        share = np.exp(weight[i] + each - np.logaddexp.reduce(weight[i] + each))
        residual = value[i] - signal[i]
        assert found.residual[i] == pytest.approx(share @ residual)
        assert found.inputs[i] == pytest.approx(share.reshape(2, 3).sum(1) @ inputs[i])
        assert found.spread[i] == pytest.approx(np.cov(residual.T, aweights=share, ddof=0))
    density = [np.logaddexp.reduce(weight[i] - np.logaddexp.reduce(weight[i]) + np.array([
        multivariate_t(signal[i, h] + shift[i, h // 3], covariance[i], TAIL).logpdf(value[i]) for h in range(6)])) for i in range(4)]
    assert np.ptp(found.log_density - density) == pytest.approx(0, abs=1e-9), "up to a constant of the channels seen"


def test_channels_that_were_not_seen_play_no_part():
    rng = np.random.default_rng(1)
    seen = np.array([[True, False, True]])
    value = rng.standard_normal((1, 3))
    hypotheses = Hypotheses(np.zeros((1, 2, 1)), rng.standard_normal((1, 2, 3)), np.zeros((1, 2)))
    one, two = (
        compare(hypotheses, np.where(seen, value, other), seen, np.zeros((1, 2, 3)), np.eye(3)[None]) for other in (0.0, np.nan)
    )
    assert one.log_density == two.log_density and (one.residual == two.residual).all() and one.residual[0, 1] == 0


def test_the_masked_inverse_inverts_what_was_seen():
    covariance = np.array([[[2.0, 1.0, 0.5], [1.0, 3.0, 0.2], [0.5, 0.2, 1.0]]])
    inverse, log_det = masked_inverse(covariance, np.array([[True, False, True]]))
    part = covariance[0][np.ix_([0, 2], [0, 2])]
    assert inverse[0][np.ix_([0, 2], [0, 2])] == pytest.approx(np.linalg.inv(part)) and not inverse[0, 1].any()
    assert log_det[0] == pytest.approx(np.log(np.linalg.det(part)))


def test_one_explanation_is_drawn_in_proportion_to_its_weight():
    hypotheses = Hypotheses(np.arange(2.0).reshape(1, 2, 1).repeat(4000, 0), np.zeros((4000, 2, 1)), np.log([[0.2, 0.8]]).repeat(4000, 0))
    found = compare(
        hypotheses, np.zeros((4000, 1)), np.ones((4000, 1), bool), np.zeros((4000, 2, 1)), np.ones((4000, 1, 1)), np.random.default_rng(0)
    )
    assert set(found.inputs.ravel()) == {0.0, 1.0} and found.inputs.mean() == pytest.approx(0.8, abs=0.03)
    assert not found.spread.any()
