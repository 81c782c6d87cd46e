r"""Classes: a finite number of codes with given probabilities.

The codes are :math:`0 \dots K-1`. Each fills a cell of width one, :math:`[k-\frac12, k+\frac12)`, evenly with its probability
:math:`p_k`, so that the distribution function :math:`F(x)` is piecewise linear, :math:`\int_{-1/2}^{K-1/2} p = 1`, and the normal score
of a code is that of the middle of its cell, :math:`\Phi^{-1}(\sum_{j<k} p_j + p_k/2)`. The quantile is a step function: whatever
the score, a draw is a code.
"""

from typing import Literal

import numpy as np
from pydantic import model_validator

from sbi_da.distributions.law import Array, Distribution

__all__ = ["Categorical"]


class Categorical(Distribution):
    """Codes 0 to K-1, with probabilities.

    Attributes:
        probabilities: of each class; they sum to one.
        names: of each class, in the same order.
    """

    kind: Literal["categorical"] = "categorical"
    probabilities: tuple[float, ...]
    names: tuple[str, ...]

    @model_validator(mode="after")
    def _check(self) -> "Categorical":
        if len(self.names) != len(self.probabilities) or len(set(self.names)) != len(self.names) or not self.names:
            raise ValueError(f"names must be {len(self.probabilities)} different names, one for each probability")
        if min(self.probabilities) <= 0 or abs(sum(self.probabilities) - 1) > 1e-9:
            raise ValueError("probabilities must be positive and sum to 1")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """The outer edges of the first and the last cell, -1/2 and K - 1/2."""
        return -0.5, len(self.names) - 0.5

    def code(self, x: Array) -> np.ndarray:
        """The code whose cell holds ``x``, int64; values beyond the cells take the nearest code."""
        return np.clip(np.floor(np.asarray(x, float) + 0.5), 0, len(self.names) - 1).astype(int)

    def log_density(self, x: Array) -> Array:
        return np.log(np.array(self.probabilities))[self.code(np.nan_to_num(x))] + 0 * np.asarray(x)

    def mass(self, a: Array, b: Array) -> Array:
        edges = np.arange(len(self.names) + 1) - 0.5
        left = np.concatenate([[0.0], np.cumsum(self.probabilities)])
        right = np.concatenate([np.cumsum(self.probabilities[::-1])[::-1], [0.0]])
        below = np.interp(b, edges, left) - np.interp(a, edges, left)
        above = np.interp(a, edges, right) - np.interp(b, edges, right)
        # Each difference is exact near the end it is measured from.
        return np.maximum(np.where(np.interp(b, edges, left) < 0.5, below, above), 0.0)

    def quantile(self, low: Array, high: Array, below: Array, above: Array) -> Array:
        cumulative = np.cumsum(self.probabilities)
        reached = np.where(below < above, below + self.mass(-0.5, low), 1.0 - (above + self.mass(high, self.bounds[1])))
        return np.minimum(np.searchsorted(cumulative, reached, side="right"), len(self.names) - 1).astype(float)
