r"""Classes of real objects from a classifier that is right about its surest ones only: a mixture in a few physical features.

A network trained on simulations ranks real objects better than it classifies them: its probabilities are off, and estimates of class
fractions that trust them fail. Here the objects it is surest of seed a multinomial logistic regression on a few features (what is
measured of the object, and the network's own logits), which classification EM (Celeux & Govaert 1992, CSDA 14, 315) carries to all:

.. math:: q_{ik} \propto w_k\, p_k(x_i), \qquad w_k \leftarrow \tfrac12 w_k + \tfrac12 \bar q_k, \qquad
   p \leftarrow \arg\max \sum_k \frac{1}{\bar q_k} \sum_i q_{ik} \log p_k(x_i),

the regression always being fitted as if all classes were as common, so that fractions are learned by w alone. The result is only as good
as the features: where classes overlap in them, or a class the network never gets right seeds none, it goes wrong with confidence. A
regression on its own answers mends a classifier that is somewhat biased, and confirms one that is very biased.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from sbi_da.errors import SbiDaError

__all__ = ["Refined", "physical_features", "refine"]

LEAST = 0.02
"""Of a class fraction."""
CLIP = 6.0


@dataclass(frozen=True)
class Refined:
    """Outcome of :func:`refine`.

    Attributes:
        probabilities: under the fractions, shape ``(object, class)``.
        balanced: as if all classes were as common, same shape.
        fractions: of the classes, shape ``(class,)``.
        weight: how much each object teaches, 0 or 1, shape ``(object,)``.
    """

    probabilities: np.ndarray
    balanced: np.ndarray
    fractions: np.ndarray
    weight: np.ndarray

    def among(self, seen: np.ndarray, balanced: np.ndarray) -> "Refined":
        """The same among more objects, of which only those ``seen`` were refined and the others have ``balanced`` probabilities."""
        every, under = balanced.copy(), balanced * self.fractions
        under /= under.sum(1, keepdims=True)
        every[seen], under[seen] = self.balanced, self.probabilities
        return Refined(under, every, self.fractions, seen.astype(float))

    @property
    def lessons(self) -> np.ndarray:
        """Weights of a cross-entropy in which all classes count alike, shape ``(object, class)``, of mean one over objects and classes."""
        taught = self.probabilities * self.weight[:, None]
        share = taught.sum(0).clip(1e-9)
        return taught * len(taught) / (share * len(share))


def physical_features(summaries: np.ndarray, log_probabilities: np.ndarray, chosen: tuple[int, ...]) -> np.ndarray:
    """Features of the regression: some summaries, their squares, and the contrasts of the network's log-probabilities.

    Args:
        summaries: of the objects, shape ``(object, summary)``.
        log_probabilities: of the network, shape ``(object, class)``.
        chosen: which of the summaries.
    """
    x = summaries[:, list(chosen)]
    contrasts = (log_probabilities - log_probabilities.mean(1, keepdims=True))[:, :-1].clip(-CLIP, CLIP)
    spread = (x - np.median(x, 0)) / (1.4826 * np.median(np.abs(x - np.median(x, 0)), 0)).clip(1e-6)
    spread = spread.clip(-4, 4)
    return np.concatenate([spread, spread**2, contrasts], axis=1)


def refine(
    features: np.ndarray, balanced: np.ndarray, share: float = 0.45, even: float = 0.5, iterations: int = 15, strength: float = 0.3
) -> Refined:
    """Classify real objects anew.

    Args:
        features: shape ``(object, feature)``.
        balanced: probabilities of a classifier under equal class fractions, shape ``(object, class)``.
        share: of the objects that seed the fit.
        even: how alike the classes are in number at first: 1 equal, 0 as the classifier counts them.
        iterations: of EM.
        strength: inverse of the regression's penalty.

    Raises:
        SbiDaError: too few objects to seed every class.
    """
    n, classes = balanced.shape
    fractions = even / classes + (1 - even) * np.bincount(balanced.argmax(1), minlength=classes) / n
    counts = np.floor(n * share * fractions).astype(int)
    if n < 10 * classes or (even and int(n * share * even / classes) < 3):
        raise SbiDaError(f"refinement needs more than {n} real objects to find the surest of {classes} classes: give more or switch it off")
    x = StandardScaler().fit_transform(features)
    margin = np.log(balanced.clip(1e-9)) - np.log((1 - balanced).clip(1e-9))
    weights = np.zeros((n, classes))
    for k, count in enumerate(counts):
        weights[np.argsort(margin[:, k])[n - count :], k] = 1.0
    weights[weights.sum(1) > 1] = 0.0  # claimed by two classes: sure of none
    if weights.sum(0).min() < 3:
        raise SbiDaError(
            f"refinement finds no objects that are surely of class number {int(weights.sum(0).argmin())}: raise refine.even, lower "
            "refine.share, or switch it off"
        )
    model = _fitted(x, weights, strength)
    for _ in range(iterations):
        p = model.predict_proba(x)
        q = p * fractions
        q /= q.sum(1, keepdims=True)
        fractions = (0.5 * fractions + 0.5 * q.mean(0)).clip(LEAST)
        fractions /= fractions.sum()
        model = _fitted(x, q, strength)
    p = model.predict_proba(x)
    q = p * fractions
    return Refined(q / q.sum(1, keepdims=True), p, fractions, np.ones(n))


def _fitted(x: np.ndarray, weights: np.ndarray, strength: float) -> LogisticRegression:
    """A regression on soft labels, all classes counting alike."""
    n, classes = weights.shape
    balanced = weights * (n / classes) / weights.sum(0).clip(1e-9)
    labels = np.repeat(np.arange(classes), n)
    flat = balanced.T.ravel()
    kept = flat > 1e-6
    return LogisticRegression(C=strength, max_iter=500).fit(np.tile(x, (classes, 1))[kept], labels[kept], sample_weight=flat[kept])
