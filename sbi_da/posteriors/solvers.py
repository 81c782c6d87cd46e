"""Integration of a flow's velocity: fixed steps, whose draws do not depend on what else is in the batch, or adaptive ones, by zuko."""

from collections.abc import Callable

import zuko
from torch import Tensor

__all__ = ["integrate"]

Velocity = Callable[[Tensor, Tensor], Tensor]


def _rate(velocity: Velocity, time: float, x: Tensor) -> Tensor:
    return velocity(x.new_full((), time), x)


def _midpoint(velocity: Velocity, x: Tensor, time: float, step: float) -> Tensor:
    return x + step * _rate(velocity, time + step / 2, x + step / 2 * _rate(velocity, time, x))


def _runge_kutta(velocity: Velocity, x: Tensor, time: float, step: float) -> Tensor:
    first = _rate(velocity, time, x)
    second = _rate(velocity, time + step / 2, x + step / 2 * first)
    third = _rate(velocity, time + step / 2, x + step / 2 * second)
    fourth = _rate(velocity, time + step, x + step * third)
    return x + step / 6 * (first + 2 * second + 2 * third + fourth)


def integrate(
    velocity: Velocity, x: Tensor, start: float, end: float, solver: str = "midpoint", steps: int = 16, tolerance: float = 1e-5
) -> Tensor:
    """The state at the end.

    Args:
        velocity: of a time (a scalar) and a state, the shape of the state.
        x: state at the start.
        start: first time.
        end: last time.
        solver: ``midpoint`` (two evaluations a step), ``rk4`` (four), or ``dopri5``, of adaptive step.
        steps: of the first two.
        tolerance: absolute and relative, of the last.
    """
    if solver == "dopri5":
        found = zuko.utils.odeint(velocity, x, start, end, atol=tolerance, rtol=tolerance)
        assert isinstance(found, Tensor)
        return found
    step = (end - start) / steps
    move = {"midpoint": _midpoint, "rk4": _runge_kutta}[solver]
    for k in range(steps):
        x = move(velocity, x, start + k * step, step)
    return x
