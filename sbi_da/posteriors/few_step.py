r"""A flow in a few evaluations: the map of another head's noise to its draws, learned as a composition of a few residual steps.

.. math:: x_{k+1} = x_k + f_k(x_k, c),\qquad x_0 = \varepsilon,\qquad z = \mu + \Lambda^{-1} x_K

in the units of the teacher's Gaussian, with :math:`K \le 4`. Student and teacher map the same noise to the same draws as nearly as the
student can (Luhman & Luhman 2021, arXiv 2101.02388), so draws of the two can be compared one by one. What depends on the context alone is
computed once per object. There is no density: that is the teacher's.
"""

import torch
from torch import Tensor, nn

from sbi_da.errors import SbiDaError
from sbi_da.posteriors.gaussian import GaussianLayer

__all__ = ["FewStepHead"]


class _Step(nn.Module):
    def __init__(self, parameters: int, context: int, width: int) -> None:
        super().__init__()
        self.state, self.context = nn.Linear(parameters, width), nn.Linear(context, 2 * width)
        self.middle, self.last = nn.Linear(width, width), nn.Linear(width, parameters)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        first, second = self.context(context).chunk(2, dim=-1)
        h = nn.functional.silu(self.state(x) + first)
        h = nn.functional.silu(self.middle(h) + second)
        out: Tensor = x + self.last(h)
        return out


class FewStepHead(nn.Module):
    """Draws over normal scores, without a density.

    Args:
        parameters: number of parameters.
        context: width of the context.
        steps: network evaluations per draw.
        width: of the steps' hidden layers.
        hidden: width of the hidden layer that gives the Gaussian, the teacher's.
    """

    def __init__(self, parameters: int, context: int, steps: int = 4, width: int = 128, hidden: int = 128) -> None:
        super().__init__()
        self.parameters_count = parameters
        self.gaussian = GaussianLayer(parameters, context, hidden)
        self.encode = nn.Sequential(nn.Linear(context, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        self.steps = nn.ModuleList(_Step(parameters, width, width) for _ in range(steps))

    def whitened(self, noise: Tensor, context: Tensor) -> Tensor:
        """Draws in the units of the Gaussian, of noise ``(..., parameter)``; leading dimensions broadcast with the contexts'."""
        encoded = self.encode(context)
        for step in self.steps:
            noise = step(noise, encoded)
        return noise

    def transform(self, noise: Tensor, context: Tensor) -> Tensor:
        """Map standard normal ``noise``, shape ``(..., parameter)``, to draws; leading dimensions broadcast with the contexts'."""
        return torch.as_tensor(self.gaussian(context).colour(self.whitened(noise, context)))

    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """Refused.

        Raises:
            SbiDaError: always.
        """
        raise SbiDaError("a few_step head draws and has no density: ask the estimator that it was distilled from")
