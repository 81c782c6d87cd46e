"""Combinations of the other families. None is conditionally negative definite.

Taneja's is a quarter of Jeffreys's less the Jensen difference. Kumar and Johnson's holds products x^(5/2) y^(-3/2). The
mean of L1 and L-infinity has as dual ball a cube plus an octahedron, some faces of which are triangles, so no zonoid.
"""

from torch import Tensor

from sbi_da.alignment.metrics.metric import Metric, positive

__all__ = ["METRICS"]


def taneja(x: Tensor, y: Tensor) -> Tensor:
    """Divergence of arithmetic from geometric means."""
    x, y = positive(x), positive(y)
    mean = (x + y) / 2
    return (mean * (mean.log() - (x.log() + y.log()) / 2)).sum(-1)


def kumar_johnson(x: Tensor, y: Tensor) -> Tensor:
    """Symmetric chi-squared, arithmetic and geometric means together."""
    x, y = positive(x), positive(y)
    return ((x.square() - y.square()).square() / (2 * (x * y) ** 1.5)).sum(-1)


def average_l1_linf(x: Tensor, y: Tensor) -> Tensor:
    """Mean of the sum and the largest of the absolute differences."""
    difference = (x - y).abs()
    return (difference.sum(-1) + difference.amax(-1)) / 2


METRICS = (
    Metric(
        "taneja",
        "combination",
        taneja,
        "sum (x + y) / 2 ln((x + y) / (2 sqrt(x y)))",
        valid_kernel=False,
        needs_nonnegative=True,
    ),
    Metric(
        "kumar_johnson",
        "combination",
        kumar_johnson,
        "sum (x^2 - y^2)^2 / (2 (x y)^(3/2))",
        valid_kernel=False,
        needs_nonnegative=True,
    ),
    Metric("average_l1_linf", "combination", average_l1_linf, "(sum |x - y| + max |x - y|) / 2", valid_kernel=False),
)
