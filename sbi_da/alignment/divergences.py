"""What the two-sample statistics share: weights of rows, a typical distance, and the unbiased discrepancy.

For a kernel k, simulated rows x_i with weights w_i that sum to one, and real rows y_j, all alike,

    D = sum_{i != i'} w_i w_i' k(x_i, x_i') / (1 - sum w_i^2) + mean_{j != j'} k(y_j, y_j') - 2 sum_i w_i mean_j k(x_i, y_j),

the U-statistic of the squared maximum mean discrepancy (Gretton et al. 2012, JMLR 13:723). A row is never compared with
itself, so that D is zero on average, and negative about half of the time, when both sides follow one law. A row of
weight w counts as w copies of it that are not compared with one another; a row of weight zero does not count at all.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from sbi_da.alignment.term import normalised

__all__ = ["Blocks", "Weights", "each", "row_weights", "typical", "unbiased"]

Blocks = tuple[Tensor, Tensor, Tensor]
"""A function of pairs: among simulated rows ``(n, n)``, among real rows ``(m, m)``, between the two ``(n, m)``."""

Weights = tuple[Tensor, Tensor]
"""Weights of the simulated and of the real rows, each summing to one: ``(n,)``, ``(m,)``."""

FEWEST = 1e-6
"""Smallest chance that two rows drawn by weight differ; below, one row holds all of the weight."""


def row_weights(simulated: Tensor, real: Tensor, weight: Tensor | None = None) -> Weights | None:
    """Weights of both sides' rows, each summing to one; None where a side does not have two rows that count.

    Args:
        simulated: features, shape ``(n, width)``.
        real: features, shape ``(m, width)``.
        weight: of the simulated rows, shape ``(n,)``; None: all alike.
    """
    if len(simulated) < 2 or len(real) < 2:
        return None
    w, v = normalised(None if weight is None else weight.to(simulated), simulated), normalised(None, real)
    if not float(w.sum()) > 0.5 or float(1 - w.square().sum()) < FEWEST:
        return None
    return w, v


def each(function: Callable[[Tensor], Tensor], blocks: Blocks) -> Blocks:
    """The function of every block."""
    simulated, real, cross = blocks
    return function(simulated), function(real), function(cross)


def pairs(weight: Tensor) -> Tensor:
    """Chances of drawing two distinct rows, shape ``(n, n)``; zero on the diagonal."""
    chance = torch.outer(weight, weight)
    return chance - torch.diag(chance.diagonal())


def unbiased(kernel: Blocks, weights: Weights) -> Tensor:
    """The statistic D above. The diagonals of the first two blocks do not count, but must be finite."""
    (simulated, real, cross), (w, v) = kernel, weights
    within = [(pairs(u) * block).sum() / (1 - u.square().sum()) for u, block in ((w, simulated), (v, real))]
    return within[0] + within[1] - 2 * w @ cross @ v


@torch.no_grad()
def typical(distances: Blocks, weights: Weights, floor: float = 1e-6) -> Tensor:
    """Weighted median of the distances of distinct rows in a pool of which each side is half; without gradient.

    Args:
        distances: or any increasing function of them.
        weights: of the rows.
        floor: returned where the median is smaller, as when most rows coincide.

    Returns:
        A scalar: the least distance that half of the weight of the pairs does not exceed.
    """
    w, v = weights
    value, order = torch.cat([block.flatten() for block in distances]).sort()
    chance = torch.cat([pairs(w).flatten(), pairs(v).flatten(), 2 * torch.outer(w, v).flatten()])[order]
    below = chance.cumsum(0)
    middle = torch.searchsorted(below, below[-1:] * (0.5 - 1e-6))  # less than half: sums are rounded
    return value[middle.clamp_max(len(value) - 1)][0].clamp_min(floor)
