"""What a metric is: a named function of two vectors, and what is known of the kernel it makes.

A distance d makes the kernel exp(-d / h); a similarity is the kernel itself. A kernel yields a discrepancy that is
positive for unequal laws only if it is positive definite. By Schoenberg's theorem (1938, Trans. AMS 44:522) exp(-d / h)
is so for every h > 0 exactly if d is conditionally negative definite: sum_ij c_i c_j d(x_i, x_j) <= 0 for sum_i c_i = 0.

Denominators, roots and logarithms are guarded so that values and gradients are finite; the guards are small enough to
leave the textbook's digits alone, and are added rather than clipped, which keeps definite kernels definite.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["FLOOR", "Metric", "positive", "ratio", "root"]

FLOOR = 1e-8
"""Least entry of a vector whose logarithm, root or reciprocal is taken."""


@dataclass(frozen=True)
class Metric:
    """One metric of the taxonomy of Cha (2007, Int. J. Math. Models Methods Appl. Sci. 1:300).

    Attributes:
        name: in configs.
        family: of the taxonomy.
        function: of x, shape ``(n, 1, d)``, and y, shape ``(1, m, d)``, to shape ``(n, m)``; where ``weighted``, also of
            weights of the features, shape ``(d,)``.
        formula: of that function.
        similarity: large for vectors that are alike, and itself the kernel; else a distance.
        valid_kernel: whether the kernel is positive definite for every bandwidth and width.
        needs_nonnegative: whether the domain is that of distributions: non-negative vectors that sum to one.
        weighted: whether the features have weights.
    """

    name: str
    family: str
    function: Callable[..., Tensor] = field(repr=False)
    formula: str
    similarity: bool = False
    valid_kernel: bool = True
    needs_nonnegative: bool = False
    weighted: bool = False

    def __call__(self, x: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
        """Every row of one batch against every row of another.

        Args:
            x: shape ``(n, d)``.
            y: shape ``(m, d)``.
            weight: of the features, shape ``(d,)``, if the metric is weighted; None: all one.

        Returns:
            Shape ``(n, m)``.
        """
        x, y = x[:, None], y[None]
        if not self.weighted:
            return self.function(x, y)
        return self.function(x, y, x.new_ones(x.shape[-1]) if weight is None else weight)


def positive(x: Tensor) -> Tensor:
    """At least ``FLOOR``."""
    return x.clamp_min(FLOOR)


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Quotient with a non-negative denominator; 0 / 0 is 0."""
    return numerator / (denominator + FLOOR)


def root(squared: Tensor) -> Tensor:
    """Square root, smooth at zero."""
    return torch.sqrt(squared.clamp_min(0.0) + 1e-12)
