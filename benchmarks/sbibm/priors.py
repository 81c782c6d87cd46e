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

__all__ = ["Affine", "Box", "Gaussian", "TaskPrior", "gaussian_given", "normal_mass", "normal_quantile", "truncated_normal"]


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
        inside = (theta.abs() <= self.half).all(-1)
        return torch.where(inside, 0.0, -torch.inf).to(theta.dtype) - self.size * math.log(2 * self.half)

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


class Affine:
    """Map of independent standard normals to the law of a Gaussian of zero mean, some entries of which are known.

    Args:
        covariance: of all entries.
        known: mask over them.
        values: of the known ones, same shape.
    """

    def __init__(self, covariance: Tensor, known: Tensor, values: Tensor) -> None:
        self.free, self.values = ~known, values
        within, across = covariance[known][:, known], covariance[known][:, self.free]
        gain = torch.linalg.solve(within, across).T
        self.mean = gain @ values[known]
        self.factor = torch.linalg.cholesky(covariance[self.free][:, self.free] - gain @ across)

    def __call__(self, z: Tensor) -> Tensor:
        """All entries ``(n, d)``, of normals ``(n, free)``."""
        draws = self.values.expand(len(z), -1).clone()
        draws[:, self.free] = self.mean + z @ self.factor.T
        return draws


def gaussian_given(covariance: Tensor, known: Tensor, values: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draws ``(n, d)`` of a Gaussian of zero mean, the entries of the mask ``known`` having the values ``values``."""
    if known.all():
        return values.expand(n, -1).clone()
    noise = torch.randn(n, int((~known).sum()), generator=generator, dtype=torch.float64)
    return Affine(covariance, known, values)(noise)


def truncated_normal(mean: Tensor, sd: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    """One draw between two limits for each mean."""
    mean, sd = torch.broadcast_tensors(mean, sd)
    u = torch.rand(mean.shape, generator=generator, dtype=torch.float64)
    return mean + sd * normal_quantile(u, (low - mean) / sd, (high - mean) / sd)


def normal_mass(a: Tensor, b: Tensor) -> Tensor:
    """Probability of ``a < z < b`` of a standard normal, counted in the tail where no digits are lost."""
    flip = a + b > 0
    return torch.special.ndtr(torch.where(flip, -a, b)) - torch.special.ndtr(torch.where(flip, -b, a))


def normal_quantile(u: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The z below which a share ``u`` of a standard normal cut to ``a < z < b`` lies."""
    flip = a + b > 0
    low, high = torch.where(flip, -b, a), torch.where(flip, -a, b)
    left, right = torch.special.ndtr(low), torch.special.ndtr(high)
    z = torch.special.ndtri(left + torch.where(flip, 1 - u, u) * (right - left)).clamp(low, high)
    return torch.where(flip, -z, z)
