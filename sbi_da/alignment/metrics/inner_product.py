"""Inner-product family.

All make positive definite kernels: with a = ||x||^2 + ||y||^2, the quotient <x, y> / (a - <x, y>) is the series of
(<x, y> / a)^n over n >= 1, and powers of 1 / a are positive definite; the distances are one less such a quotient.
The inner product alone sees nothing but the difference of the means. On unit vectors inner product, cosine and Dice's
are the same up to shift and scale.
"""

import torch
from torch import Tensor

from sbi_da.alignment.metrics.metric import Metric, ratio

__all__ = ["METRICS"]


def inner_product(x: Tensor, y: Tensor) -> Tensor:
    """Sum of products."""
    return (x * y).sum(-1)


def harmonic_mean(x: Tensor, y: Tensor) -> Tensor:
    """Sum of harmonic means of entries."""
    return ratio(2 * x * y, x + y).sum(-1)


def cosine(x: Tensor, y: Tensor) -> Tensor:
    """Cosine of the angle."""
    length_x, length_y = (torch.rsqrt(v.square().sum(-1) + 1e-12) for v in (x, y))
    return (x * y).sum(-1) * length_x * length_y


def kumar_hassebrook(x: Tensor, y: Tensor) -> Tensor:
    """Ratio of peak to correlation energy."""
    product = (x * y).sum(-1)
    return ratio(product, x.square().sum(-1) + y.square().sum(-1) - product)


def jaccard(x: Tensor, y: Tensor) -> Tensor:
    """One less Kumar and Hassebrook's."""
    return ratio((x - y).square().sum(-1), x.square().sum(-1) + y.square().sum(-1) - (x * y).sum(-1))


def dice(x: Tensor, y: Tensor) -> Tensor:
    """Squared difference relative to the squared lengths."""
    return ratio((x - y).square().sum(-1), x.square().sum(-1) + y.square().sum(-1))


METRICS = (
    Metric("inner_product", "inner product", inner_product, "sum x y", similarity=True),
    Metric(
        "harmonic_mean",
        "inner product",
        harmonic_mean,
        "2 sum x y / (x + y)",
        similarity=True,
        needs_nonnegative=True,
    ),
    Metric("cosine", "inner product", cosine, "sum x y / sqrt(sum x^2 sum y^2)", similarity=True),
    Metric(
        "kumar_hassebrook",
        "inner product",
        kumar_hassebrook,
        "sum x y / (sum x^2 + sum y^2 - sum x y)",
        similarity=True,
    ),
    Metric("jaccard", "inner product", jaccard, "sum (x - y)^2 / (sum x^2 + sum y^2 - sum x y)"),
    Metric("dice", "inner product", dice, "sum (x - y)^2 / (sum x^2 + sum y^2)"),
)
