"""Squared-chord family: geometric means of entries, or Euclidean geometry of their square roots.

Bhattacharyya's distance makes (sum sqrt(x y))^(1/h), a fractional power of a positive definite kernel, which need not be
one: of three vectors the ends of which are disjoint, the middle would have to be at once too near to both.
"""

from torch import Tensor

from sbi_da.alignment.metrics.metric import Metric, positive, root

__all__ = ["METRICS"]


def fidelity(x: Tensor, y: Tensor) -> Tensor:
    """Sum of geometric means; Bhattacharyya's coefficient."""
    return (positive(x).sqrt() * positive(y).sqrt()).sum(-1)


def bhattacharyya(x: Tensor, y: Tensor) -> Tensor:
    """Minus the logarithm of the fidelity."""
    return -fidelity(x, y).log()


def squared_chord(x: Tensor, y: Tensor) -> Tensor:
    """Squared distance of the square roots."""
    return (positive(x).sqrt() - positive(y).sqrt()).square().sum(-1)


def hellinger(x: Tensor, y: Tensor) -> Tensor:
    """Distance of the square roots times sqrt(2), which for distributions is 2 sqrt(1 - fidelity)."""
    return root(2 * squared_chord(x, y))


METRICS = (
    Metric("fidelity", "squared chord", fidelity, "sum sqrt(x y)", similarity=True, needs_nonnegative=True),
    Metric(
        "bhattacharyya",
        "squared chord",
        bhattacharyya,
        "-ln sum sqrt(x y)",
        valid_kernel=False,
        needs_nonnegative=True,
    ),
    Metric("hellinger", "squared chord", hellinger, "sqrt(2 sum (sqrt x - sqrt y)^2)", needs_nonnegative=True),
    Metric("squared_chord", "squared chord", squared_chord, "sum (sqrt x - sqrt y)^2", needs_nonnegative=True),
)
