r"""A Gaussian given a context, by its location and a triangular root of its precision, and its conditionals.

.. math:: u = \Lambda(z - \mu),\qquad \Lambda^\top\Lambda = \Sigma^{-1}

with :math:`\Lambda` lower triangular. A head that works in :math:`u` need not learn that a posterior is a hundred times narrower than
the prior, nor how its parameters are correlated. With some variables known, some asked and the others left out, the law of the asked
ones is Gaussian again; its mean and root follow by linear algebra, so that one network serves every such question.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Gaussian", "GaussianLayer", "JointGaussian", "StandardNormal"]

LOG_SCALE = (-2.0, 7.0)
"""Range of the logarithm of Lambda's diagonal."""
RIDGE = 1e-4
"""Least eigenvalue of the correlation of a joint Gaussian."""


@dataclass(frozen=True)
class Gaussian:
    """Gaussians of a batch.

    Attributes:
        location: shape ``(..., variable)``.
        root: Lambda, shape ``(..., variable, variable)``.
        log_det: sum of the logarithms of its diagonal, shape ``(...)``.
    """

    location: Tensor
    root: Tensor
    log_det: Tensor

    def whiten(self, z: Tensor) -> Tensor:
        """U of ``z``, shape ``(..., variable)``; leading dimensions broadcast."""
        return (self.root @ (z - self.location)[..., None])[..., 0]

    def colour(self, u: Tensor) -> Tensor:
        """Inverse of :meth:`whiten`."""
        if self.root.ndim > 2 and u.ndim >= self.root.ndim - 1 and self.root.shape[-3] == 1:  # many of each: solved together
            return self.location + torch.linalg.solve_triangular(self.root[..., 0, :, :], u.mT, upper=False).mT
        return self.location + torch.linalg.solve_triangular(self.root, u[..., None], upper=False)[..., 0]

    def detach(self) -> "Gaussian":
        """The same without gradients."""
        return Gaussian(self.location.detach(), self.root.detach(), self.log_det.detach())

    def given(self, z: Tensor, known: Tensor, asked: Tensor) -> "Gaussian":
        """The law of the asked variables; the others are independent standard normals in it, so that shapes stay.

        Args:
            z: values of the known variables, shape ``(..., variable)``; the others are not read.
            known: which are known, boolean, same shape.
            asked: which are asked, none of them known. Variables that are neither are integrated out.
        """
        root = self.root.double()
        precision = root.mT @ root
        unknown = ~known
        identity = torch.eye(known.shape[-1], dtype=torch.float64, device=root.device)
        inner = torch.where(unknown[..., :, None] & unknown[..., None, :], precision, identity)
        covariance = torch.linalg.inv(inner)
        offset = torch.where(known, z - self.location, 0.0).double()
        pull = torch.where(unknown, (precision @ offset[..., None])[..., 0], 0.0)
        location = self.location.double() - (covariance @ pull[..., None])[..., 0]
        kept = torch.where(asked[..., :, None] & asked[..., None, :], covariance, identity)
        lower = torch.linalg.cholesky(kept)
        root = torch.linalg.solve_triangular(lower, identity.expand_as(lower), upper=False)
        log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return Gaussian(torch.where(asked, location, 0.0).to(z.dtype), root.to(z.dtype), log_det.to(z.dtype))


class GaussianLayer(nn.Module):
    """Context to Gaussian; standard normal before it is trained.

    Args:
        variables: how many.
        context: width of the context.
        hidden: width of the hidden layer.
        copies: number of Gaussians, in a dimension before that of the variables; None: one, without that dimension.
    """

    def __init__(self, variables: int, context: int, hidden: int, copies: int | None = None) -> None:
        super().__init__()
        self.variables, self.copies = variables, copies
        rows, columns = torch.tril_indices(variables, variables, -1)
        self.register_buffer("below", rows * variables + columns, persistent=False)
        last = nn.Linear(hidden, (copies or 1) * (2 * variables + len(rows)))
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(nn.Linear(context, hidden), nn.SiLU(), last)

    below: Tensor

    def forward(self, context: Tensor) -> Gaussian:
        """Gaussians of contexts ``(..., context)``."""
        size, out = self.variables, self.layers(context)
        if self.copies:
            out = out.unflatten(-1, (self.copies, -1))
        location, log_scale, entries = out.split([size, size, len(self.below)], dim=-1)
        low, high = LOG_SCALE
        log_scale = log_scale - torch.relu(log_scale - high) + torch.relu(low - log_scale)
        flat = out.new_zeros(*out.shape[:-1], size * size).index_copy(-1, self.below, entries)
        unit = flat.unflatten(-1, (size, size)) + torch.eye(size, device=out.device)
        return Gaussian(location, log_scale.exp()[..., None] * unit, log_scale.sum(-1))


