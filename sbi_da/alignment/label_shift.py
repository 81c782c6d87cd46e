r"""Class fractions of unlabelled real objects, when classes are rarer or commoner there but look the same.

Under label shift only :math:`q_y`, the fraction of class :math:`y`, differs between simulations and reality, and the likelihood of
the real objects is :math:`\prod_i \sum_y q_y \ell_{iy}`, concave in :math:`q`. Two choices of :math:`\ell`:

- ``label_shift_em`` (Saerens, Latinne & Decaestecker 2002): :math:`\ell_{iy} = p(y \mid x_i) / \pi_y` from probabilities under the
  source fractions :math:`\pi`. Efficient, and as good as the probabilities are calibrated.
- ``bbse`` (Lipton, Wang & Smola 2018, arXiv 1802.03916): :math:`\ell_{iy} = p(\hat y_i \mid y)`, the confusion matrix on held-out labelled
  source objects. Needs no calibration. Where inverting that matrix gives fractions, they are the ones found here.

Both maximise by :math:`q_y \leftarrow q_y\, \mathrm{mean}_i\, \ell_{iy} / \sum_k q_k \ell_{ik}`. Neither survives a shift of the
appearance of a class: apply them to features that are aligned within classes, and look at the fractions again afterwards.
"""

from dataclasses import dataclass

import numpy as np

from sbi_da.errors import SbiDaError

__all__ = ["ClassFractions", "bbse", "correct", "label_shift_em", "label_weights"]

LIMITS = (2.5, 97.5)
RESAMPLED = 10_000
"""Most objects in a bootstrap resample; beyond, deviations are scaled by the root of the ratio."""


@dataclass(frozen=True)
class ClassFractions:
    """Fractions of the classes among real objects.

    Attributes:
        fractions: maximum of the likelihood, shape ``(class,)``.
        sd: bootstrap standard deviations.
        low: lower ends of the bootstrap 95 % intervals.
        high: their upper ends.
        trusted: whether the objects constrain every combination of fractions to half of the spread of the flat law over
            fractions, by the curvature of the likelihood. Where classes cannot be told apart, resampling does not show it.
    """

    fractions: np.ndarray
    sd: np.ndarray
    low: np.ndarray
    high: np.ndarray
    trusted: bool


def label_shift_em(
    probabilities: np.ndarray, source_prior: np.ndarray, replicates: int = 200, seed: int = 0
) -> ClassFractions:
    """Fractions from calibrated class probabilities of real objects.

    Args:
        probabilities: of a classifier trained where the fractions are ``source_prior``, shape ``(m, class)``.
        source_prior: shape ``(class,)``, all positive.
        replicates: bootstrap resamples of the objects.
        seed: of the resampling.

    Raises:
        SbiDaError: probabilities or fractions that are none, or no object.
    """
    probabilities = _probabilities(probabilities, "probabilities")
    likelihood = probabilities / _prior(source_prior, probabilities.shape[1], "source_prior")
    m = len(likelihood)
    fractions = _maximise(likelihood, np.full(m, 1.0 / m), np.full(likelihood.shape[1], 1.0 / likelihood.shape[1]))
    rng = np.random.default_rng(seed)
    size = min(m, RESAMPLED)
    start = 0.9 * fractions + 0.1 / len(fractions)
    resamples = []
    for _ in range(replicates):
        rows, counts = np.unique(rng.integers(m, size=size), return_counts=True)
        resamples.append(_maximise(likelihood[rows], counts / size, start))
    return _summary(fractions, np.stack(resamples), np.sqrt(size / m), likelihood, np.ones(m))


def bbse(
    source_probabilities: np.ndarray,
    source_labels: np.ndarray,
    target_probabilities: np.ndarray,
    replicates: int = 200,
    seed: int = 0,
) -> ClassFractions:
    """Fractions from the most probable classes and the confusion of the classifier.

    Args:
        source_probabilities: of labelled source objects not used in training, shape ``(n, class)``.
        source_labels: their classes, integers, shape ``(n,)``.
        target_probabilities: of the real objects, shape ``(m, class)``.
        replicates: bootstrap resamples, of the source objects within classes and of the real objects.
        seed: of the resampling.

    Raises:
        SbiDaError: arrays that do not fit, no object, or a class without labelled objects.
    """
    source = _probabilities(source_probabilities, "source_probabilities")
    target = _probabilities(target_probabilities, "target_probabilities")
    classes = source.shape[1]
    labels = np.asarray(source_labels)
    if target.shape[1] != classes or labels.shape != source.shape[:1] or not np.isin(labels, np.arange(classes)).all():
        raise SbiDaError(f"bbse: source_labels must be classes 0 to {classes - 1}, one a row of source_probabilities, and "
                         f"target_probabilities have {classes} columns; got {labels.shape}, {source.shape} and {target.shape}")
    confusion = np.zeros((classes, classes))
    np.add.at(confusion, (source.argmax(1), labels), 1.0)
    per_class = confusion.sum(0)
    if not per_class.all():
        raise SbiDaError(f"bbse: no labelled source object of class {int(per_class.argmin())}: add some or drop the class")
    rate = confusion / per_class
    observed = np.bincount(target.argmax(1), minlength=classes) / len(target)
    fractions = _maximise(rate, observed, _inverted(rate, observed))
    rng = np.random.default_rng(seed)
    resamples = []
    for _ in range(replicates):
        drawn = np.stack([rng.multinomial(int(n), p) / n for n, p in zip(per_class, rate.T, strict=True)], axis=1)
        seen = rng.multinomial(len(target), observed) / len(target)
        resamples.append(_maximise(drawn, seen, _inverted(drawn, seen)))
    return _summary(fractions, np.stack(resamples), 1.0, rate, observed * len(target))


