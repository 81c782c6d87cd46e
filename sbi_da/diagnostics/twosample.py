"""Classifier two-sample test (Lopez-Paz & Oquab 2017, arXiv:1610.06545), set up as by Lueckmann et al. (2021)."""

import warnings

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold
from sklearn.neural_network import MLPClassifier

from sbi_da.errors import SbiDaError

__all__ = ["c2st"]


def c2st(
    x: np.ndarray, y: np.ndarray, folds: int = 5, seed: int = 0, max_n: int | None = 10_000, quick: bool = False
) -> tuple[float, float]:
    """Cross-validated accuracy of a classifier that tells two samples apart: 0.5 if it cannot, 1 if it always can.

    Both samples are scaled by the mean and standard deviation of ``x``, cut at random to one size, and given to a
    network with two hidden layers of ten units per dimension.

    Args:
        x: reference sample, shape ``(draw, parameter)``.
        y: other sample, shape ``(draw, parameter)``.
        folds: of the cross-validation.
        seed: of subsampling, folds and network; the result is a function of it.
        max_n: most draws used of each sample; None for all.
        quick: at most 2000 draws and early stopping: seconds rather than minutes, slightly lower accuracy.

    Returns:
        Accuracy on held-out draws, and its standard error: the larger of the binomial one and that of the folds.

    Raises:
        SbiDaError: shapes that differ, values that are not finite, or fewer draws than folds.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise SbiDaError(f"c2st compares (draw, parameter) samples of the same parameters, got {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise SbiDaError("c2st: a sample holds values that are not finite: remove them first")
    n = min(len(x), len(y), *([max_n] if max_n else []), *([2000] if quick else []))
    if n < folds:
        raise SbiDaError(f"c2st: {n} draws cannot be split into {folds} folds")
    rng = np.random.default_rng(seed)
    scale = x.std(0)
    centre, scale = x.mean(0), np.where(scale > 0, scale, 1.0)
    sample = np.concatenate([(s[rng.permutation(len(s))[:n]] - centre) / scale for s in (x, y)])
    label = np.repeat([0, 1], n)
    width = 10 * x.shape[1]
    accuracy = []
    for train, test in StratifiedKFold(folds, shuffle=True, random_state=seed).split(sample, label):
        network = MLPClassifier(
            (width, width), max_iter=200 if quick else 1000, early_stopping=quick, random_state=seed
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            network.fit(sample[train], label[train])
        accuracy.append(network.score(sample[test], label[test]))
    value = float(np.mean(accuracy))
    binomial = np.sqrt(value * (1 - value) / (2 * n))
    return value, float(max(binomial, np.std(accuracy, ddof=1) / np.sqrt(folds)))
