r"""A Gaussian given a context, by its location and a triangular root of its precision, and its conditionals.

.. math:: u = \Lambda(z - \mu),\qquad \Lambda^\top\Lambda = \Sigma^{-1}

with :math:`\Lambda` lower triangular. A head that works in :math:`u` need not learn that a posterior is a hundred times narrower than
the prior, nor how its parameters are correlated. With some variables known, some asked and the others left out, the law of the asked
ones is Gaussian again; its mean and root follow by linear algebra, so that one network serves every such question.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["Gaussian", "GaussianLayer", "StandardNormal"]

LOG_SCALE = (-2.0, 7.0)
"""Range of the logarithm of Lambda's diagonal."""


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
        shift = torch.linalg.solve_triangular(self.root, u[..., None], upper=False)[..., 0]
        return self.location + shift

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
