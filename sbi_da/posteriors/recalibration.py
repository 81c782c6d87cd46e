r"""Recalibration: a shift and a widening of posteriors, from objects whose parameters are known.

A head maps standard normal noise :math:`u` to parameters. Were it right, the noise that its inverse assigns to the true parameters
of real objects would be :math:`N(0, I)`. If instead it is :math:`N(m, S)`, drawing from this law in its stead gives

.. math:: q'(\theta\mid x) = q(\theta\mid x)\,\frac{N(u; m, S)}{N(u; 0, I)},\qquad u = u(\theta, x),

wider or narrower and moved, alike for all objects in units of their own posteriors, even of those without data. No alignment of
features can widen a posterior; this can. Moments are shrunk towards those of an exact posterior by as much as some exact objects
would, and what is gained is found by cross-validation. Objects of another population than the prior's have other noise under exact
posteriors too: this must not be fitted to them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from sbi_da.errors import SbiDaError

__all__ = ["Invertible", "RecalibratedHead", "Recalibration", "fit_recalibration", "gain_of_recalibration"]

STRENGTH = 10.0
"""Number of exact objects the moments are shrunk by."""


class Drawing(Protocol):
    """A conditional law over normal scores that is a map of standard normal noise."""

    def transform(self, noise: Tensor, context: Tensor) -> Tensor:
        """Standard normal noise to draws."""
        ...

    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """Log-density, or an error that says that there is none."""
        ...


@runtime_checkable
class Invertible(Protocol):
    """One whose inverse is known."""

    def noise(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The noise of scores, and the log-determinant of that map."""
        ...

    def transform(self, noise: Tensor, context: Tensor) -> Tensor:
        """Standard normal noise to draws."""
        ...

    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """Log-density."""
        ...


@dataclass(frozen=True)
class Recalibration:
    """Another normal law of the noise.

    Attributes:
        mean: m, shape ``(parameter,)``.
        root: lower-triangular root of S, shape ``(parameter, parameter)``.
    """

    mean: Tensor
    root: Tensor

    @property
    def inflation(self) -> float:
        """Geometric mean over directions of the factor by which posteriors are widened."""
        return float(self.root.diagonal().log().mean().exp())

    def log_prob(self, noise: Tensor) -> Tensor:
        """Log-density of noise ``(..., parameter)``, shape ``(...)``."""
        u = torch.linalg.solve_triangular(self.root, (noise - self.mean)[..., None], upper=False)[..., 0]
        return -self.root.diagonal().log().sum() - 0.5 * u.square().sum(-1) - 0.5 * u.shape[-1] * math.log(2 * math.pi)

    def to_dict(self) -> dict[str, Any]:
        """Plain content, for JSON."""
        return {"mean": self.mean.tolist(), "root": self.root.tolist()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Recalibration":
        """Inverse of :meth:`to_dict`."""
        return cls(torch.tensor(content["mean"]), torch.tensor(content["root"]))


@dataclass(frozen=True)
class RecalibratedHead:
    """A head whose noise follows another normal law.

    Attributes:
        head: the head that is corrected.
        recalibration: the law.
    """

    head: Drawing
    recalibration: Recalibration

    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """Log-density of ``z``, shape ``(..., parameter)``, given contexts; shape ``(...)``."""
        if not isinstance(self.head, Invertible):
            raise SbiDaError("a recalibrated density needs a head with an inverse (spline, flow_matching): sample it instead")
        noise, log_det = self.head.noise(z, context)
        return log_det + self.recalibration.log_prob(noise)

    def transform(self, noise: Tensor, context: Tensor) -> Tensor:
        """Standard normal noise to draws."""
        law = self.recalibration
        return self.head.transform(law.mean.to(noise.device) + noise @ law.root.to(noise.device).T, context)


def fit_recalibration(noise: Tensor, strength: float = STRENGTH) -> Recalibration:
    """Fit shift and widening by moments.

    Args:
        noise: of the known parameters of real objects, shape ``(object, parameter)``.
        strength: number of exact objects the moments are shrunk by.

    Raises:
        SbiDaError: fewer objects than parameters.
    """
    n, size = noise.shape
    if n < size:
        raise SbiDaError(f"recalibration of {size} parameters needs {size} labelled objects or more, not {n}")
    noise = noise.double()
    share = n / (n + strength)
    mean = share * noise.mean(0)
    second = share * (noise - mean).T @ (noise - mean) / n + (1 - share) * torch.eye(size, dtype=torch.float64)
    return Recalibration(mean.float(), torch.linalg.cholesky(second).float())


def gain_of_recalibration(noise: Tensor, folds: int = 5, strength: float = STRENGTH) -> np.ndarray:
    """Log-density that recalibration by the other folds gains each object [nats], shape ``(object,)``."""
    n, size = noise.shape
    gain = np.zeros(n)
    plain = Recalibration(torch.zeros(size), torch.eye(size))
    for fold in range(folds):
        own = torch.arange(n) % folds == fold
        found = fit_recalibration(noise[~own], strength)
        gain[own.numpy()] = (found.log_prob(noise[own]) - plain.log_prob(noise[own])).numpy()
    return gain
