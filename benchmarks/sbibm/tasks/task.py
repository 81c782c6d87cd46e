"""What a task is: a prior, a simulator whose likelihood is known, and exact draws of any variables given others."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from benchmarks.sbibm.priors import TaskPrior

__all__ = ["Task"]


class Task(ABC):
    """A simulator with a tractable likelihood.

    All arrays are float64 tensors; ``d`` counts parameters and ``m`` data.

    Attributes:
        name: as the benchmark calls it.
        prior: law of the parameters.
        data: number of data ``m``.
    """

    name: str
    prior: TaskPrior
    data: int

    @property
    def parameters(self) -> int:
        """Number of parameters ``d``."""
        return self.prior.size

    @abstractmethod
    def simulate(self, theta: Tensor, generator: torch.Generator) -> Tensor:
        """Data ``(n, m)`` of parameters ``(n, d)``, one draw each."""

    @abstractmethod
    def log_likelihood(self, theta: Tensor, x: Tensor) -> Tensor:
        """Log-density of data ``(..., m)`` under parameters ``(..., d)``."""

    @abstractmethod
    def draw(self, known: Tensor, values: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """Draws of the joint law of parameters and data, some of which are known.

        Args:
            known: mask over the parameters and then the data, shape ``(d + m,)``.
            values: of the known ones, same shape; what stands elsewhere is not read.
            n: number of draws.
            generator: of random numbers.

        Returns:
            Shape ``(n, d + m)``, the known ones at their values.
        """

    def log_joint(self, both: Tensor) -> Tensor:
        """Log-density of parameters and data together, shape ``(..., d + m)``."""
        theta, x = both[..., : self.parameters], both[..., self.parameters :]
        return self.prior.log_prob(theta) + self.log_likelihood(theta, x)
