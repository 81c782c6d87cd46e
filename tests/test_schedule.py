"""Schedules at known points, learned weights at their analytic optimum."""

import math

import pytest
import torch

from sbi_da.alignment.schedule import BOUNDS, Fixed, LearnedWeights, Linear, Ramp, Scheduler
from sbi_da.errors import SbiDaError

POINTS = [-1.0, 0.0, 0.2, 0.35, 0.5, 0.75, 1.0, 2.0]


@pytest.mark.parametrize(("schedule", "expected"), [
    (Fixed(0.3), [0.3] * 8),
    (Linear(2.0), [0.0, 0.0, 0.4, 0.7, 1.0, 1.5, 2.0, 2.0]),
    (Ramp(4.0, warmup=0.2, full=0.8), [0.0, 0.0, 0.0, 1.0, 2.0, 4 * 0.55 / 0.6, 4.0, 4.0]),
    (Ramp(4.0, 0.2, 0.8, "cosine"), [0.0, 0.0, 0.0, 2 - 2**0.5, 2.0, 2 - 2 * math.cos(math.pi * 0.55 / 0.6), 4.0, 4.0]),
    (Ramp(1.0, warmup=0.5, full=0.5), [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]),
])
def test_weights_at_known_points(schedule, expected):
    assert [schedule.at(p) for p in POINTS] == pytest.approx(expected)
    assert schedule.at(schedule.settled) == schedule.at(1.0)
    assert schedule.settled == 0 or schedule.at(schedule.settled - 0.01) < schedule.at(1.0)


def total(weights, losses):
    values = {k: torch.tensor(v) for k, v in losses.items()}
    return weights(values, dict.fromkeys(losses, 1.0))


def test_learned_total_is_the_formula_at_the_start():
    weights = LearnedWeights("task", ["align"])
    assert total(weights, {"task": 0.7, "align": 3.0}).item() == pytest.approx(0.7 / 0.02 + 3 / 2 + math.log(0.1), rel=1e-5)
    assert weights.weights() == pytest.approx({"task": 50.0, "align": 0.5})


def settle(losses, gates=None, steps=800):
    weights = LearnedWeights(next(iter(losses)), list(losses)[1:])
    optimiser = torch.optim.Adam(weights.parameters(), lr=0.02, betas=(0.5, 0.9))
    decay = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.01, steps)
    for _ in range(steps):
        optimiser.zero_grad()
        weights({k: torch.tensor(v) for k, v in losses.items()}, gates or dict.fromkeys(losses, 1.0)).backward()
        optimiser.step()
        decay.step()
    return weights


def test_eta_squared_settles_at_the_loss():
    weights = settle({"task": 0.5, "a": 2.0, "b": 0.04}, {"task": 1.0, "a": 0.3, "b": 2.0})
    assert torch.exp(2 * weights.log_eta).tolist() == pytest.approx([0.5, 2.0, 0.04], rel=1e-3)
    assert weights.weights() == pytest.approx({"task": 1.0, "a": 0.25, "b": 12.5}, rel=1e-3)


def test_losses_without_an_optimum_end_at_the_bounds_and_come_back():
    weights = settle({"task": -1.0, "a": 1e4})
    low, high = BOUNDS
    assert weights.weights() == pytest.approx({"task": 0.5 / low**2, "a": 0.5 / high**2}, rel=1e-4)
    eta = weights.log_eta.detach().exp()  # within the bounds but for the last step
    assert eta.tolist() == pytest.approx([low, high], rel=0.03)
    optimiser = torch.optim.SGD(weights.parameters(), lr=0.05)
    for _ in range(200):
        optimiser.zero_grad()
        total(weights, {"task": 1.0, "a": 0.2}).backward()
        optimiser.step()
    assert weights.weights()["task"] < 50 and weights.weights()["a"] > 0.05


def test_two_passes_before_one_backward_are_allowed():
    weights = LearnedWeights("task", ["a"])
    (total(weights, {"task": 1.0, "a": 1.0}) + total(weights, {"task": 2.0, "a": 1.0})).backward()
    assert weights.log_eta.grad.isfinite().all()


def test_scheduler_adds_what_counts_and_ignores_the_rest():
    scheduler = Scheduler({"nll": Fixed(1.0), "ot": Ramp(0.5, 0.2, 0.6), "pair": Linear(2.0)})
    assert scheduler.settled == 1.0 and Scheduler({"nll": Fixed(1.0), "ot": Ramp(0.5, 0.2, 0.6)}).settled == 0.6
    assert scheduler.active(0.0) == ("nll",) and scheduler.active(0.3) == ("nll", "ot", "pair")
    nan = torch.tensor(float("nan"))
    assert scheduler({"nll": torch.tensor(3.0), "ot": nan}, 0.0).item() == 3
    losses = {"nll": torch.tensor(3.0), "ot": torch.tensor(2.0), "pair": torch.tensor(5.0)}
    assert scheduler(losses, 0.4).item() == pytest.approx(3 + 0.25 * 2 + 0.8 * 5)


def test_scheduler_gates_learned_weights():
    scheduler = Scheduler({"nll": Fixed(1.0), "ot": Ramp(0.5, 0.2, 0.6), "pair": Fixed(3.0)}, LearnedWeights("nll", ["ot"]))
    losses = {"nll": torch.tensor(1.0), "ot": torch.tensor(2.0), "pair": torch.tensor(5.0)}
    assert scheduler(losses, 0.1).item() == pytest.approx(50 + math.log(0.1) + 15)
    assert scheduler(losses, 0.9).item() == pytest.approx(50 + math.log(0.1) + 15 + 0.5 * (1 + 0))
    losses["ot"] = torch.tensor(float("nan"))
    scheduler(losses, 0.1).backward()
    assert scheduler.learned.log_eta.grad[0] != 0 and scheduler.learned.log_eta.grad[1] == 0
    assert dict(scheduler.named_parameters()).keys() == {"learned.log_eta"} and scheduler.settled == 1.0


def test_gradients_of_the_total_carry_the_weights():
    loss = torch.tensor(2.0, requires_grad=True)
    Scheduler({"a": Fixed(0.3)})({"a": loss}, 0.5).backward()
    assert loss.grad.item() == pytest.approx(0.3)


def test_nonsense_is_refused():
    for build in (
        lambda: Fixed(-1.0), lambda: Linear(math.inf), lambda: Ramp(1.0, 0.5, 0.2), lambda: Ramp(1.0, 0.5, 1.2),
        lambda: Ramp(1.0, shape="square"), lambda: LearnedWeights("a", ["a"]), lambda: Scheduler({}),
        lambda: Scheduler({"a": Fixed(1.0)}, LearnedWeights("a", ["b"])),
    ):
        with pytest.raises(SbiDaError):
            build()
    scheduler = Scheduler({"nll": Fixed(1.0), "ot": Linear(1.0)})
    one = torch.tensor(1.0)
    with pytest.raises(SbiDaError, match="cannot weigh ot"):
        scheduler({"nll": one}, 0.5)
    with pytest.raises(SbiDaError, match="cannot weigh mmd"):
        scheduler({"nll": one, "ot": one, "mmd": one}, 0.5)
    with pytest.raises(SbiDaError, match="cannot weigh nothing"):
        Scheduler({"ot": Linear(1.0)})({"ot": one}, 0.0)
