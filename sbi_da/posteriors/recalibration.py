r"""Recalibration: a shift and a widening of posteriors, from objects whose parameters are known.

A head maps standard normal noise :math:`u` to parameters. Were it right, the noise that its inverse assigns to the true parameters
of real objects would be :math:`N(0, I)`. If instead it is :math:`N(m, S)`, drawing from this law in its stead gives

.. math:: q'(\theta\mid x) = q(\theta\mid x)\,\frac{N(u; m, S)}{N(u; 0, I)},\qquad u = u(\theta, x),

wider or narrower and moved, alike for all objects in units of their own posteriors. No alignment of features can widen a
posterior; this can. Moments are shrunk towards those of an exact posterior by as much as ``strength`` exact objects would.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from sbi_da.errors import SbiDaError
from sbi_da.posteriors.posterior import Head

__all__ = ["RecalibratedHead", "fit_recalibration"]


class RecalibratedHead(nn.Module):
    """A head whose noise follows another normal law.

    Args:
        head: the head that is corrected; it must offer ``noise(z, context)``.
        mean: m, shape ``(parameter,)``.
        root: lower-triangular root of S, shape ``(parameter, parameter)``.
    """

    mean: Tensor
    root: Tensor

    def __init__(self, head: Any, mean: Tensor, root: Tensor) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("mean", mean)
        self.register_buffer("root", root)

    @property
    def inflation(self) -> float:
        """Geometric mean over directions of the factor by which posteriors are widened."""
        return float(self.root.diagonal().log().mean().exp())

    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """Log-density of ``z``, shape ``(..., parameter)``, given contexts; shape ``(...)``."""
        noise, log_det = self.head.noise(z, context)
        u = torch.linalg.solve_triangular(self.root, (noise - self.mean)[..., None], upper=False)[..., 0]
        size = u.shape[-1]
        return log_det - self.root.diagonal().log().sum() - 0.5 * u.square().sum(-1) - 0.5 * size * math.log(2 * math.pi)

    def transform(self, noise: Tensor, context: Tensor) -> Tensor:
        """Standard normal noise to draws."""
        moved: Tensor = self.head.transform(self.mean + noise @ self.root.T, context)
        return moved

    def to_dict(self) -> dict[str, Any]:
        """The correction, for JSON."""
        return {"mean": self.mean.tolist(), "root": self.root.tolist()}

    @classmethod
    def from_dict(cls, head: Head, content: Mapping[str, Any]) -> "RecalibratedHead":
        """Inverse of :meth:`to_dict`."""
        return cls(head, torch.tensor(content["mean"]), torch.tensor(content["root"]))


def fit_recalibration(head: Any, z: Tensor, context: Tensor, strength: float = 10.0) -> RecalibratedHead:
    """Fit shift and widening by the moments of the noise of known parameters.

    Args:
        head: what is corrected.
        z: normal scores of the parameters, shape ``(object, parameter)``.
        context: of the same objects.
        strength: number of exact objects the moments are shrunk by.

    Raises:
        SbiDaError: fewer objects than parameters.
    """
    n, size = z.shape
    if n < size:
        raise SbiDaError(f"recalibration of {size} parameters needs {size} labelled objects or more, not {n}")
    with torch.no_grad():
        noise = head.noise(z, context)[0].double()
    share = n / (n + strength)
    mean = share * noise.mean(0)
    second = share * (noise - mean).T @ (noise - mean) / n + (1 - share) * torch.eye(size, dtype=torch.float64)
    return RecalibratedHead(head, mean.float(), torch.linalg.cholesky(second).float())