def correct(probabilities: np.ndarray, source_prior: np.ndarray, target_prior: np.ndarray) -> np.ndarray:
    """Class probabilities under other fractions.

    Args:
        probabilities: under ``source_prior``, shape ``(m, class)``.
        source_prior: shape ``(class,)``, all positive.
        target_prior: shape ``(class,)``; may hold zeros.

    Returns:
        Shape ``(m, class)``; the target fractions for an object that can only be of classes which do not occur.
    """
    probabilities = _probabilities(probabilities, "probabilities")
    classes = probabilities.shape[1]
    target = _prior(target_prior, classes, "target_prior", positive=False)
    joint = probabilities * target / _prior(source_prior, classes, "source_prior")
    total = joint.sum(1, keepdims=True)
    return np.where(total > 0, joint / np.where(total > 0, total, 1.0), target)


def label_weights(
    labels: np.ndarray, source_prior: np.ndarray, target_prior: np.ndarray, clip: float = 20.0
) -> np.ndarray:
    """Weights that give labelled source objects the target's fractions; shape of ``labels``, none above ``clip``."""
    source = _prior(source_prior, len(source_prior), "source_prior")
    return np.minimum(_prior(target_prior, len(source), "target_prior", positive=False) / source, clip)[np.asarray(labels)]


def _maximise(
    likelihood: np.ndarray, weight: np.ndarray, start: np.ndarray, iterations: int = 5000, tolerance: float = 1e-8
) -> np.ndarray:
    """Fractions that maximise the weighted mean log-likelihood; ``likelihood`` has shape ``(m, class)``."""
    q = start
    for _ in range(iterations):
        marginal = likelihood @ q
        before, q = q, q * ((weight / np.maximum(marginal, 1e-300)) @ likelihood)
        if not q.sum() > 0:  # no class explains any object
            return start
        q = q / q.sum()
        if np.abs(q - before).max() < tolerance:
            break
    return q


def _inverted(rate: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Solution of ``rate @ q = observed``, made positive: where to start."""
    q = np.maximum(np.linalg.lstsq(rate, observed, rcond=1e-6)[0], 1e-3 / len(rate))
    return q / q.sum()


def _summary(
    fractions: np.ndarray, resamples: np.ndarray, scale: float, likelihood: np.ndarray, count: np.ndarray
) -> ClassFractions:
    """Bootstrap figures, and what the curvature of the likelihood along the simplex says."""
    spread = (resamples - fractions) * scale
    low, high = np.clip(fractions + np.percentile(spread, LIMITS, axis=0), 0.0, 1.0)
    classes = len(fractions)
    score = likelihood / np.maximum(likelihood @ fractions, 1e-300)[:, None]
    along = np.linalg.svd(np.ones((1, classes)))[2][1:]
    information = along @ (score * count[:, None]).T @ score @ along.T
    flat_variance = 1.0 / (classes * (classes + 1.0))  # of the flat law, along any unit direction in the simplex
    trusted = classes == 1 or bool(np.linalg.eigvalsh(information)[0] > 4.0 / flat_variance)
    return ClassFractions(fractions, spread.std(0), low, high, trusted)


def _probabilities(x: np.ndarray, name: str) -> np.ndarray:
    """Rows that sum to one."""
    x = np.asarray(x, float)
    if x.ndim != 2 or 0 in x.shape or not (x >= 0).all() or not np.allclose(x.sum(1), 1.0, atol=1e-3):
        raise SbiDaError(f"{name} must be (object, class), not empty, with rows that sum to one; got shape {x.shape}")
    return x / x.sum(1, keepdims=True)


def _prior(x: np.ndarray, classes: int, name: str, positive: bool = True) -> np.ndarray:
    """Fractions that sum to one."""
    x = np.asarray(x, float)
    if x.shape != (classes,) or not (x >= 0).all() or not np.isfinite(x).all() or not x.sum() > 0:
        raise SbiDaError(f"{name} must be {classes} fractions of classes, not negative; got {x.tolist()}")
    if positive and not x.all():
        raise SbiDaError(f"{name}: class {int(x.argmin())} has fraction zero, so nothing was learned of it: drop the class")
    return x / x.sum()