class StandardNormal(nn.Module):
    """The standard normal whatever the context.

    Args:
        variables: how many.
    """

    def __init__(self, variables: int) -> None:
        super().__init__()
        self.variables = variables

    def forward(self, context: Tensor) -> Gaussian:
        """Gaussians of contexts ``(..., context)``."""
        location = context.new_zeros(*context.shape[:-1], self.variables)
        root = torch.eye(self.variables, device=context.device).expand(*context.shape[:-1], -1, -1)
        return Gaussian(location, root, location.sum(-1))


class JointGaussian(nn.Module):
    """One Gaussian of parameters and measurements together, taken from simulations and conditioned on what was measured.

    It is the posterior where both are jointly Gaussian. Elsewhere it has a posterior's location as far as that is linear in the
    measurements, and a spread that depends only on which there are. Nothing is trained, so that nothing is learned by heart.

    Args:
        parameters: number of parameters.
        channels: number of measurements.
    """

    location: Tensor
    root: Tensor

    def __init__(self, parameters: int, channels: int) -> None:
        super().__init__()
        self.parameters_count, self.channels = parameters, channels
        self.register_buffer("location", torch.zeros(parameters + channels))
        self.register_buffer("root", torch.eye(parameters + channels))

    def fit(self, z: Tensor, measured: Tensor, seen: Tensor) -> None:
        """Take mean and covariance from simulations; those of two variables from the objects where both are there.

        Args:
            z: parameters, shape ``(object, parameter)``.
            measured: shape ``(object, channel)``; entries that were not seen are not read.
            seen: boolean, same shape.
        """
        there = torch.cat([torch.ones_like(z), seen.to(z.dtype)], dim=1).double()
        both = torch.where(there > 0, torch.cat([z, measured], dim=1).double(), 0.0)
        location = both.sum(0) / there.sum(0).clamp_min(1)
        away = (both - location) * there
        spread = (away.square().sum(0) / there.sum(0).clamp_min(1)).sqrt().clamp_min(1e-6)
        correlation = (away.mT @ away) / (there.mT @ there).clamp_min(1) / spread / spread[:, None]
        correlation.fill_diagonal_(1.0)
        values, vectors = torch.linalg.eigh(correlation)  # of incomplete pairs it need not be positive
        covariance = (vectors * values.clamp_min(RIDGE)) @ vectors.mT * spread * spread[:, None]
        root = torch.linalg.inv(torch.linalg.cholesky(covariance))
        self.location.copy_(location)
        self.root.copy_(root)

    def forward(
        self, measured: Tensor, seen: Tensor, at: tuple[Tensor, Tensor, Tensor] | None = None
    ) -> Gaussian:
        """The law of the asked variables.

        Args:
            measured: shape ``(..., channel)``; entries that were not seen are not read.
            seen: boolean, same shape.
            at: values, known and asked ones of the variables, as of :meth:`Gaussian.given`, with whose leading dimensions those of the
                measurements broadcast; None: all parameters are asked. Channels among the variables may be asked, where they were not
                seen, and are known by having been seen.
        """
        size = self.parameters_count
        if at is None:
            own = measured.new_zeros(*measured.shape[:-1], size)
            at = own, torch.zeros_like(own, dtype=torch.bool), torch.ones_like(own, dtype=torch.bool)
        values, known, asked = at
        variables = values.shape[-1]
        measured, seen = (m.expand(*values.shape[:-1], -1) for m in (measured, seen))
        more = nn.functional.pad(asked[..., size:], (0, size + self.channels - variables))
        law = Gaussian(self.location, self.root, self.root.diagonal().log().sum()).given(
            torch.cat([values[..., :size], measured], dim=-1), torch.cat([known[..., :size], seen], dim=-1),
            torch.cat([asked[..., :size], more & ~seen], dim=-1),
        )
        return Gaussian(law.location[..., :variables], law.root[..., :variables, :variables], law.log_det)
