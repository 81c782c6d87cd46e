"""Lp family: lengths of the difference, plain and with weights w of the features.

Lp norms with p <= 2 are conditionally negative definite in any number of dimensions, those with p > 2 from three
dimensions on are not (Dor 1976, Israel J. Math. 24:260): order 3 and the maximum make no valid kernel.
"""

from torch import Tensor

from sbi_da.alignment.metrics.metric import Metric, root

__all__ = ["METRICS", "ORDER"]

ORDER = 3
"""Of the Minkowski metric: one and two have names of their own."""


def minkowski(x: Tensor, y: Tensor) -> Tensor:
    """Length of order ``ORDER``."""
    return ((x - y).abs().pow(ORDER).sum(-1) + 1e-15) ** (1 / ORDER)


def manhattan(x: Tensor, y: Tensor) -> Tensor:
    """Sum of absolute differences."""
    return (x - y).abs().sum(-1)


def euclidean(x: Tensor, y: Tensor) -> Tensor:
    """Length of the difference."""
    return root((x - y).square().sum(-1))


def chebyshev(x: Tensor, y: Tensor) -> Tensor:
    """Largest absolute difference."""
    return (x - y).abs().amax(-1)


def weighted_minkowski(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Weighted length of order ``ORDER``."""
    return ((weight * (x - y).abs().pow(ORDER)).sum(-1) + 1e-15) ** (1 / ORDER)


def weighted_manhattan(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Weighted sum of absolute differences."""
    return (weight * (x - y).abs()).sum(-1)


def weighted_euclidean(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Weighted length of the difference."""
    return root((weight * (x - y).square()).sum(-1))


def weighted_chebyshev(x: Tensor, y: Tensor, weight: Tensor) -> Tensor:
    """Largest weighted absolute difference."""
    return (weight * (x - y).abs()).amax(-1)


METRICS = (
    Metric("minkowski", "lp", minkowski, "(sum |x - y|^3)^(1/3)", valid_kernel=False),
    Metric("manhattan", "lp", manhattan, "sum |x - y|"),
    Metric("euclidean", "lp", euclidean, "sqrt(sum (x - y)^2)"),
    Metric("chebyshev", "lp", chebyshev, "max |x - y|", valid_kernel=False),
    Metric(
        "weighted_minkowski", "lp", weighted_minkowski, "(sum w |x - y|^3)^(1/3)", valid_kernel=False, weighted=True
    ),
    Metric("weighted_manhattan", "lp", weighted_manhattan, "sum w |x - y|", weighted=True),
    Metric("weighted_euclidean", "lp", weighted_euclidean, "sqrt(sum w (x - y)^2)", weighted=True),
    Metric("weighted_chebyshev", "lp", weighted_chebyshev, "max w |x - y|", valid_kernel=False, weighted=True),
)
