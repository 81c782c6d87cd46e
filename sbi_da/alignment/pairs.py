r"""Terms for simulated and real rows that belong together: same object, or same parameters.

Row i of one side is the partner of row i of the other. The simulated features are by default targets that are not moved
(stop-gradient), so that the posterior on simulations stays what it was.

- ``pair``: :math:`\|z_o - z_s\|^2 / d`. Partners that share only the parameters, not the noise, have
  :math:`E[z_s \mid \theta]` as the best answer: embeddings shrink and posteriors become too narrow; add a distribution term.
- ``pair_mean``: the same against the mean of several simulations of the object's parameters. It has the same optimum, with
  less noise on the way.
- ``pair_cosine``: :math:`1 - \cos(z_o, z_s)`; blind to lengths.
- ``infonce`` (van den Oord et al. 2018, arXiv 1807.03748, in both directions as by Radford et al. 2021, arXiv 2103.00020):
  each row has to find its partner among the rows of the other side by :math:`\mathrm{softmax}(\cos / \tau)`.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from sbi_da.alignment.term import normalised
from sbi_da.errors import SbiDaError

__all__ = ["InfoNCE", "PairCosine", "PairMSE", "PairMean", "PairTerm"]

FLOOR = 1e-8
"""Added to the mean square of a row before its root is taken: a zero row has a finite gradient."""


class PairTerm(nn.Module, ABC):
    """Base of the terms over pairs. The typed ``__init__`` of a subclass is its configuration.

    Attributes:
        kind: name in configs.
        several: whether the simulated side has several draws per row, shape ``(n, draw, width)``.

    Args:
        stop_gradient: treat the simulated features as fixed.
    """

    kind: ClassVar[str]
    several: ClassVar[bool] = False

    def __init__(self, stop_gradient: bool = True) -> None:
        super().__init__()
        self.stop_gradient = stop_gradient

    def forward(self, simulated: Tensor, real: Tensor, weight: Tensor | None = None) -> Tensor:
        """The weighted mean of the term over pairs.

        Args:
            simulated: features, shape ``(n, width)``.
            real: features of their partners, shape ``(n, width)``.
            weight: non-negative weights of the pairs, shape ``(n,)``; None: all alike. Their scale is of no account.

        Returns:
            A scalar, zero (with zero gradients) where there is no pair, or none that weighs anything.

        Raises:
            SbiDaError: the sides do not have the same rows.
        """
        expected = (len(real), *simulated.shape[1:2], real.shape[-1]) if self.several else real.shape
        if simulated.shape != expected or 0 in simulated.shape[1:]:
            raise SbiDaError(
                f"{self.kind}: simulated {tuple(simulated.shape)} and real {tuple(real.shape)} are no pairs: give partners in "
                f"the same row, as {'(n, draw, width)' if self.several else '(n, width)'} and (n, width)"
            )
        return normalised(weight, real) @ self.each(simulated.detach() if self.stop_gradient else simulated, real, weight)

    @abstractmethod
    def each(self, simulated: Tensor, real: Tensor, weight: Tensor | None) -> Tensor:
        """The term of every pair, shape ``(n,)``; arguments as of :meth:`forward`."""
        ...


class PairMSE(PairTerm):
    """Mean squared distance of partners, divided by the width."""

    kind: ClassVar[str] = "pair"

    def each(self, simulated: Tensor, real: Tensor, weight: Tensor | None) -> Tensor:
        """Squared distances per feature."""
        return (real - simulated).square().mean(-1)


class PairMean(PairMSE):
    """Squared distance from the mean of several simulations, of shape ``(n, draw, width)``, divided by the width."""

    kind: ClassVar[str] = "pair_mean"
    several: ClassVar[bool] = True

    def each(self, simulated: Tensor, real: Tensor, weight: Tensor | None) -> Tensor:
        """Squared distances per feature."""
        return super().each(simulated.mean(1), real, weight)


class PairCosine(PairTerm):
    """One minus the cosine between partners.

    Args:
        log1p: take log(1 + ·) of every pair, so that the worst pairs weigh less.
        stop_gradient: treat the simulated features as fixed.
    """

    kind: ClassVar[str] = "pair_cosine"

    def __init__(self, log1p: bool = False, stop_gradient: bool = True) -> None:
        super().__init__(stop_gradient)
        self.log1p = log1p

    def each(self, simulated: Tensor, real: Tensor, weight: Tensor | None) -> Tensor:
        """Cosine distances."""
        distance = 1.0 - (_unit(simulated) * _unit(real)).sum(-1)
        return distance.log1p() if self.log1p else distance


class InfoNCE(PairTerm):
    """Cross-entropy of finding one's partner among the batch, the mean of both directions.

    Rows of weight zero are nobody's alternative; apart from that weights count in the mean only.

    Args:
        temperature: of the softmax over cosines.
        stop_gradient: treat the simulated features as fixed.

    Raises:
        SbiDaError: a temperature that is not positive.
    """

    kind: ClassVar[str] = "infonce"

    def __init__(self, temperature: float = 0.1, stop_gradient: bool = True) -> None:
        super().__init__(stop_gradient)
        if not temperature > 0:
            raise SbiDaError(f"infonce: temperature must be positive, not {temperature:g}")
        self.temperature = temperature

    def each(self, simulated: Tensor, real: Tensor, weight: Tensor | None) -> Tensor:
        """Cross-entropies."""
        logits = _unit(real) @ _unit(simulated).T / self.temperature
        if weight is not None:
            stranger = (weight <= 0) & ~torch.eye(len(weight), dtype=torch.bool, device=weight.device)
            to_simulated, to_real = (x.masked_fill(stranger, -torch.inf) for x in (logits, logits.T))
        else:
            to_simulated, to_real = logits, logits.T
        return 0.5 * (to_simulated.logsumexp(-1) + to_real.logsumexp(-1)) - logits.diagonal()


def _unit(x: Tensor) -> Tensor:
    """Rows of length one; rows much shorter than the floor stay short."""
    return x * torch.rsqrt(x.square().sum(-1, keepdim=True) + FLOOR * x.shape[-1])
