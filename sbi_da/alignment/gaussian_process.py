r"""Independent Gaussian processes over the same inputs, fitted together.

Each has the prior covariance :math:`k(x, y) = c^2 + b^2\,x\cdot y + a^2 (1 + r)e^{-r}` with
:math:`r^2 = 3\sum_j (x_j - y_j)^2 / \ell_j^2`: a constant, a plane, and a Matérn-3/2 surface with a length of its own along every
input (automatic relevance determination; Rasmussen & Williams 2006, sections 4.2 and 5.1), and a white scatter w about it. The
hyperparameters maximise the marginal likelihood under weak lognormal priors.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

__all__ = ["Kernel", "Processes", "learn"]

CENTRE = {"length": 3.0, "amplitude": 0.05, "slope": 0.03, "level": 0.05, "white": 0.01}
"""Medians of the hyperparameters' priors, in the units of inputs and values."""
SPREAD = {"length": 1.0, "amplitude": 2.0, "slope": 2.0, "level": 2.0, "white": 1.5}
"""Standard deviations of the logarithms."""
JITTER = 1e-9
CHUNK = 2000


@dataclass(frozen=True)
class Kernel:
    """Hyperparameters of several processes.

    Attributes:
        length: shape ``(process, input)``.
        amplitude: of the surface, shape ``(process,)``.
        slope: of the plane, same shape.
        level: of the constant, same shape.
        white: scatter about the process, same shape; no part of the covariance.
    """

    length: Tensor
    amplitude: Tensor
    slope: Tensor
    level: Tensor
    white: Tensor

    @classmethod
    def start(cls, deviation: Tensor, inputs: int) -> "Kernel":
        """Where to begin for processes of a standard deviation, shape ``(process,)``."""
        length = torch.full((len(deviation), inputs), CENTRE["length"], dtype=deviation.dtype)
        return cls(length, 0.75 * deviation, 0.35 * deviation, 0.35 * deviation, 0.2 * deviation)

    def __call__(self, x: Tensor, y: Tensor) -> Tensor:
        """Covariance between rows of x and of y, shape ``(process, x, y)``."""
        xs, ys = x[None] / self.length[:, None], y[None] / self.length[:, None]
        square = xs.square().sum(-1)[:, :, None] + ys.square().sum(-1)[:, None] - 2 * xs @ ys.transpose(1, 2)
        r = (3 * square.clamp_min(1e-12)).sqrt()
        surface = self.amplitude[:, None, None] ** 2 * (1 + r) * torch.exp(-r)
        return surface + self.slope[:, None, None] ** 2 * (x @ y.T) + self.level[:, None, None] ** 2

    def surface(self, x: Tensor, y: Tensor) -> Tensor:
        """The surface's part of the covariance, without gradients and in one pass; shape ``(process, x, y)``."""
        r = torch.cdist(x / self.length[:, None], y / self.length[:, None]).mul_(3**0.5)
        decay = torch.exp(-r)
        return r.add_(1).mul_(decay).mul_(self.amplitude[:, None, None] ** 2)

    def diagonal(self, x: Tensor) -> Tensor:
        """Variance at rows of x, shape ``(process, x)``."""
        return (self.amplitude**2 + self.level**2)[:, None] + self.slope[:, None] ** 2 * x.square().sum(-1)

    def logarithms(self) -> dict[str, Tensor]:
        """Of all hyperparameters."""
        return {k: v.log() for k, v in vars(self).items()}


def learn(kernel: Kernel, x: Tensor, target: Tensor, variance: Tensor, weight: Tensor, steps: int, rate: float = 0.1) -> Kernel:
    """Maximise the posterior density of the hyperparameters.

    Args:
        kernel: where to begin.
        x: inputs, shape ``(object, input)``.
        target: what was measured, shape ``(process, object)``.
        variance: of the measurements, same shape.
        weight: of the objects, shape ``(object,)``; variance and scatter are divided by it.
        steps: of Adam.
        rate: its learning rate.
    """
    logs = {k: v.detach().clone().requires_grad_(True) for k, v in kernel.logarithms().items()}
    optimiser = torch.optim.Adam(list(logs.values()), rate)
    for _ in range(steps):
        tried = Kernel(**{k: v.exp() for k, v in logs.items()})
        noise = (variance + tried.white[:, None] ** 2) / weight
        root = torch.linalg.cholesky(tried(x, x) + torch.diag_embed(noise + JITTER))
        left = torch.linalg.solve_triangular(root, target[..., None], upper=False)
        loss = 0.5 * left.square().sum() + torch.diagonal(root, dim1=1, dim2=2).log().sum()
        for name, value in logs.items():
            loss = loss + 0.5 * ((value - np.log(CENTRE[name])) / SPREAD[name]).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return Kernel(**{k: v.detach().exp() for k, v in logs.items()})


@dataclass(frozen=True)
class Processes:
    """Processes given measurements.

    Attributes:
        kernel: their priors.
        x: inputs, shape ``(object, input)``.
        target: what was measured, shape ``(process, object)``.
        noise: variance of the measurement and of the white scatter, same shape.
    """

    kernel: Kernel
    x: Tensor
    target: Tensor
    noise: Tensor

    @cached_property
    def _root(self) -> Tensor:
        return torch.linalg.cholesky(self.kernel(self.x, self.x) + torch.diag_embed(self.noise + JITTER))

    @cached_property
    def _weights(self) -> Tensor:
        return torch.cholesky_solve(self.target[..., None], self._root)[..., 0]

    def mean(self, x: np.ndarray) -> np.ndarray:
        """Expected values at inputs ``(row, input)``, shape ``(row, process)``."""
        return self._predicted(x, False)[0]

    def predict(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Expected values and variances, without the white scatter, each of shape ``(row, process)``."""
        return self._predicted(x, True)

    def _predicted(self, x: np.ndarray, spread: bool) -> tuple[np.ndarray, np.ndarray]:
        mean, variance = np.empty((2, len(x), len(self.target)))
        for start in range(0, len(x), CHUNK):
            rows = slice(start, start + CHUNK)
            some = torch.from_numpy(np.asarray(x[rows], np.float64))
            surface = self.kernel.surface(self.x, some)
            plane = self.kernel.slope**2 * (some @ self.x.T @ self._weights.T) + self.kernel.level**2 * self._weights.sum(1)
            mean[rows] = (torch.einsum("pnm,pn->mp", surface, self._weights) + plane).numpy()
            if spread:
                surface += self.kernel.slope[:, None, None] ** 2 * (self.x @ some.T) + self.kernel.level[:, None, None] ** 2
                explained = torch.linalg.solve_triangular(self._root, surface, upper=False).square().sum(1)
                variance[rows] = (self.kernel.diagonal(some) - explained).clamp_min(0.0).T.numpy()
        return mean, variance
