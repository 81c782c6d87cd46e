r"""Anomaly scores of real objects, and rejecting those of no known class. A high score is an unlike object.

- ``entropy_score``: :math:`H(p)` [nats], what DeepAstroUDA rejects by (Ciprijanovic et al. 2023). Blind to an object far from
  everything that lies deep on one side of the decision boundaries.

Distances to simulated neighbours are in :mod:`sbi_da.normality`.
Scores are comparable within a domain. A shift between the domains raises those of all real objects: fit and judge on aligned
features, or choose the threshold by the fraction to be looked at. One by simulated scores, ``threshold``, holds where domains agree.
"""

import numpy as np
from scipy.special import xlogy

from sbi_da.errors import SbiDaError

__all__ = ["entropy_score", "reject", "threshold"]



def entropy_score(probabilities: np.ndarray) -> np.ndarray:
    """Entropy of class probabilities ``(object, class)`` [nats], shape ``(object,)``."""
    p = np.asarray(probabilities, float)
    return -xlogy(p, p).sum(-1)


def reject(probabilities: np.ndarray, rho: float | None = None) -> np.ndarray:
    """Objects of no known class, as entropy separation has it.

    Args:
        probabilities: shape ``(object, class)``.
        rho: boundary [nats], as the separation ended with; None: half of the highest entropy.

    Returns:
        True where the entropy exceeds the boundary, shape ``(object,)``.
    """
    boundary = np.log(np.shape(probabilities)[-1]) / 2 if rho is None else rho
    return entropy_score(probabilities) > boundary


def threshold(scores: np.ndarray, rejected: float = 0.05) -> float:
    """Score that a fraction ``rejected`` of held-out simulated objects exceeds.

    Raises:
        SbiDaError: no score, or a fraction outside (0, 1).
    """
    scores = np.asarray(scores, float)
    if not scores.size or not 0 < rejected < 1:
        raise SbiDaError(f"a threshold needs scores and a fraction in (0, 1), got {scores.size} scores and {rejected:g}")
    return float(np.quantile(scores, 1 - rejected))
