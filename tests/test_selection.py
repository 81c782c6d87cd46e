"""Label-free selection on toys whose risk on real objects is known."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import norm

from sbi_da.alignment.selection import (
    CRITERIA,
    Candidate,
    deep_embedded_validation,
    domain_weights,
    importance_weighted_validation,
    information,
    mean_entropy,
    select,
    soft_neighbourhood_density,
)
from sbi_da.errors import SbiDaError, UnknownNameError

SHIFT = 1.0


def toy(n, seed):
    """Covariate shift: x ~ N(0, 1) simulated, N(SHIFT, 1) real; y = 1 with probability expit(2 x - 1)."""
    rng = np.random.default_rng(seed)
    simulated, real = rng.standard_normal((n, 2)), rng.standard_normal((n, 2))
    real[:, 0] += SHIFT
    labels, truth = (rng.random(n) < expit(2 * x[:, 0] - 1) for x in (simulated, real))
    return simulated, real, labels.astype(int), truth.astype(int)


def log_loss(x, labels, slope, offset):
    p = expit(slope * x[:, 0] + offset)
    return -np.log(np.where(labels == 1, p, 1 - p))


def exact_weights(x):
    return norm.pdf(x[:, 0], SHIFT) / norm.pdf(x[:, 0])


def test_domain_weights_are_density_ratios():
    simulated, real, _, _ = toy(4000, 0)
    weights = domain_weights(simulated, real)
    centre = np.abs(simulated[:, 0]) < 2
    assert np.log(weights[centre]) == pytest.approx(np.log(exact_weights(simulated[centre])), abs=0.2)
    assert weights.mean() == pytest.approx(1.0, abs=0.1)
    few = domain_weights(simulated, real[:1000])
    assert few.mean() == pytest.approx(1.0, abs=0.1), "sizes of the samples are of no account"
    assert domain_weights(simulated, simulated) == pytest.approx(np.ones(4000), abs=0.2)


@pytest.mark.parametrize("estimate", [importance_weighted_validation, deep_embedded_validation])
def test_weighted_risks_find_the_risk_on_real_objects(estimate):
    """A classifier that is good where the simulations are and bad where reality is."""
    errors = []
    for seed in range(10):
        simulated, real, labels, truth = toy(2000, seed)
        target = log_loss(real, truth, 0.3, -0.5).mean()
        source = log_loss(simulated, labels, 0.3, -0.5)
        found = estimate(source, domain_weights(simulated, real))
        assert abs(found.value - target) < 0.5 * abs(source.mean() - target)
        errors.append((found.value - target) / np.hypot(found.error, 0.5 / 2000**0.5))
    assert np.abs(np.mean(errors)) < 1.2 and np.std(errors) < 2.0


def test_the_control_variate_lowers_the_variance_and_nothing_else():
    values = {importance_weighted_validation: [], deep_embedded_validation: []}
    for seed in range(200):
        simulated, _, labels, _ = toy(300, seed)
        for estimate, found in values.items():
            risk = estimate(log_loss(simulated, labels, 0.3, -0.5), exact_weights(simulated))
            found.append((risk.value, risk.error))
    iwv, dev = (np.array(v) for v in values.values())
    assert dev[:, 0].mean() == pytest.approx(iwv[:, 0].mean(), abs=0.03)
    assert dev[:, 0].std() < 0.6 * iwv[:, 0].std()
    for found in (iwv, dev):
        assert found[:, 1].mean() == pytest.approx(found[:, 0].std(), rel=0.2)


def test_weighted_risks_by_hand():
    losses, weights = np.array([1.0, 2.0, 3.0]), np.array([0.5, 1.0, 2.1])
    iwv = importance_weighted_validation(losses, weights)
    assert iwv.value == pytest.approx(8.8 / 3) and iwv.effective == pytest.approx(3.6**2 / (0.25 + 1 + 4.41))
    product = losses * weights
    eta = -np.cov(product, weights)[0, 1] / np.var(weights, ddof=1)
    assert deep_embedded_validation(losses, weights).value == pytest.approx(8.8 / 3 + eta * (1.2 - 1))
    alike = deep_embedded_validation(losses, np.ones(3))
    assert alike.value == pytest.approx(2.0) and alike.effective == pytest.approx(3)
    assert alike.error == pytest.approx(1 / 3**0.5)


def test_criteria_of_outputs_by_hand():
    sure, even, collapsed = np.eye(3)[[0, 1, 2, 0, 1, 2]], np.full((6, 3), 1 / 3), np.eye(3)[[0] * 6]
    assert [mean_entropy(p) for p in (sure, even, collapsed)] == pytest.approx([0, np.log(3), 0])
    assert [information(p) for p in (sure, even, collapsed)] == pytest.approx([np.log(3), 0, 0], abs=1e-12)
    # Each sure output has one twin: all of the similarity. Equal ones are similar to all five others.
    assert [soft_neighbourhood_density(p) for p in (sure, even, collapsed)] == pytest.approx([0, np.log(5), np.log(5)], abs=1e-6)
    p = np.random.default_rng(0).dirichlet([1, 1, 1], 7)
    unit = p / np.linalg.norm(p, axis=1, keepdims=True)
    total = 0.0
    for i in range(7):
        q = np.exp(np.delete(unit @ unit[i], i) / 0.3)
        q /= q.sum()
        total -= (q * np.log(q)).sum() / 7
    assert soft_neighbourhood_density(p, 0.3) == pytest.approx(total)
    many = np.random.default_rng(0).dirichlet([1, 1, 1], 1500)  # more than one block of rows
    assert soft_neighbourhood_density(many) == pytest.approx(soft_neighbourhood_density(many[::-1]))


def candidate(slope, offset, seed=0, n=1500):
    simulated, real, labels, truth = toy(n, seed)
    p = expit(slope * real[:, 0] + offset)
    held = Candidate(log_loss(simulated, labels, slope, offset), simulated, real, np.stack([1 - p, p], axis=1))
    return held, log_loss(real, truth, slope, offset).mean()


def test_selection_prefers_what_is_right_on_real_objects():
    made = {"right": candidate(2.0, -1.0), "flat": candidate(0.3, -0.5), "reversed": candidate(-1.0, 0.0), "collapsed": candidate(0.0, 4.0)}
    candidates = {k: c for k, (c, _) in made.items()}
    risk = {k: r for k, (_, r) in made.items()}
    found = select(candidates)
    assert found.chosen == "right" == min(risk, key=risk.get) and set(found.order) == set(made)
    assert set(found.scores["right"]) == {*CRITERIA, "effective"}
    assert select(candidates, ("entropy",)).chosen == "collapsed", "what sureness alone would choose"
    assert select(candidates, ("dev",)).order[:2] == tuple(sorted(risk, key=risk.get)[:2])
    assert select(candidates) == found


def test_risks_without_overlap_do_not_decide_and_ties_are_ties():
    held, _ = candidate(2.0, -1.0)
    apart = Candidate(0.1 * held.losses, held.simulated, held.real + 60.0, held.probabilities)
    found = select({"apart": apart, "here": held}, ("dev",))
    assert found.scores["apart"]["effective"] < 20 and found.chosen == "here"
    twins = select({"one": held, "other": held})
    assert twins.ranks == {"one": 0.5, "other": 0.5} and twins.chosen == "one"


def test_selection_refuses_what_it_cannot_use():
    held, _ = candidate(2.0, -1.0, n=50)
    with pytest.raises(UnknownNameError, match="accuracy"):
        select({"a": held}, ("accuracy",))
    with pytest.raises(SbiDaError, match="nothing to select"):
        select({})
    with pytest.raises(SbiDaError, match="one width"):
        domain_weights(np.zeros((9, 2)), np.zeros((9, 3)))
    with pytest.raises(SbiDaError, match="finite"):
        domain_weights(np.full((9, 2), np.nan), np.zeros((9, 2)))
    with pytest.raises(SbiDaError, match="losses and weights"):
        deep_embedded_validation(np.zeros(3), np.array([1.0, -1.0, 1.0]))
    with pytest.raises(SbiDaError, match="probabilities"):
        mean_entropy(np.zeros((0, 3)))
    with pytest.raises(SbiDaError, match="two objects"):
        soft_neighbourhood_density(np.ones((1, 3)) / 3)
