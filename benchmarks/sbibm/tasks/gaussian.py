r"""Data that are the parameters with Gaussian noise.

``gaussian_linear``: ten parameters :math:`\theta\sim N(0, 0.1)`, data :math:`x\sim N(\theta, 0.1)` (variances).
``gaussian_linear_uniform``: the same data with a uniform prior on :math:`[-1, 1]^{10}`.
``gaussian_mixture``: two parameters, uniform on :math:`[-10, 10]^2`; the noise has a standard deviation of 1 or of 0.1, with even odds
and for both data at once.
"""

import math

import torch
from torch import Tensor

from benchmarks.sbibm.priors import Box, Gaussian, gaussian_given, normal_mass, truncated_normal
from benchmarks.sbibm.tasks.task import Task

__all__ = ["GaussianLinear", "GaussianLinearUniform", "GaussianMixture"]

VARIANCE = 0.1
SCALES = (1.0, 0.1)


class GaussianLinear(Task):
    """Ten parameters, all Gaussian."""

    name, data = "gaussian_linear", 10
    prior = Gaussian(VARIANCE * torch.eye(10, dtype=torch.float64))

    def simulate(self, theta: Tensor, generator: torch.Generator) -> Tensor:  # noqa: D102
        return theta + VARIANCE**0.5 * torch.randn(theta.shape, generator=generator, dtype=torch.float64)

    def log_likelihood(self, theta: Tensor, x: Tensor) -> Tensor:  # noqa: D102
        return _log_normal(x - theta, VARIANCE**0.5)

    def draw(self, known: Tensor, values: Tensor, n: int, generator: torch.Generator) -> Tensor:  # noqa: D102
        shape = torch.tensor([[1.0, 1.0], [1.0, 2.0]], dtype=torch.float64)
        covariance = VARIANCE * torch.kron(shape, torch.eye(self.data, dtype=torch.float64))
        return gaussian_given(covariance, known, values, n, generator)


class GaussianLinearUniform(Task):
    """Ten parameters in a box."""

    name, data, prior = "gaussian_linear_uniform", 10, Box(10, 1.0)

    simulate = GaussianLinear.simulate
    log_likelihood = GaussianLinear.log_likelihood

    def draw(self, known: Tensor, values: Tensor, n: int, generator: torch.Generator) -> Tensor:  # noqa: D102
        sd = torch.full((n, 1), VARIANCE**0.5, dtype=torch.float64)
        return _drawn_in_box(self.prior.half, sd, known, values, generator)


class GaussianMixture(Task):
    """Two parameters, wide or narrow noise."""

    name, data, prior = "gaussian_mixture", 2, Box(2, 10.0)

    def simulate(self, theta: Tensor, generator: torch.Generator) -> Tensor:  # noqa: D102
        wide = torch.rand(len(theta), 1, generator=generator) < 0.5
        noise = torch.randn(theta.shape, generator=generator, dtype=torch.float64)
        return theta + torch.where(wide, *SCALES) * noise

    def log_likelihood(self, theta: Tensor, x: Tensor) -> Tensor:  # noqa: D102
        return torch.stack([_log_normal(x - theta, scale) for scale in SCALES]).logsumexp(0) - math.log(2)

    def draw(self, known: Tensor, values: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """The scale by its odds given what is known, then one variable after the other."""
        theta, x = values.chunk(2)
        theta_known, x_known = known.chunk(2)
        odds = []
        for scale in SCALES:
            inside = normal_mass((-self.prior.half - x) / scale, (self.prior.half - x) / scale).log()
            each = torch.where(theta_known, _log_normal((x - theta)[:, None], scale), inside)
            odds.append(each[x_known].sum())
        wide = torch.rand(n, 1, generator=generator, dtype=torch.float64) < torch.sigmoid(odds[0] - odds[1])
        return _drawn_in_box(self.prior.half, torch.where(wide, *SCALES).double(), known, values, generator)


def _log_normal(residual: Tensor, sd: float) -> Tensor:
    return (-0.5 * (residual / sd).square() - math.log(sd * (2 * math.pi) ** 0.5)).sum(-1)


def _drawn_in_box(half: float, sd: Tensor, known: Tensor, values: Tensor, generator: torch.Generator) -> Tensor:
    """Draws when every datum is its parameter with noise ``sd``, shape ``(n, 1)``, and the parameters are uniform in a box."""
    theta, x = values.chunk(2)
    theta_known, x_known = known.chunk(2)
    seen = truncated_normal(x, sd, -half, half, generator)
    unseen = half * (2 * torch.rand(seen.shape, generator=generator, dtype=torch.float64) - 1)
    drawn = torch.where(theta_known, theta, torch.where(x_known, seen, unseen))
    data = drawn + sd * torch.randn(drawn.shape, generator=generator, dtype=torch.float64)
    return torch.cat([drawn, torch.where(x_known, x, data)], -1)
