"""Chi-squared family: squared differences, relative to something.

Pearson's and Neyman's are not symmetric, so no kernels; their sum, the additive symmetric one, is not conditionally
negative definite, because of its products x^2 / y. The others are: (x - y)^2 / (x + y) = x + y - 4 x y / (x + y), and
(x - y)^2 / (x + y)^2 = 1 - 4 x y / (x + y)^2, whose last terms are positive definite.
"""

from torch import Tensor

from sbi_da.alignment.metrics.metric import Metric, positive, ratio, root

__all__ = ["METRICS"]


def pearson(x: Tensor, y: Tensor) -> Tensor:
    """Relative to the second."""
    return ((x - y).square() / positive(y)).sum(-1)


def neyman(x: Tensor, y: Tensor) -> Tensor:
    """Relative to the first."""
    return ((x - y).square() / positive(x)).sum(-1)


def squared_l2(x: Tensor, y: Tensor) -> Tensor:
    """Relative to nothing: squared Euclidean; its kernel is the Gaussian."""
    return (x - y).square().sum(-1)


def probabilistic_symmetric(x: Tensor, y: Tensor) -> Tensor:
    """Relative to the mean."""
    return 2 * ratio((x - y).square(), x + y).sum(-1)


def divergence(x: Tensor, y: Tensor) -> Tensor:
    """Relative to the squared sum."""
    return 2 * ratio(x - y, x + y).square().sum(-1)


def clark(x: Tensor, y: Tensor) -> Tensor:
    """Root of half of the divergence."""
    return root(ratio(x - y, x + y).square().sum(-1))


def additive_symmetric(x: Tensor, y: Tensor) -> Tensor:
    """Pearson's and Neyman's together."""
    return pearson(x, y) + neyman(x, y)


METRICS = (
    Metric("pearson", "chi-squared", pearson, "sum (x - y)^2 / y", valid_kernel=False, needs_nonnegative=True),
    Metric("neyman", "chi-squared", neyman, "sum (x - y)^2 / x", valid_kernel=False, needs_nonnegative=True),
    Metric("squared_l2", "chi-squared", squared_l2, "sum (x - y)^2"),
    Metric(
        "probabilistic_symmetric",
        "chi-squared",
        probabilistic_symmetric,
        "2 sum (x - y)^2 / (x + y)",
        needs_nonnegative=True,
    ),
    Metric("divergence", "chi-squared", divergence, "2 sum (x - y)^2 / (x + y)^2", needs_nonnegative=True),
    Metric("clark", "chi-squared", clark, "sqrt(sum (|x - y| / (x + y))^2)", needs_nonnegative=True),
    Metric(
        "additive_symmetric",
        "chi-squared",
        additive_symmetric,
        "sum (x - y)^2 (x + y) / (x y)",
        valid_kernel=False,
        needs_nonnegative=True,
    ),
)
