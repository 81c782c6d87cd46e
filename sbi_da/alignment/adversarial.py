r"""Domain-adversarial alignment (Ganin et al. 2016, arXiv 1505.07818), and its conditional form (Long et al. 2018, arXiv 1705.10667).

A discriminator :math:`D` tells simulated from real features by the balanced cross-entropy

.. math:: L = \tfrac12 \sum_i w_i \log(1 + e^{-D(s_i)}) + \tfrac1{2m} \sum_j \log(1 + e^{D(o_j)}), \qquad \sum_i w_i = 1,

which is :math:`\log 2` where it cannot. Everyone minimises :math:`L`: between features and discriminator stands an identity whose
gradient is multiplied by :math:`-\lambda`, so that what improves the discriminator makes the features harder to tell apart.
:math:`\lambda(p) = \lambda_1 (2 / (1 + e^{-10p}) - 1)` rises with the progress :math:`p` of the training, because the
first discriminator is noise. The game oscillates and depends on the seed: a reference to compare with rather than a default.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from sbi_da.alignment.term import Term, normalised
from sbi_da.errors import SbiDaError

__all__ = ["Adversarial", "ConditionalAdversarial", "reverse_gradient"]

STEEPNESS = 10.0
"""Of the ramp, as in the paper: nine tenths of the strength at 30 % of the training."""


class _Reversal(torch.autograd.Function):
    """Identity forwards, ``-strength`` times the gradient backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradient, None


def reverse_gradient(x: Tensor, strength: float) -> Tensor:
    """``x`` itself, whose gradient is multiplied by ``-strength`` on the way back."""
    return _Reversal.apply(x, strength)


class Adversarial(Term):
    """Features a discriminator cannot tell apart.

    Attributes:
        progress: how far the training is, from 0 to 1; set by who trains. At 0, where it starts, features are left alone.

    Args:
        width: of the features.
        hidden: widths of the discriminator's hidden layers.
        strength: of the reversed gradient, at the end of the ramp.

    Raises:
        SbiDaError: a width that is not positive, or a negative strength.
    """

    kind: ClassVar[str] = "dann"

    def __init__(self, width: int, hidden: tuple[int, ...] = (128, 64), strength: float = 0.4) -> None:
        super().__init__()
        if not 0 <= strength < math.inf:
            raise SbiDaError(f"{self.kind}: strength must be finite and not negative, not {strength:g}")
        self.strength = strength
        self.progress = 0.0
        self.discriminator = self._network(width, hidden)

    def _network(self, inputs: int, hidden: Sequence[int]) -> nn.Sequential:
        """Layers from the features to one logit; positive means simulated."""
        sizes = [inputs, *hidden]
        if min(sizes) < 1:
            raise SbiDaError(f"{self.kind}: widths must be positive, got {inputs} features and hidden layers {list(hidden)}")
        layers: list[nn.Module] = []
        for before, after in zip(sizes[:-1], sizes[1:], strict=True):
            layers += [nn.Linear(before, after), nn.SiLU()]
        return nn.Sequential(*layers, nn.Linear(sizes[-1], 1))

    @property
    def reversal(self) -> float:
        """The strength of the reversal at the present progress."""
        progress = min(max(self.progress, 0.0), 1.0)
        return self.strength * (2.0 / (1.0 + math.exp(-STEEPNESS * progress)) - 1.0)

    def forward(
        self,
        simulated: Tensor,
        real: Tensor,
        *,
        weight: Tensor | None = None,
        matches: Tensor | None = None,
        cost: Tensor | None = None,
    ) -> Tensor:
        """Cross-entropy of the discriminator, see :class:`Term`."""
        return self._loss(reverse_gradient(simulated, self.reversal), reverse_gradient(real, self.reversal), weight)

    def _loss(self, simulated: Tensor, real: Tensor, weight: Tensor | None) -> Tensor:
        """Cross-entropy of rows as the discriminator sees them; zero where a side is empty or weighs nothing."""
        weight = normalised(weight, simulated)
        on_simulated = weight @ softplus(-self.discriminator(simulated)[:, 0])
        on_real = softplus(self.discriminator(real)[:, 0]).sum() / max(1, len(real))
        both = (weight.sum() > 0).to(weight.dtype) * bool(len(real))
        return 0.5 * both * (on_simulated + on_real)


class ConditionalAdversarial(Adversarial):
    """Features a discriminator cannot tell apart even when it knows the posterior they lead to.

    Where the posterior is the same the features have to agree, rather than on average over a population. The condition is
    detached: the discriminator reads it, nothing is trained to change it.

    Args:
        width: of the features.
        condition: width of the condition; twice the number of parameters for posterior means and standard deviations.
        hidden: widths of the discriminator's hidden layers.
        strength: of the reversed gradient, at the end of the ramp.
    """

    kind: ClassVar[str] = "cdan"

    def __init__(
        self, width: int, condition: int, hidden: tuple[int, ...] = (128, 64), strength: float = 0.4
    ) -> None:
        super().__init__(width + condition, hidden, strength)

    def forward(
        self,
        simulated: Tensor,
        real: Tensor,
        *,
        weight: Tensor | None = None,
        matches: Tensor | None = None,
        cost: Tensor | None = None,
        simulated_condition: Tensor | None = None,
        real_condition: Tensor | None = None,
    ) -> Tensor:
        """Cross-entropy of the discriminator, see :class:`Term`.

        Args:
            simulated: features, shape ``(n, width)``.
            real: features, shape ``(m, width)``.
            weight: weights of the simulated rows, shape ``(n,)``.
            matches: not used.
            cost: not used.
            simulated_condition: shape ``(n, condition)``.
            real_condition: shape ``(m, condition)``.

        Returns:
            A scalar.

        Raises:
            SbiDaError: a condition is missing.
        """
        if simulated_condition is None or real_condition is None:
            raise SbiDaError("cdan needs simulated_condition and real_condition: give posterior means and sds, or use dann")
        simulated = torch.cat([reverse_gradient(simulated, self.reversal), simulated_condition.detach()], dim=-1)
        real = torch.cat([reverse_gradient(real, self.reversal), real_condition.detach()], dim=-1)
        return self._loss(simulated, real, weight)
