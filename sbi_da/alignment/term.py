"""What every distribution term of an alignment is: two sets of features to one number.

Rows are features of objects, of any number on either side. Features are the very vectors the next part of the network
consumes; squared distances between them are divided by their width, so that a term means the same at any width.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

__all__ = ["Term", "nothing", "normalised", "squared_distances"]


class Term(nn.Module, ABC):
    """Base of the terms that compare distributions. The typed ``__init__`` of a subclass is its configuration.

    Attributes:
        kind: name in configs.
        progress: of the training, from 0 to 1, set by whoever trains.
        uses: which of ``weight``, ``matches``, ``cost`` it makes use of; the others are ignored.
    """

    kind: ClassVar[str]
    uses: frozenset[str] = frozenset({"weight"})
    progress: float = 1.0

    def __init__(self) -> None:
        super().__init__()

    @abstractmethod
    def forward(
        self,
        simulated: Tensor,
        real: Tensor,
        *,
        weight: Tensor | None = None,
        matches: Tensor | None = None,
        cost: Tensor | None = None,
    ) -> Tensor:
        """The term.

        Args:
            simulated: features, shape ``(n, width)``.
            real: features, shape ``(m, width)``.
            weight: non-negative weights of the simulated rows, shape ``(n,)``; None: all alike. Their scale is of no account.
            matches: row pairs known to belong together, integer, shape ``(k, 2)``: simulated row, real row.
            cost: further cost of matching row i to row j, shape ``(n, m)``.

        Returns:
            A scalar, zero (with zero gradients) where a side has too few rows to be compared.
        """
        ...


def nothing(simulated: Tensor, real: Tensor) -> Tensor:
    """A zero that hangs on both sides, so that gradients are zeros rather than missing."""
    return 0.0 * (simulated.sum() + real.sum())


def normalised(weight: Tensor | None, like: Tensor) -> Tensor:
    """Weights of the rows of ``like`` that sum to one; shape ``(n,)``."""
    if weight is None:
        return like.new_full((len(like),), 1.0 / max(1, len(like)))
    return weight / weight.sum().clamp_min(torch.finfo(weight.dtype).tiny)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances divided by the width, shape ``(n, m)``; differentiable everywhere, coinciding rows included."""
    centre = y.detach().mean(0) if len(y) else y.new_zeros(y.shape[-1])
    x, y = x - centre, y - centre
    squared = x.square().sum(-1)[:, None] + y.square().sum(-1) - 2 * x @ y.T
    return squared.clamp_min(0.0) / x.shape[-1]
