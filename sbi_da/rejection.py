"""Objects that are like none an estimator of classes, votes or labels was trained on: known or rejected, by a share of simulations.

``anomaly``: how unlike its classes the object's context is (:mod:`sbi_da.normality`). ``entropy``: how undecided the class
probabilities are (:func:`sbi_da.alignment.anomalies.reject`), as DeepAstroUDA has it; of classes alone. In either case the threshold is
the score that the given share of held-out simulations exceeds. A domain shift raises the scores of all real objects: of these, even of
known classes, more are rejected.
"""

from typing import Literal

import numpy as np

from sbi_da.alignment.anomalies import reject, threshold
from sbi_da.errors import SbiDaError
from sbi_da.normality import Normality

__all__ = ["KNOWN", "NO_DATA", "REJECTED", "Score", "check_rejection", "rejected", "statuses"]

Score = Literal["anomaly", "entropy"]
KNOWN, REJECTED, NO_DATA = "known", "rejected", "no_data"
"""Statuses of objects; nothing is said of one without data."""


def check_rejection(normality: Normality | None, share: float, by: Score) -> Normality:
    """What is normal, or a clear error.

    Raises:
        SbiDaError: a share outside 0 to 1, a score that is none, or one the estimator has not learned.
    """
    if not 0 <= share < 1:
        raise SbiDaError(f"reject: the share of simulations to reject lies between 0 and 1, and is not {share:g}")
    if by not in ("anomaly", "entropy"):
        raise SbiDaError(f"reject: unknown score {by!r}: known are anomaly, entropy")
    if normality is None:
        raise SbiDaError("reject: this estimator has not learned what is normal: train it again")
    if by == "entropy" and normality.entropies is None:
        raise SbiDaError("reject: this estimator knows no entropies of simulated classes: reject by anomaly, or train it again")
    return normality


def rejected(
    normality: Normality | None, share: float, anomaly: np.ndarray, probabilities: np.ndarray | None = None, by: Score = "anomaly"
) -> np.ndarray:
    """Objects whose score exceeds that of all but a share of held-out simulations.

    Args:
        normality: of the estimator.
        share: of simulations that are rejected; 0: what lies beyond all of them.
        anomaly: scores of :meth:`~sbi_da.estimator.Estimator.anomaly`, shape ``(object,)``; NaN is not rejected.
        probabilities: of classes under the fractions of the training, shape ``(object, class)``; for the entropy.
        by: the score.

    Raises:
        SbiDaError: see :func:`check_rejection`.
    """
    known = check_rejection(normality, share, by)
    if by == "anomaly" or known.entropies is None or probabilities is None:
        return np.asarray(anomaly) > 1 - share
    return reject(probabilities, threshold(known.entropies, share) if share else float(known.entropies[-1]))


def statuses(rejected: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """:data:`KNOWN`, :data:`REJECTED` or, where nothing was seen, :data:`NO_DATA`; shape ``(object,)``."""
    return np.where(seen, np.where(rejected, REJECTED, KNOWN), NO_DATA)
