"""Shannon's family: differences of entropies.

Kullback and Leibler's and K are not symmetric; Jeffreys's, the symmetric sum of the former, is not conditionally
negative definite, because of its products x ln y. The Jensen difference, H((x + y) / 2) - (H(x) + H(y)) / 2, is (Fuglede
& Topsoe 2004, ISIT p. 31), and so is its root, a metric (Endres & Schindelin 2003, IEEE Trans. Inf. Theory 49:1858). As
formulae the Jensen-Shannon divergence and the Jensen difference are one and the same; here the former name is given to
the root, the Jensen-Shannon distance. Topsoe's is twice the Jensen difference.
"""

from torch import Tensor

from sbi_da.alignment.metrics.metric import Metric, positive, root

__all__ = ["METRICS"]


def kullback_leibler(x: Tensor, y: Tensor) -> Tensor:
    """Information lost when y stands for x."""
    x, y = positive(x), positive(y)
    return (x * (x.log() - y.log())).sum(-1)


def jeffreys(x: Tensor, y: Tensor) -> Tensor:
    """Kullback and Leibler's, both ways."""
    x, y = positive(x), positive(y)
    return ((x - y) * (x.log() - y.log())).sum(-1)


def k_divergence(x: Tensor, y: Tensor) -> Tensor:
    """Information lost when the mean of both stands for x."""
    x, y = positive(x), positive(y)
    return (x * (x.log() - ((x + y) / 2).log())).sum(-1)


def topsoe(x: Tensor, y: Tensor) -> Tensor:
    """K divergence, both ways."""
    x, y = positive(x), positive(y)
    mean = ((x + y) / 2).log()
    return (x * (x.log() - mean) + y * (y.log() - mean)).sum(-1)


def jensen_shannon(x: Tensor, y: Tensor) -> Tensor:
    """Root of the mean information lost when the mean of both stands for each."""
    return root(topsoe(x, y) / 2)


def jensen_difference(x: Tensor, y: Tensor) -> Tensor:
    """Entropy of the mean less the mean of the entropies."""
    x, y = positive(x), positive(y)
    mean = (x + y) / 2
    return ((x * x.log() + y * y.log()) / 2 - mean * mean.log()).sum(-1)


METRICS = (
    Metric(
        "kullback_leibler", "shannon", kullback_leibler, "sum x ln(x / y)", valid_kernel=False, needs_nonnegative=True
    ),
    Metric("jeffreys", "shannon", jeffreys, "sum (x - y) ln(x / y)", valid_kernel=False, needs_nonnegative=True),
    Metric(
        "k_divergence", "shannon", k_divergence, "sum x ln(2 x / (x + y))", valid_kernel=False, needs_nonnegative=True
    ),
    Metric("topsoe", "shannon", topsoe, "sum [x ln(2 x / (x + y)) + y ln(2 y / (x + y))]", needs_nonnegative=True),
    Metric(
        "jensen_shannon",
        "shannon",
        jensen_shannon,
        "sqrt(1/2 sum [x ln(2 x / (x + y)) + y ln(2 y / (x + y))])",
        needs_nonnegative=True,
    ),
    Metric(
        "jensen_difference",
        "shannon",
        jensen_difference,
        "sum [(x ln x + y ln y) / 2 - (x + y) / 2 ln((x + y) / 2)]",
        needs_nonnegative=True,
    ),
)
