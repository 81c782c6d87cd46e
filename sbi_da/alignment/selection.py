r"""Choosing among adapted classifiers without a label of reality.

Under covariate shift, where :math:`p(y \mid z)` is the same in both domains, the risk on real objects is a weighted mean over held-out
simulated ones, with :math:`w(z) = p_\mathrm{real}(z) / p_\mathrm{sim}(z)` from a classifier of the domain (Sugiyama et al. 2007,
JMLR 8, 985):

.. math:: R_\mathrm{IWV} = \mathrm{mean}(w \ell), \qquad
    R_\mathrm{DEV} = \mathrm{mean}(w \ell) + \eta\,(\mathrm{mean}(w) - 1), \quad \eta = -\frac{\mathrm{cov}(w \ell, w)}{\mathrm{var}(w)},

the latter with less variance, because the mean of w is known to be one (You et al. 2019, PMLR 97, 7124). Both are blind to a class that
moved onto another in feature space. Where the domains do not overlap their weights mean nothing: few objects are then effective.

From real outputs alone: the mean entropy, least for a classifier sure of itself; the information :math:`H(\bar p) - \mathrm{mean}\,H(p_j)`,
which, unlike it, does not reward calling everything by one name; and the soft neighbourhood density (Saito et al. 2021, arXiv 2108.10860),
the entropy of each object's similarities to all others, greatest for outputs in dense clusters; it too is fooled by a single cluster. No
criterion is safe alone: ``select`` takes the mean of their ranks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.special import log_softmax, xlogy
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler

from sbi_da.errors import SbiDaError, UnknownNameError

__all__ = [
    "CRITERIA", "Candidate", "Risk", "Selection", "deep_embedded_validation", "domain_weights", "importance_weighted_validation",
    "information", "mean_entropy", "select", "soft_neighbourhood_density",
]

LEAST = 20
"""Fewest effective objects for a weighted risk to take part in a choice."""
ROWS = 1024
"""Rows of the similarity matrix at a time."""


@dataclass(frozen=True)
class Risk:
    """Estimate of a mean loss on real objects.

    Attributes:
        value: the estimate.
        error: its standard error, the weights taken as known.
        effective: number of simulated objects that carry the weight, no more than the sum of the weights.
    """

    value: float
    error: float
    effective: float


@dataclass(frozen=True)
class Candidate:
    """What is known of a trained classifier without real labels.

    Attributes:
        losses: of held-out simulated objects, shape ``(n,)``.
        simulated: their features, shape ``(n, width)``.
        real: features of real objects, shape ``(m, width)``.
        probabilities: class probabilities of those, shape ``(m, class)``.
    """

    losses: np.ndarray
    simulated: np.ndarray
    real: np.ndarray
    probabilities: np.ndarray


@dataclass(frozen=True)
class Selection:
    """Outcome of a choice.

    Attributes:
        chosen: name of the candidate with the least mean rank.
        order: names, the best first.
        scores: criteria of every candidate, whether they counted or not; ``effective`` beside them.
        ranks: mean ranks.
    """

    chosen: str
    order: tuple[str, ...]
    scores: Mapping[str, Mapping[str, float]]
    ranks: Mapping[str, float] = field(default_factory=dict)


def domain_weights(simulated: np.ndarray, real: np.ndarray, folds: int = 5, strength: float = 1.0, seed: int = 0) -> np.ndarray:
    """Density ratios of real to simulated features at the simulated ones, by cross-fitted logistic regression.

    Args:
        simulated: shape ``(n, width)``.
        real: shape ``(m, width)``.
        folds: the weight of an object comes from a fit without it.
        strength: of the ridge on standardised features.
        seed: of the folds.

    Returns:
        Shape ``(n,)``, not rescaled: their mean is near one where the ratio is right.

    Raises:
        SbiDaError: fewer objects on a side than folds, values that are not finite, or widths that differ.
    """
    simulated, real = np.asarray(simulated, float), np.asarray(real, float)
    if simulated.ndim != 2 or real.ndim != 2 or simulated.shape[1] != real.shape[1] or min(len(simulated), len(real)) < folds:
        raise SbiDaError(
            f"domain weights need features of one width and {folds} objects a side, got {simulated.shape} and {real.shape}"
        )
    features = np.concatenate([simulated, real])
    if not np.isfinite(features).all():
        raise SbiDaError("domain weights need finite features: leave out objects without any")
    domain = np.repeat([0, 1], [len(simulated), len(real)])
    features = StandardScaler().fit_transform(features)
    weights = np.empty(len(simulated))
    for fitted, held in StratifiedKFold(folds, shuffle=True, random_state=seed).split(features, domain):
        model = LogisticRegression(C=1.0 / strength, max_iter=2000).fit(features[fitted], domain[fitted])
        held = held[domain[held] == 0]
        sizes = np.bincount(domain[fitted])
        weights[held] = np.exp(np.clip(model.decision_function(features[held]), -50, 50)) * sizes[0] / sizes[1]
    return weights


def importance_weighted_validation(losses: np.ndarray, weights: np.ndarray) -> Risk:
    """Weighted mean of held-out simulated losses, both of shape ``(n,)``.

    Raises:
        SbiDaError: fewer than two objects, or shapes that differ.
    """
    losses, weights = _weighted(losses, weights)
    return _risk(weights * losses, weights)


def deep_embedded_validation(losses: np.ndarray, weights: np.ndarray) -> Risk:
    """The same with the weights as control variate; equal to it where all weights are alike.

    Raises:
        SbiDaError: fewer than two objects, or shapes that differ.
    """
    losses, weights = _weighted(losses, weights)
    product = weights * losses
    variance = weights.var(ddof=1)
    eta = -np.cov(product, weights)[0, 1] / variance if variance > 0 else 0.0
    return _risk(product + eta * (weights - 1.0), weights)


def mean_entropy(probabilities: np.ndarray) -> float:
    """Mean entropy of real outputs ``(m, class)`` [nats]: less is better."""
    p = _outputs(probabilities)
    return float(-xlogy(p, p).sum(1).mean())


def information(probabilities: np.ndarray) -> float:
    """Information between object and class in real outputs ``(m, class)`` [nats]: more is better."""
    mean = _outputs(probabilities).mean(0)
    return float(-xlogy(mean, mean).sum() - mean_entropy(probabilities))


def soft_neighbourhood_density(probabilities: np.ndarray, temperature: float = 0.05) -> float:
    """Mean entropy of the similarities of each real output ``(m, class)`` to the others [nats]: more is better.

    Raises:
        SbiDaError: fewer than two objects, or a temperature that is not positive.
    """
    p = _outputs(probabilities)
    if len(p) < 2 or not temperature > 0:
        raise SbiDaError(f"neighbourhood density needs two objects and a positive temperature, got {len(p)} and {temperature:g}")
    unit = p / np.linalg.norm(p, axis=1, keepdims=True)
    total = 0.0
    for start in range(0, len(unit), ROWS):
        similarity = unit[start : start + ROWS] @ unit.T / temperature
        rows = np.arange(len(similarity))
        similarity[rows, start + rows] = -np.inf
        log_q = log_softmax(similarity, axis=1)
        log_q[rows, start + rows] = 0.0
        q = np.exp(log_q)
        q[rows, start + rows] = 0.0
        total -= float((q * log_q).sum())
    return total / len(unit)


CRITERIA: dict[str, bool] = {"source": False, "iwv": False, "dev": False, "entropy": False, "information": True, "snd": True}
"""Criteria by name, and whether more is better."""


def select(
    candidates: Mapping[str, Candidate], criteria: Sequence[str] = ("dev", "information", "snd"), seed: int = 0
) -> Selection:
    """Rank candidates by the mean of their ranks under several criteria; ties go to the better first criterion.

    Args:
        candidates: by name.
        criteria: names of :data:`CRITERIA` that count. A weighted risk with fewer than 20 effective objects ranks last.
        seed: of the folds of the domain classifiers.

    Raises:
        SbiDaError: no candidate or no criterion.
        UnknownNameError: a criterion that is none.
    """
    if not candidates or not criteria:
        raise SbiDaError("nothing to select: give candidates and criteria")
    for name in criteria:
        if name not in CRITERIA:
            raise UnknownNameError("criterion", name, list(CRITERIA))
    scores = {name: _scores(candidate, seed) for name, candidate in candidates.items()}
    places = np.zeros((len(criteria), len(scores)))
    for i, name in enumerate(criteria):
        values = np.array([s[name] for s in scores.values()]) * (-1 if CRITERIA[name] else 1)
        if name in ("iwv", "dev"):
            values = np.where([s["effective"] >= LEAST for s in scores.values()], values, np.inf)
        # Mean place of equals, so that a criterion that cannot tell two candidates apart does not.
        places[i] = [(values < v).sum() + ((values == v).sum() - 1) / 2 for v in values]
    mean = places.mean(0)
    order = sorted(range(len(scores)), key=lambda j: (mean[j], places[0, j], j))
    names = list(scores)
    return Selection(
        chosen=names[order[0]],
        order=tuple(names[j] for j in order),
        scores=scores,
        ranks={name: float(mean[j]) for j, name in enumerate(names)},
    )


def _scores(candidate: Candidate, seed: int) -> dict[str, float]:
    """All criteria of a candidate."""
    weights = domain_weights(candidate.simulated, candidate.real, seed=seed)
    iwv = importance_weighted_validation(candidate.losses, weights)
    return {
        "source": float(np.mean(candidate.losses)),
        "iwv": iwv.value,
        "dev": deep_embedded_validation(candidate.losses, weights).value,
        "entropy": mean_entropy(candidate.probabilities),
        "information": information(candidate.probabilities),
        "snd": soft_neighbourhood_density(candidate.probabilities),
        "effective": iwv.effective,
    }


def _risk(terms: np.ndarray, weights: np.ndarray) -> Risk:
    total = weights.sum()
    # Without overlap all weights are about alike and almost zero: the sum, which should be the number of objects, tells.
    effective = min(total, total**2 / (weights**2).sum()) if total > 0 else 0.0
    return Risk(float(terms.mean()), float(terms.std(ddof=1) / np.sqrt(len(terms))), float(effective))


def _weighted(losses: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    losses, weights = np.asarray(losses, float), np.asarray(weights, float)
    if losses.ndim != 1 or losses.shape != weights.shape or len(losses) < 2 or not (weights >= 0).all():
        raise SbiDaError(
            f"a weighted risk needs losses and weights that are not negative, of the same two objects or more; got shapes {losses.shape} "
            f"and {weights.shape}"
        )
    return losses, weights


def _outputs(probabilities: np.ndarray) -> np.ndarray:
    p = np.asarray(probabilities, float)
    if p.ndim != 2 or not len(p) or not np.isfinite(p).all() or not (p >= 0).all():
        raise SbiDaError(f"class probabilities of real objects (m, class) are needed, finite and not negative; got shape {p.shape}")
    return p
