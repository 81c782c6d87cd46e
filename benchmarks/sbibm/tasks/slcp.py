r"""A simple likelihood with a complex posterior.

Four points of a Gaussian in the plane, with a uniform prior on :math:`[-3, 3]^5`: mean :math:`(\theta_1, \theta_2)`, standard deviations
:math:`\theta_3^2` and :math:`\theta_4^2`, correlation :math:`\tanh\theta_5`. The signs of :math:`\theta_3` and :math:`\theta_4` cannot be
known, so that there are four modes.
"""

import torch
from torch import Tensor

from benchmarks.sbibm.priors import Box
from benchmarks.sbibm.tasks.task import Task

__all__ = ["Slcp"]

POINTS = 4


class Slcp(Task):
    """Five parameters, eight data: ``(point 1 first, point 1 second, point 2 first, ...)``."""

    name, data, prior = "slcp", 2 * POINTS, Box(5, 3.0)

    def simulate(self, theta: Tensor, generator: torch.Generator) -> Tensor:  # noqa: D102
        noise = torch.randn(len(theta), POINTS, 2, generator=generator, dtype=torch.float64)
        first, second, correlation = spread(theta)
        other = correlation[:, None] * noise[..., 0] + (1 - correlation.square()).sqrt()[:, None] * noise[..., 1]
        points = torch.stack([first[:, None] * noise[..., 0], second[:, None] * other], -1)
        return (points + theta[:, None, :2]).flatten(1)

    def log_likelihood(self, theta: Tensor, x: Tensor) -> Tensor:  # noqa: D102
        first, second, correlation = (s[..., None] for s in spread(theta))
        points = x.unflatten(-1, (POINTS, 2))
        u = (points[..., 0] - theta[..., 0:1]) / first
        v = (points[..., 1] - theta[..., 1:2]) / second
        # 1 - tanh^2 loses digits at large arguments where cosh does not
        rest = torch.cosh(theta[..., 4:5]).square()
        square = (u.square() - 2 * correlation * u * v + v.square()) * rest
        log_scale = torch.log(2 * torch.pi * first * second) - 0.5 * torch.log(rest)
        return (-0.5 * square - log_scale).sum(-1)


def spread(theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both standard deviations and the correlation."""
    return theta[..., 2].square(), theta[..., 3].square(), theta[..., 4].tanh()
