r"""Priors of the tasks: a box, or a Gaussian.

Both are maps of independent standard normals :math:`z`, exactly: :math:`\theta_i = a + (b - a)\,\Phi(z_i)` in a box and
:math:`\theta = L z` with :math:`LL^T` the covariance of the Gaussian.
"""

import math
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributions import Distribution, Independent, MultivariateNormal, Uniform

if TYPE_CHECKING:
    from sbi_da.distributions import Law

__all__ = ["Box", "Gaussian", "TaskPrior", "gaussian_given", "truncated_normal"]


class TaskPrior(ABC):
    """Law of the parameters of a task.

    Attributes:
        size: number of parameters.
    """

    size: int

    @abstractmethod
    def log_prob(self, theta: Tensor) -> Tensor:
        """Log-density, shape ``(...)`` of parameters ``(..., d)``; ``-inf`` outside the support."""

    @abstractmethod
    def from_normal(self, z: Tensor) -> Tensor:
        """Parameters of independent standard normals."""

    @abstractmethod
    def to_normal(self, theta: Tensor) -> Tensor:
        """Inverse of :meth:`from_normal`."""

    @abstractmethod
    def given(self, known: Tensor, values: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """``n`` draws ``(n, d)`` when the parameters of the mask ``known`` have the values ``values``."""

    @abstractmethod
    def distribution(self, dtype: torch.dtype = torch.float32) -> Distribution:
        """The same law as an object of torch."""

    @abstractmethod
    def laws(self) -> "dict[str, Law]":
        """Law of each parameter on its own, by name; those of a Gaussian prior are not independent unless it is diagonal."""

    def sample(self, n: int, generator: torch.Generator) -> Tensor:
        """``n`` draws, float64."""
        return self.from_normal(torch.randn(n, self.size, generator=generator, dtype=torch.float64))


class Box(TaskPrior):
    """Uniform between ``-half`` and ``half`` in every parameter."""

    def __init__(self, size: int, half: float) -> None:
        self.size, self.half = size, half

    def log_prob(self, theta: Tensor) -> Tensor:  # noqa: D102
        return torch.where((theta.abs() <= self.half).all(-1), -self.size * math.log(2 * self.half), -torch.inf)

    def from_normal(self, z: Tensor) -> Tensor:  # noqa: D102
        return self.half * torch.erf(z / 2**0.5)

    def to_normal(self, theta: Tensor) -> Tensor:  # noqa: D102
        return 2**0.5 * torch.erfinv(theta / self.half)

    def given(self, known: Tensor, values: Tensor, n: int, generator: torch.Generator) -> Tensor:  # noqa: D102
        return torch.where(known, values, self.sample(n, generator))

    def distribution(self, dtype: torch.dtype = torch.float32) -> Distribution:  # noqa: D102
        edge = torch.full((self.size,), self.half, dtype=dtype)
        return Independent(Uniform(-edge, edge, validate_args=False), 1, validate_args=False)

    def laws(self) -> "dict[str, Law]":  # noqa: D102
        from sbi_da.distributions import Uniform as Law

        return {f"theta_{i + 1}": Law(low=-self.half, high=self.half) for i in range(self.size)}


class Gaussian(TaskPrior):
    """Zero mean and this covariance."""

    def __init__(self, covariance: Tensor) -> None:
        self.size, self.covariance = len(covariance), covariance
        self.factor = torch.linalg.cholesky(covariance)

    def log_prob(self, theta: Tensor) -> Tensor:  # noqa: D102
        log_scale = float(self.factor.diagonal().log().sum()) + self.size / 2 * math.log(2 * math.pi)
        return -0.5 * self.to_normal(theta).square().sum(-1) - log_scale

    def from_normal(self, z: Tensor) -> Tensor:  # noqa: D102
        return z @ self.factor.T.to(z.dtype)

    def to_normal(self, theta: Tensor) -> Tensor:  # noqa: D102
        return theta @ torch.linalg.inv(self.factor).T.to(theta.dtype)

    def given(self, known: Tensor, values: Tensor, n: int, generator: torch.Generator) -> Tensor:  # noqa: D102
        return gaussian_given(self.covariance, known, values, n, generator)

    def distribution(self, dtype: torch.dtype = torch.float32) -> Distribution:  # noqa: D102
        zero = torch.zeros(self.size, dtype=dtype)
        return MultivariateNormal(zero, self.covariance.to(dtype), validate_args=False)

    def laws(self) -> "dict[str, Law]":  # noqa: D102
        from sbi_da.distributions import Normal

        def law(variance: Any) -> "Law":
            sd = float(variance) ** 0.5
            return Normal(mean=0.0, sd=sd, low=-8 * sd, high=8 * sd)

        return {f"theta_{i + 1}": law(v) for i, v in enumerate(self.covariance.diagonal())}


def gaussian_given(covariance: Tensor, known: Tensor, values: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draws ``(n, d)`` of a Gaussian of zero mean, the entries of the mask ``known`` having the values ``values``."""
    free = ~known
    draws = values.expand(n, -1).clone()
    if not free.any():
        return draws
    gain = torch.linalg.solve(covariance[known][:, known], covariance[known][:, free]).T
    mean = gain @ values[known]
    factor = torch.linalg.cholesky(covariance[free][:, free] - gain @ covariance[known][:, free])
    noise = torch.randn(n, int(free.sum()), generator=generator, dtype=torch.float64)
    draws[:, free] = mean + noise @ factor.T
    return draws


def truncated_normal(mean: Tensor, sd: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    """One draw between two limits for each mean; the tail that holds the limits is the lower one, where no digits are lost."""
    mean, sd = torch.broadcast_tensors(mean, sd)
    a, b = (low - mean) / sd, (high - mean) / sd
    flip = a + b > 0
    a, b = torch.where(flip, -b, a), torch.where(flip, -a, b)
    left, right = torch.special.ndtr(a), torch.special.ndtr(b)
    u = torch.rand(mean.shape, generator=generator, dtype=torch.float64)
    z = torch.special.ndtri(left + u * (right - left)).clamp(a, b)
    return mean + sd * torch.where(flip, -z, z)
