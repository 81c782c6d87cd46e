"""Correlation alignment: the first two moments of both sides, compared directly.

    L = ||C_s - C_t||_F^2 / (4 width^2)  [ + ||mu_s - mu_t||^2 / width ]

(Sun & Saenko 2016, arXiv:1607.01719; the means are an addition, without which a shift goes unseen). This is CORAL of
features divided by sqrt(width), the same convention as for distances: both parts keep their value when every feature is
written out twice. Moments of the simulated side are weighted; covariances are divided by 1 - sum w^2, which is
(n - 1) / n for equal weights. For equal laws the term is not zero but of the order of 1/n + 1/m.
"""

from typing import ClassVar

from torch import Tensor

from sbi_da.alignment.divergences import row_weights
from sbi_da.alignment.term import Term, nothing

__all__ = ["Coral"]


def moments(rows: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased covariance of weighted rows.

    Args:
        rows: shape ``(n, width)``.
        weight: sums to one, shape ``(n,)``.

    Returns:
        Shapes ``(width,)`` and ``(width, width)``.
    """
    mean = weight @ rows
    centred = rows - mean
    return mean, (weight[:, None] * centred).T @ centred / (1 - weight.square().sum())


class Coral(Term):
    """Squared difference of covariances, and of means.

    Args:
        means: also compare the means.
    """

    kind: ClassVar[str] = "coral"

    def __init__(self, means: bool = True) -> None:
        super().__init__()
        self.means = means

    def forward(
        self,
        simulated: Tensor,
        real: Tensor,
        *,
        weight: Tensor | None = None,
        matches: Tensor | None = None,
        cost: Tensor | None = None,
    ) -> Tensor:
        """The term; see :class:`~sbi_da.alignment.term.Term`. Zero unless both sides have two rows that count."""
        weights = row_weights(simulated, real, weight)
        if weights is None:
            return nothing(simulated, real)
        (mean_s, covariance_s), (mean_t, covariance_t) = moments(simulated, weights[0]), moments(real, weights[1])
        width = simulated.shape[-1]
        value = (covariance_s - covariance_t).square().sum() / (4 * width**2)
        return value + (mean_s - mean_t).square().sum() / width if self.means else value
