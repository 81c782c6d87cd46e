"""Intersection family: what two distributions have in common. All but Wave Hedges's are similarities.

All are positive definite. min(x, y) is; so is 1 / s for any sum s = a(x) + a(y), a Laplace transform; min / max per
entry and sum min / sum max; and 1 / (c + ||x - y||_1), the mixture over t of exp(-t (c + ||x - y||_1)), and products of
these. Motyka's similarity is half of Czekanowski's, which for vectors that sum to one is the intersection itself.
Kulczynski's is all but unbounded for coinciding vectors: a few near pairs rule it.
"""

import torch
from torch import Tensor

from sbi_da.alignment.metrics.metric import Metric, ratio

__all__ = ["METRICS"]


def intersection(x: Tensor, y: Tensor) -> Tensor:
    """Common part."""
    return torch.minimum(x, y).sum(-1)


def wave_hedges(x: Tensor, y: Tensor) -> Tensor:
    """Sum of differences relative to the larger entry."""
    return ratio((x - y).abs(), torch.maximum(x, y)).sum(-1)


def czekanowski(x: Tensor, y: Tensor) -> Tensor:
    """Twice the common part relative to the sum of both."""
    return ratio(2 * torch.minimum(x, y).sum(-1), (x + y).sum(-1))


def motyka(x: Tensor, y: Tensor) -> Tensor:
    """Common part relative to the sum of both."""
    return ratio(torch.minimum(x, y).sum(-1), (x + y).sum(-1))


def kulczynski_s(x: Tensor, y: Tensor) -> Tensor:
    """Common part relative to the difference."""
    return ratio(torch.minimum(x, y).sum(-1), (x - y).abs().sum(-1))


def ruzicka(x: Tensor, y: Tensor) -> Tensor:
    """Common part relative to the union."""
    return ratio(torch.minimum(x, y).sum(-1), torch.maximum(x, y).sum(-1))


METRICS = (
    Metric("intersection", "intersection", intersection, "sum min(x, y)", similarity=True, needs_nonnegative=True),
    Metric("wave_hedges", "intersection", wave_hedges, "sum |x - y| / max(x, y)", needs_nonnegative=True),
    Metric(
        "czekanowski",
        "intersection",
        czekanowski,
        "2 sum min(x, y) / sum (x + y)",
        similarity=True,
        needs_nonnegative=True,
    ),
    Metric("motyka", "intersection", motyka, "sum min(x, y) / sum (x + y)", similarity=True, needs_nonnegative=True),
    Metric(
        "kulczynski_s",
        "intersection",
        kulczynski_s,
        "sum min(x, y) / sum |x - y|",
        similarity=True,
        needs_nonnegative=True,
    ),
    Metric(
        "ruzicka", "intersection", ruzicka, "sum min(x, y) / sum max(x, y)", similarity=True, needs_nonnegative=True
    ),
)
