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
from sbi_da.errors import SbiDaError

__all__ = ["TwoMoons"]

RADIUS, THICKNESS, OFFSET = 0.1, 0.01, 0.25
REACH, CELLS = 0.2, 200_000
TRIES, BATCH = 10_000, 20_000


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

    def draw(self, known: Tensor, values: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """From the simulator where no datum is known, on a line where one variable is not, else by rejection."""
        theta_known, x_known = known.chunk(2)
        if not x_known.any():
            theta = self.prior.given(theta_known, values[:2], n, generator)
            return torch.cat([theta, self.simulate(theta, generator)], -1)
        if int((~known).sum()) <= 1:
            return self._on_a_line(known, values, n, generator)
        found, drawn = torch.empty(0, 4, dtype=torch.float64), 0
        while len(found) < n:
            if drawn > TRIES * n:
                raise SbiDaError(f"{self.name}: fewer than one draw in {TRIES} fits the values given: they cannot belong together")
            found = torch.cat([found, self._proposed(known, values, BATCH, generator)])
            drawn += BATCH
        return found[:n]

    def _proposed(self, known: Tensor, values: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """Points of the crescent say where the parameters must be; the map has a constant Jacobian, so that only the prior rejects."""
        u = crescent(n, generator)
        sign = torch.where(torch.rand(n, generator=generator) < 0.5, -1.0, 1.0)
        a, b = ((2 * torch.rand(n, generator=generator, dtype=torch.float64) - 1) * 2**0.5 for _ in range(2))
        height = u[:, 0] + OFFSET - values[2]
        if known[2]:
            a = sign * height
        if known[3]:
            b = values[3] - u[:, 1]
        for i, direction in ((0, 1.0), (1, -1.0)):
            if known[i]:
                a, b = (a, direction * (a - 2**0.5 * values[i])) if known[2] else (direction * b + 2**0.5 * values[i], b)
        theta = torch.stack([a - b, a + b], -1) / 2**0.5
        theta = torch.where(known[:2], values[:2], theta)
        both = torch.cat([theta, torch.where(known[2:], values[2:], u + centre(theta))], -1)
        good = (theta.abs() <= self.prior.half).all(-1)
        return both[good & (height >= 0)] if known[2] else both[good]

    def _on_a_line(self, known: Tensor, values: Tensor, n: int, generator: torch.Generator) -> Tensor:
        draws = values.expand(n, -1).clone()
        if known.all():
            return draws
        free = int((~known).nonzero())
        low, high = -self.prior.half, self.prior.half
        if free >= 2:
            middle = float(centre(values[:2])[free - 2])
            low, high = middle - REACH, middle + REACH
        edges = torch.linspace(low, high, CELLS + 1, dtype=torch.float64)
        line = values.expand(CELLS, -1).clone()
        line[:, free] = (edges[1:] + edges[:-1]) / 2
        level = self.log_joint(line)
        if not torch.isfinite(level).any():
            raise SbiDaError(f"{self.name}: the values given cannot belong together")
        total = torch.softmax(level, 0).cumsum(0)
        u = torch.rand(2, n, generator=generator, dtype=torch.float64)
        cell = torch.searchsorted(total, u[0] * total[-1]).clamp_max(CELLS - 1)
        draws[:, free] = edges[cell] + u[1] * (edges[1] - edges[0])
        return draws


def crescent(n: int, generator: torch.Generator) -> Tensor:
    """``n`` points of the half ring."""
    angle = torch.pi * (torch.rand(n, generator=generator, dtype=torch.float64) - 0.5)
    radius = RADIUS + THICKNESS * torch.randn(n, generator=generator, dtype=torch.float64)
    return radius[:, None] * torch.stack([angle.cos(), angle.sin()], -1)


def centre(theta: Tensor) -> Tensor:
    """Where the half ring is centred."""
    a, b = (theta[..., 0] + theta[..., 1]) / 2**0.5, (theta[..., 1] - theta[..., 0]) / 2**0.5
    return torch.stack([OFFSET - a.abs(), b], -1)
