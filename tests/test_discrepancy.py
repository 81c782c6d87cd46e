"""The simulator's discrepancy: known shifts are found, absent ones are not invented, and what is not known is said."""

from dataclasses import replace

import numpy as np
import pytest

from sbi_da.alignment.discrepancy import fit_discrepancy
from sbi_da.alignment.explanations import Hypotheses
from sbi_da.corrected import CorrectedSimulator, Explained, Inputs, correct
from sbi_da.layout import Layout, Observations
from sbi_da.records import OBSERVED
from sbi_da.simulation import simulate
from sbi_da.simulators import get_simulator

CHANNELS = 3


def problem(n, shift, noise=0.1, scatter=0.0, seed=0, draws=1):
    """Objects with inputs x, signals 0 and values shift(x) + noise; further draws are wrong explanations."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((n, 2))
    value = shift(x) + np.hypot(noise, scatter) * rng.standard_normal((n, CHANNELS))
    inputs = np.repeat(x[:, None], draws, 1)
    signal = np.zeros((n, draws, CHANNELS))
    signal[:, 1:] = 3.0
    hypotheses = Hypotheses(inputs, signal, np.zeros((n, draws)))
    return x, value, hypotheses


def learn(value, hypotheses, noise=0.1, seen=None, **options):
    seen = np.ones(value.shape, bool) if seen is None else seen
    return fit_discrepancy(hypotheses, value, np.full(value.shape, noise), seen, **{"rounds": 6, "folds": 0, **options})


def linear(x):
    return np.stack([0.5 + 0.3 * x[:, 0], -0.2 * x[:, 1], np.zeros(len(x))], 1)


def test_a_linear_shift_is_found_to_the_precision_of_the_data():
    x, value, hypotheses = problem(200, linear)
    found = learn(value, hypotheses)
    new = np.random.default_rng(1).standard_normal((500, 2))
    assert np.sqrt(np.mean((found.expected(new) - linear(new)) ** 2)) < 0.035


def test_more_objects_say_more():
    spread = []
    for n in (20, 200):
        _, value, hypotheses = problem(n, linear)
        found = learn(value, hypotheses)
        new = np.zeros((4000, 2))
        spread.append((found.sample(new, np.random.default_rng(0)) - found.expected(new)).std(0).mean())
    assert spread[1] < spread[0]


def test_no_shift_is_not_invented():
    _, value, hypotheses = problem(200, lambda x: np.zeros((len(x), CHANNELS)))
    found = learn(value, hypotheses)
    assert np.abs(found.expected(np.random.default_rng(1).standard_normal((500, 2)))).max() < 0.06


def test_the_interval_of_the_shift_holds_the_truth():
    inside = []
    for seed in range(8):
        _, value, hypotheses = problem(40, linear, seed=seed)
        found = replace(learn(value, hypotheses), scatter=np.zeros((CHANNELS, 1)))
        at = np.array([[0.5, -0.5]])
        draws = found.sample(np.repeat(at, 400, 0), np.random.default_rng(seed))
        low, high = np.percentile(draws, [5, 95], axis=0)
        inside.append((low <= linear(at)[0]) & (linear(at)[0] <= high))
    assert 0.7 <= np.mean(inside)
    assert (high - low).mean() < 0.5, "and is of use"


def test_a_scatter_the_simulator_lacks_is_learned():
    _, value, hypotheses = problem(300, linear, scatter=0.3)
    found = learn(value, hypotheses)
    x = np.zeros((20_000, 2))
    drawn = found.sample(x, np.random.default_rng(0)) - found.expected(x)
    assert 1.48 * np.median(np.abs(drawn), 0) == pytest.approx(np.full(CHANNELS, 0.3), rel=0.2)


def test_wrong_explanations_lose():
    _, value, hypotheses = problem(200, linear, draws=5)
    found = learn(value, hypotheses)
    new = np.random.default_rng(1).standard_normal((500, 2))
    assert np.sqrt(np.mean((found.expected(new) - linear(new)) ** 2)) < 0.05


def test_unseen_values_are_never_read():
    _, value, hypotheses = problem(60, linear)
    seen = np.random.default_rng(3).random(value.shape) < 0.7
    wild = np.where(seen, value, np.nan)
    one, two = (learn(v, hypotheses, seen=seen) for v in (value, wild))
    x = np.random.default_rng(0).standard_normal((5, 2))
    assert np.array_equal(one.expected(x), two.expected(x)) and np.isfinite(one.expected(x)).all()


def test_wild_objects_have_little_pull():
    _, value, hypotheses = problem(100, linear)
    value[:3] += 30.0
    found = learn(value, hypotheses)
    new = np.random.default_rng(1).standard_normal((500, 2))
    assert np.sqrt(np.mean((found.expected(new) - linear(new)) ** 2)) < 0.1


def test_a_corrected_simulator_sends_the_shifted_signal():
    simulator = get_simulator("linear_gaussian")
    layout = Layout(simulator.surveys())
    records = simulate(simulator, layout.surveys, 300, 0)
    plain = layout.read(records)
    shifted = Observations(plain.value + 0.7, plain.error, plain.state)
    theta = {k: records.parameters[k][:, None] for k in simulator.prior.names}
    corrected = correct(simulator, layout, Explained.of(simulator, layout, shifted, theta, nuisances=1), folds=0)
    assert isinstance(corrected, CorrectedSimulator) and corrected.prior.to_dict() == simulator.prior.to_dict()
    at = {k: np.zeros(3000) for k in simulator.prior.names}
    rng = np.random.default_rng(0)
    channel = layout.channels[0]
    difference = corrected.at(at, rng).signal(channel) - simulator.at(at, rng).signal(channel)
    assert difference.mean() == pytest.approx(0.7, abs=0.12)
    assert (layout.read(simulate(corrected, layout.surveys, 50, 1)).state == OBSERVED).all()


def test_a_hidden_part_is_as_large_as_what_is_seen():
    _, value, hypotheses = problem(60, lambda x: np.full((len(x), CHANNELS), [1.0, 0.0, 0.0]))
    found = learn(value, hypotheses)
    wide = found.with_hidden(2.0)
    scatter, own = wide.scatter @ wide.scatter.T, found.scatter @ found.scatter.T
    assert np.sqrt(scatter[0, 0]) == pytest.approx(2.0, rel=0.1), "twice the shift"
    assert scatter[1, 1] < 0.1 and np.allclose(scatter[0, 1], 4 * own[0, 1])
    x = np.zeros((1, hypotheses.inputs.shape[2]))
    assert np.array_equal(wide.expected(x), found.expected(x))


def test_inputs_are_normal_ranks_within_the_prior():
    simulator = get_simulator("linear_gaussian")
    inputs = Inputs(simulator)
    reference = inputs(simulator.prior.sample(20_000, np.random.default_rng(5)))
    assert reference.mean(0) == pytest.approx(np.zeros(3), abs=0.05)
    assert reference.std(0) == pytest.approx(np.ones(3), abs=0.05)
    assert np.isfinite(inputs({f"theta_{k}": np.array([1e9, -1e9]) for k in (1, 2, 3)})).all()
