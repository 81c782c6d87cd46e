r"""Classes of real objects from a classifier that is right about its surest ones only: a mixture in a few physical features.

A network trained on simulations ranks real objects better than it classifies them: its probabilities are off, and estimates of class
fractions that trust them fail. Here the objects it is surest of seed a mixture of one Student law per class in a few features (what is
measured of the object, and the network's own logits), which EM then fits to all,

.. math:: q_{ik} \propto w_k\, t_\nu(x_i; \mu_k, \Sigma_k), \qquad w_k \leftarrow \bar q_k, \qquad
   \mu_k, \Sigma_k \leftarrow \text{moments weighted by } q_{ik},

covariances of rare classes drawn towards the pooled one. A density says where classes part without any threshold of the network's; a
regression on its own answers (tried first) only confirms them. The result is as good as the features: where classes overlap in them, or
do not look like one cloud each, it goes wrong with confidence.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp
from sklearn.preprocessing import StandardScaler

from sbi_da.errors import SbiDaError

__all__ = ["Refined", "physical_features", "refine"]

LEAST = 0.02
"""Of a class fraction."""
CLIP = 6.0
SHRINK, RIDGE, TAILS = 5.0, 0.05, 8.0
"""Of covariances: objects a feature that a class's own counts as much as the pooled one; added variance; degrees of freedom."""


@dataclass(frozen=True)
class Refined:
    """Outcome of :func:`refine`.

    Attributes:
        probabilities: under the fractions, shape ``(object, class)``.
        balanced: as if all classes were as common, same shape.
        fractions: of the classes, shape ``(class,)``.
    """

    probabilities: np.ndarray
    balanced: np.ndarray
    fractions: np.ndarray

    @property
    def lessons(self) -> np.ndarray:
        """Weights of a cross-entropy in which all classes count alike, shape ``(object, class)``, of mean one over objects and classes."""
        share = self.probabilities.sum(0).clip(1e-9)
        return self.probabilities * len(self.probabilities) / (share * len(share))


def physical_features(summaries: np.ndarray, log_probabilities: np.ndarray, chosen: tuple[int, ...]) -> np.ndarray:
    """Features of the mixture: some summaries, and the contrasts of the network's log-probabilities.

    Args:
        summaries: of the objects, shape ``(object, summary)``.
        log_probabilities: of the network, shape ``(object, class)``.
        chosen: which of the summaries.
    """
    x = summaries[:, list(chosen)]
    contrasts = (log_probabilities - log_probabilities.mean(1, keepdims=True))[:, :-1].clip(-CLIP, CLIP)
    spread = (x - np.median(x, 0)) / (1.4826 * np.median(np.abs(x - np.median(x, 0)), 0)).clip(1e-6)
    return np.concatenate([spread.clip(-4, 4), contrasts], axis=1)


def refine(features: np.ndarray, balanced: np.ndarray, share: float = 0.45, iterations: int = 40) -> Refined:
    """Classify real objects anew.

    Args:
        features: shape ``(object, feature)``.
        balanced: probabilities of a classifier under equal class fractions, shape ``(object, class)``.
        share: of the objects that seed the mixture.
        iterations: of EM.

    Raises:
        SbiDaError: too few objects to seed every class.
    """
    n, classes = balanced.shape
    guess = np.bincount(balanced.argmax(1), minlength=classes) / n
    counts = np.floor(n * share * 0.5 * (1 / classes + guess)).astype(int)
    if n < 10 * classes or counts.min() < 3:
        raise SbiDaError(f"refinement needs more than {n} real objects to find the surest of {classes} classes: give more or switch it off")
    x = StandardScaler().fit_transform(features)
    margin = np.log(balanced.clip(1e-9)) - np.log((1 - balanced).clip(1e-9))
    weights = np.zeros((n, classes))
    for k, count in enumerate(counts):
        weights[np.argsort(margin[:, k])[-count:], k] = 1.0
    weights[weights.sum(1) > 1] = 0.0  # claimed by two classes: sure of none
    fractions = 0.5 * (1 / classes + guess)
    densities = _densities(x, weights)
    for _ in range(iterations):
        q = _shares(densities, fractions)
        fractions = q.mean(0).clip(LEAST)
        fractions /= fractions.sum()
        densities = _densities(x, q)
    return Refined(_shares(densities, fractions), _shares(densities, np.full(classes, 1 / classes)), fractions)


def _shares(densities: np.ndarray, fractions: np.ndarray) -> np.ndarray:
    joint = densities + np.log(fractions)
    return np.exp(joint - logsumexp(joint, axis=1, keepdims=True))


def _densities(x: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Log-densities of Student laws fitted to weighted objects, shape ``(object, class)``."""
    n, width = x.shape
    total = weights.sum(0).clip(1e-9)
    means = (weights.T @ x) / total[:, None]
    scatter = [((weights[:, k, None] * (x - m)).T @ (x - m)) / total[k] for k, m in enumerate(means)]
    pooled = sum(t * s for t, s in zip(total, scatter, strict=True)) / total.sum()
    out = np.empty((n, len(means)))
    for k, (mean, own) in enumerate(zip(means, scatter, strict=True)):
        trust = total[k] / (total[k] + SHRINK * width)
        shape = trust * own + (1 - trust) * pooled + RIDGE * np.eye(width)
        root = np.linalg.cholesky(shape)
        square = np.square(np.linalg.solve(root, (x - mean).T)).sum(0)
        out[:, k] = -0.5 * (TAILS + width) * np.log1p(square / TAILS) - np.log(np.diag(root)).sum()
    return out
