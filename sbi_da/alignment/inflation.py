"""How far the uncertainty of a fit can be trusted, place by place, from objects it was not fitted to.

A stationary process is too sure where the truth is rough and not sure enough where it is smooth. Objects held out of the fit say
how likely they are when its covariance is multiplied by a factor; at a place, those near it vote (a local likelihood; Tibshirani &
Hastie 1987, JASA 82, 559), and the factor is the posterior mean under a lognormal prior about 1.
"""

from dataclasses import dataclass

import numpy as np

__all__ = ["FACTORS", "Inflation"]

FACTORS = 2.0 ** np.arange(-5, 9)
"""Factors of the covariance that are tried."""
SPREAD = 1.5
"""Standard deviation of the prior, in powers of two."""
CHUNK = 2000


@dataclass(frozen=True)
class Inflation:
    """Factors of a covariance by place.

    Attributes:
        x: inputs of the objects that vote, shape ``(object, input)``.
        length: distance along each input at which a vote has lost its weight by exp(-1/2), shape ``(input,)``.
        log_density: of each object under every factor of :data:`FACTORS`, shape ``(object, factor)``.
    """

    x: np.ndarray
    length: np.ndarray
    log_density: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Factor at inputs ``(row, input)``, shape ``(row,)``."""
        found = np.empty(len(x))
        prior = -0.5 * (np.log2(FACTORS) / SPREAD) ** 2
        votes = self.log_density - self.log_density.max(1, keepdims=True)
        known = self.x / self.length
        for start in range(0, len(x), CHUNK):
            rows = slice(start, start + CHUNK)
            some = x[rows] / self.length
            square = (some**2).sum(1)[:, None] + (known**2).sum(1) - 2 * some @ known.T
            score = prior + np.exp(-0.5 * np.maximum(square, 0.0)) @ votes
            share = np.exp(score - score.max(1, keepdims=True))
            found[rows] = share @ FACTORS / share.sum(1)
        return found
