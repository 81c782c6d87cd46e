r"""Two crescents.

The prior is uniform on :math:`[-1, 1]^2`. With :math:`a = (\theta_1 + \theta_2)/\sqrt 2` and :math:`b = (\theta_2 - \theta_1)/\sqrt 2`,

.. math:: x = (r\cos\alpha + 0.25 - |a|,\; r\sin\alpha + b), \quad \alpha\sim U(-\pi/2, \pi/2),\; r\sim N(0.1, 0.01^2),

so that the posterior of one observation is two crescents, one for each sign of :math:`a`. The vector
:math:`u = x - (0.25 - |a|, b)` has the density :math:`N(|u|; 0.1, 0.01^2)/(\pi|u|)` where :math:`u_1 > 0`.
"""

import torch
from torch import Tensor

from benchmarks.sbibm.priors import Box
from benchmarks.sbibm.tasks.task import Task

__all__ = ["TwoMoons"]

RADIUS, THICKNESS, OFFSET = 0.1, 0.01, 0.25


class TwoMoons(Task):
    """Two parameters, two data, two crescents."""

    name, data, prior = "two_moons", 2, Box(2, 1.0)

    def simulate(self, theta: Tensor, generator: torch.Generator) -> Tensor:  # noqa: D102
        return crescent(len(theta), generator) + centre(theta)

    def log_likelihood(self, theta: Tensor, x: Tensor) -> Tensor:  # noqa: D102
        u = x - centre(theta)
        r = u.square().sum(-1).sqrt().clamp_min(1e-30)
        radial = -0.5 * ((r - RADIUS) / THICKNESS).square() - torch.log(torch.pi * r * THICKNESS * (2 * torch.pi) ** 0.5)
        return torch.where(u[..., 0] > 0, radial, -torch.inf)


def crescent(n: int, generator: torch.Generator) -> Tensor:
    """``n`` points of the half ring."""
    angle = torch.pi * (torch.rand(n, generator=generator, dtype=torch.float64) - 0.5)
    radius = RADIUS + THICKNESS * torch.randn(n, generator=generator, dtype=torch.float64)
    return radius[:, None] * torch.stack([angle.cos(), angle.sin()], -1)


def centre(theta: Tensor) -> Tensor:
    """Where the half ring is centred."""
    a, b = (theta[..., 0] + theta[..., 1]) / 2**0.5, (theta[..., 1] - theta[..., 0]) / 2**0.5
    return torch.stack([OFFSET - a.abs(), b], -1)
