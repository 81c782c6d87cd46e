r"""Anomaly scores of real objects, and rejecting those of no known class. A high score is an unlike object.

- ``entropy_score``: :math:`H(p)` [nats], what DeepAstroUDA rejects by (Ciprijanovic et al. 2023). Blind to an object far from
  everything that lies deep on one side of the decision boundaries.
- ``energy_score``: :math:`-\log \sum_k e^{l_k}` of raw logits (Liu et al. 2020, arXiv 2010.03759). A softmax does not know that
  all logits are low; this does.
- ``ClassDistances``: the least squared Mahalanobis distance :math:`(z - \mu_k)^\top S^{-1} (z - \mu_k)` to the class means of
  labelled simulated features with their common scatter :math:`S` (Lee et al. 2018, arXiv 1807.03888). ``relative`` subtracts the
  distance to the mean of all with the scatter of all (Ren et al. 2021, arXiv 2106.09022), which takes away the directions that do
  not tell classes apart.

Scores are comparable within a domain. A shift between the domains raises those of all real objects: fit and judge on aligned
features, or choose the threshold by the fraction to be looked at. One by simulated scores, ``threshold``, holds where domains agree.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import logsumexp, xlogy

from sbi_da.errors import SbiDaError

__all__ = ["ClassDistances", "energy_score", "entropy_score", "reject", "threshold"]

RIDGE = 1e-3
"""Added to scatter matrices, in units of their mean variance."""


def entropy_score(probabilities: np.ndarray) -> np.ndarray:
    """Entropy of class probabilities ``(object, class)`` [nats], shape ``(object,)``."""
    p = np.asarray(probabilities, float)
    return -xlogy(p, p).sum(-1)


def energy_score(logits: np.ndarray) -> np.ndarray:
    """Free energy of raw logits ``(object, class)``, shape ``(object,)``."""
    return -logsumexp(np.asarray(logits, float), axis=-1)


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


@dataclass(frozen=True)
class ClassDistances:
    """Means and scatter of labelled features.

    Attributes:
        means: of the classes that occur, shape ``(class, width)``.
        within: scatter about them, shape ``(width, width)``.
        centre: mean of all, shape ``(width,)``.
        overall: scatter about it, shape ``(width, width)``.
    """

    means: np.ndarray
    within: np.ndarray
    centre: np.ndarray
    overall: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, labels: np.ndarray) -> "ClassDistances":
        """Moments of labelled features.

        Args:
            features: of simulated objects, shape ``(n, width)``.
            labels: class codes, shape ``(n,)``; negative ones are left out.

        Raises:
            SbiDaError: no labelled object, or arrays that do not fit.
        """
        features, labels = np.asarray(features, float), np.asarray(labels)
        if features.ndim != 2 or labels.shape != features.shape[:1] or not (labels >= 0).any():
            raise SbiDaError(
                f"class distances need features (n, width) and the classes of some of them, got {features.shape} and {labels.shape}"
            )
        features, labels = features[labels >= 0], labels[labels >= 0]
        codes, row = np.unique(labels, return_inverse=True)
        means = np.stack([features[labels == k].mean(0) for k in codes])
        centre = features.mean(0)
        return cls(means, _scatter(features - means[row]), centre, _scatter(features - centre))

    def score(self, features: np.ndarray, relative: bool = False) -> np.ndarray:
        """Least squared distance to a class, for features ``(m, width)``; shape ``(m,)``."""
        features = np.asarray(features, float)
        least = np.min([_distance(features - mean, self.within) for mean in self.means], axis=0)
        return least - _distance(features - self.centre, self.overall) if relative else least


def _scatter(residuals: np.ndarray) -> np.ndarray:
    """Second moments, with a ridge that keeps directions without scatter from deciding."""
    moments = residuals.T @ residuals / len(residuals)
    scale = np.trace(moments) / len(moments)
    return moments + (RIDGE * scale if scale > 0 else 1.0) * np.eye(len(moments))


def _distance(residuals: np.ndarray, scatter: np.ndarray) -> np.ndarray:
    return np.einsum("nd,dn->n", residuals, cho_solve(cho_factor(scatter), residuals.T))
