r"""Coupling flow with rational-quadratic splines (Durkan et al. 2019, arXiv 1906.04032), by zuko, after an affine layer.

It acts on the normal scores :math:`z` of the prior. The context first gives a Gaussian, :math:`u = \Lambda(z - \mu)`, so that a
posterior a hundred times narrower than the prior reaches the splines at unit width; they shape what is not Gaussian. At
initialisation :math:`\mu = 0, \Lambda = 1`: an untrained head is near the prior, and an object without data asks for the identity.
"""

import math
from collections.abc import Sequence

import torch
import zuko
from torch import Tensor, nn

from sbi_da.posteriors.coupling import CouplingInverse
from sbi_da.posteriors.gaussian import GaussianLayer

__all__ = ["SplineHead"]

LOG_TWO_PI = math.log(2 * math.pi)


class SplineHead(nn.Module):
    """Conditional law over normal scores.

    Args:
        parameters: number of parameters.
        context: width of the context.
        transforms: number of coupling transforms.
        bins: spline bins on [-5, 5]; beyond, the flow is the identity.
        hidden: widths of the conditioner networks.
    """

    def __init__(
        self, parameters: int, context: int, transforms: int = 5, bins: int = 12, hidden: Sequence[int] = (128, 128)
    ) -> None:
        super().__init__()
        self.parameters_count = parameters
        self.flow = zuko.flows.NSF(
            parameters, context, bins=bins, transforms=transforms, passes=min(2, parameters),
            hidden_features=tuple(hidden), activation=nn.SiLU,
        )
        self.inverses = nn.ModuleList(CouplingInverse(t) for t in self.flow.transform.transforms if parameters > 1)
        self.gaussian = GaussianLayer(parameters, context, hidden[-1])

    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """Log-density of ``z``, shape ``(..., parameter)``, given contexts ``(..., context)``; leading dimensions broadcast."""
        noise, log_det = self.noise(z, context)
        return log_det - 0.5 * noise.square().sum(-1) - 0.5 * self.parameters_count * LOG_TWO_PI

    def noise(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The standard normal noise that :meth:`transform` maps to ``z``, and the log-determinant of that map's inverse."""
        law = self.gaussian(context)
        noise, log_abs_det = self.flow(context).transform.call_and_ladj(law.whiten(z))
        return noise, log_abs_det + law.log_det

    def transform(self, noise: Tensor, context: Tensor) -> Tensor:
        """Map standard normal ``noise``, shape ``(..., parameter)``, to draws; leading dimensions broadcast with the contexts'."""
        if self.parameters_count > 1 and noise.ndim == 3 and context.shape[1:-1] == (1,):  # many draws of each object
            y, told = noise.permute(2, 0, 1), context[:, 0].mT
            for transform, inverse in zip(reversed(self.flow.transform.transforms), reversed(self.inverses), strict=True):
                y = inverse(transform, y, told)
            u = y.permute(1, 2, 0)
        else:
            u = self.flow(context).transform.inv(noise)
        return torch.as_tensor(self.gaussian(context).colour(u))
