"""L1 family: absolute differences, relative to something.

Of these only Kulczynski's is not conditionally negative definite: it grows without bound for disjoint vectors, though
both are near a third. Soergel's distance is 1 - sum min / sum max, also known as Tanimoto's. Gower's takes every feature
to have a range of one, so that it is Manhattan's over the width.
"""

import torch
from torch import Tensor

from sbi_da.alignment.metrics.metric import Metric, positive, ratio

__all__ = ["METRICS"]


def sorensen(x: Tensor, y: Tensor) -> Tensor:
    """Difference relative to the sum of both; Bray and Curtis's dissimilarity."""
    return ratio((x - y).abs().sum(-1), (x + y).sum(-1))


def gower(x: Tensor, y: Tensor) -> Tensor:
    """Mean absolute difference."""
    return (x - y).abs().mean(-1)


def soergel(x: Tensor, y: Tensor) -> Tensor:
    """Difference relative to the union."""
    return ratio((x - y).abs().sum(-1), torch.maximum(x, y).sum(-1))


def kulczynski(x: Tensor, y: Tensor) -> Tensor:
    """Difference relative to the intersection."""
    x, y = positive(x), positive(y)
    return (x - y).abs().sum(-1) / torch.minimum(x, y).sum(-1)


def canberra(x: Tensor, y: Tensor) -> Tensor:
    """Sum of relative differences; entries of either sign."""
    return ratio((x - y).abs(), x.abs() + y.abs()).sum(-1)


def lorentzian(x: Tensor, y: Tensor) -> Tensor:
    """Sum of logarithms of one plus the difference; tolerant of outliers."""
    return torch.log1p((x - y).abs()).sum(-1)


METRICS = (
    Metric("sorensen", "l1", sorensen, "sum |x - y| / sum (x + y)", needs_nonnegative=True),
    Metric("gower", "l1", gower, "sum |x - y| / d"),
    Metric("soergel", "l1", soergel, "sum |x - y| / sum max(x, y)", needs_nonnegative=True),
    Metric(
        "kulczynski",
        "l1",
        kulczynski,
        "sum |x - y| / sum min(x, y)",
        valid_kernel=False,
        needs_nonnegative=True,
    ),
    Metric("canberra", "l1", canberra, "sum |x - y| / (|x| + |y|)"),
    Metric("lorentzian", "l1", lorentzian, "sum ln(1 + |x - y|)"),
)
