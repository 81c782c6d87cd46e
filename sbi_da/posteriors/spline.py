r"""Coupling flow with rational-quadratic splines (Durkan et al. 2019, arXiv 1906.04032), by zuko, after an affine layer.

It acts on the normal scores :math:`z` of the prior. The context first gives a location and a triangular root of the
precision, :math:`u = \Lambda(z - \mu)`, so that a posterior a hundred times narrower than the prior reaches the splines at
unit width; they shape what is not Gaussian. At initialisation :math:`\mu = 0, \Lambda = 1`: an untrained head is near the
prior, and an object without data asks for the identity.
"""

import math
from collections.abc import Sequence

import torch
import zuko
from torch import Tensor, nn

__all__ = ["SplineHead"]

LOG_TWO_PI = math.log(2 * math.pi)
LOG_SCALE = (-2.0, 7.0)
"""Range of the logarithm of Lambda's diagonal."""


class SplineHead(nn.Module):
    """Conditional law over normal scores.

    Args:
        parameters: number of parameters.
        context: width of the context.
        transforms: number of coupling transforms.
        bins: spline bins on [-5, 5]; beyond, the flow is the identity.
        hidden: widths of the conditioner networks.
    """

    below: Tensor

    def __init__(
        self, parameters: int, context: int, transforms: int = 5, bins: int = 12, hidden: Sequence[int] = (128, 128)
    ) -> None:
        super().__init__()
        self.parameters_count = parameters
        self.flow = zuko.flows.NSF(
            parameters, context, bins=bins, transforms=transforms, passes=min(2, parameters),
            hidden_features=tuple(hidden), activation=nn.SiLU,
        )
        rows, columns = torch.tril_indices(parameters, parameters, -1)
        below = torch.zeros(len(rows), parameters, parameters)
        below[torch.arange(len(rows)), rows, columns] = 1.0
        self.register_buffer("below", below, persistent=False)
        last = nn.Linear(hidden[-1], 2 * parameters + len(rows))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.affine = nn.Sequential(nn.Linear(context, hidden[-1]), nn.SiLU(), last)

    def _affine(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Location, Lambda and the sum of the logarithms of its diagonal."""
        size = self.parameters_count
        location, log_scale, entries = self.affine(context).split([size, size, len(self.below)], dim=-1)
        low, high = LOG_SCALE
        log_scale = log_scale - torch.relu(log_scale - high) + torch.relu(low - log_scale)
        unit = torch.einsum("...k,kij->...ij", entries, self.below) + torch.eye(size, device=entries.device)
        return location, log_scale.exp()[..., None] * unit, log_scale.sum(-1)

    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """Log-density of ``z``, shape ``(..., parameter)``, given contexts ``(..., context)``; shape ``(...)``."""
        noise, log_det = self.noise(z, context)
        return log_det - 0.5 * noise.square().sum(-1) - 0.5 * self.parameters_count * LOG_TWO_PI

    def noise(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The standard normal noise that :meth:`transform` maps to ``z``, and the log-determinant of that map's inverse."""
        location, root, log_det = self._affine(context)
        u = (root @ (z - location)[..., None])[..., 0]
        noise, log_abs_det = self.flow(context).transform.call_and_ladj(u)
        return noise, log_abs_det + log_det

    def transform(self, noise: Tensor, context: Tensor) -> Tensor:
        """Map standard normal ``noise``, shape ``(..., parameter)``, to draws."""
        location, root, _ = self._affine(context)
        u = self.flow(context).transform.inv(noise)
        return location + torch.linalg.solve_triangular(root, u[..., None], upper=False)[..., 0]
