"""Coupling flow with rational-quadratic splines (Durkan et al. 2019, arXiv 1906.04032), by zuko.

It acts on the normal scores of the prior, where the prior is the flow's own base law: an untrained flow is near the prior, and
an object without data asks for the identity.
"""

from collections.abc import Sequence

import torch
import zuko
from torch import Tensor, nn

__all__ = ["SplineHead"]


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
        self.flow = zuko.flows.NSF(
            parameters, context, bins=bins, transforms=transforms, passes=min(2, parameters),
            hidden_features=tuple(hidden), activation=nn.SiLU,
        )

    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """Log-density of ``z``, shape ``(..., parameter)``, given contexts ``(..., context)``; shape ``(...)``."""
        return self.flow(context).log_prob(z)

    def transform(self, noise: Tensor, context: Tensor) -> Tensor:
        """Map standard normal ``noise``, shape ``(..., parameter)``, to draws."""
        return self.flow(context).transform.inv(noise)

    def sample(self, count: int, context: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draws, shape ``(draw, object, parameter)``."""
        size = (count, len(context), self.flow(context[:1]).event_shape[0])
        return self.transform(torch.randn(size, generator=generator), context)
