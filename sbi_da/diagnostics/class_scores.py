r"""Scores of class probabilities for many weightings of the objects at once, as a bootstrap needs them.

A resample is a count :math:`w_i` for each object. Every score here is a function of sums :math:`\sum_i w_i a_i`: the
confusion matrix :math:`C_{yk} = \sum_i w_i [y_i = y][\hat y_i = k]` and what follows from it, mean losses, the signed
gap of each calibration bin, and, with the objects in the order of their probability of a class, the running sums of
true and false positives. So all resamples take a few matrix products.

With :math:`\hat y_i` the first most probable class:

- recall :math:`C_{yy} / \sum_k C_{yk}`, precision :math:`C_{kk} / \sum_y C_{yk}`, F1 :math:`2 C_{kk} / (\sum_y C_{yk}
  + \sum_y C_{ky})`.
- NLL :math:`-\log p_{i y_i}` in nats, probabilities below machine precision counted as that.
- Brier score :math:`\sum_k (p_{ik} - [y_i = k])^2`, from 0 to 2 (Brier 1950): for two classes twice the one-class form.
- Expected calibration error (Naeini et al. 2015) :math:`\sum_b |\sum_{i \in b} w_i (p_i - h_i)| / \sum_i w_i` over
  bins of equal mass: once with the largest probability and whether it was right, once for each class with its
  probability and whether the object is of it (Nixon et al. 2019).
- ROC AUC, ties counted one half, and average precision :math:`\sum_t (R_t - R_{t-1}) P_t`, of each class against the
  rest.
"""

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_matrix

from sbi_da.errors import SbiDaError

__all__ = ["ClassScores", "checked_classes", "from_confusion", "ranking", "resamples"]

BINS = 15
"""Most bins of a calibration curve; fewer when there would be under :data:`PER_BIN` objects in one."""
PER_BIN = 20
CHUNK = 2_000_000
"""Weights held at a time."""


def checked_classes(probabilities: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities whose rows sum to one and integer classes, or a clear error.

    Args:
        probabilities: shape ``(n, class)``.
        labels: classes 0 to K - 1, shape ``(n,)``.

    Raises:
        SbiDaError: no object, shapes that do not agree, probabilities that are none, or a label that is no class.
    """
    p, y = np.asarray(probabilities, float), np.asarray(labels)
    if p.ndim != 2 or 0 in p.shape or y.shape != p.shape[:1]:
        raise SbiDaError(
            f"probabilities must be (object, class) and labels (object,), none empty; got {p.shape} and {y.shape}"
        )
    total = p.sum(1)
    bad = np.flatnonzero(~((p >= 0).all(1) & (np.abs(total - 1) < 1e-3)))  # NaN fails both
    if len(bad):
        raise SbiDaError(
            f"probabilities of {len(bad)} objects are NaN, negative or do not sum to one, first at row {bad[0]}: "
            "drop these objects or normalise them"
        )
    wrong = np.flatnonzero(~np.isin(y, np.arange(p.shape[1])))
    if len(wrong):
        raise SbiDaError(
            f"labels of {len(wrong)} objects are not classes 0 to {p.shape[1] - 1}, first at row {wrong[0]} "
            f"({y[wrong[0]]}): leave out objects of unknown class"
        )
    # Rows that sum to one but for rounding stay as they are: dividing them would break ties between objects.
    return p / np.where(np.abs(total - 1) > 1e-6, total, 1.0)[:, None], y.astype(int)


def resamples(n: int, replicates: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each of ``n`` objects is drawn, in pieces of shape ``(n, some)`` that together hold ``replicates``."""
    step = max(1, CHUNK // n)
    for start in range(0, replicates, step):
        count = rng.multinomial(n, np.full(n, 1 / n), min(step, replicates - start))
        yield np.ascontiguousarray(count.T, np.float32 if n < 2**23 else np.float64)  # sums of counts stay exact


def from_confusion(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """What follows from confusion matrices.

    A class that is never predicted has precision 0, one that is neither predicted nor true F1 0, and ``macro_f1`` is
    the mean over **all**
    classes: scikit-learn's ``f1_score(labels=range(K), average="macro", zero_division=0)``. Recall is NaN for a class
    without true objects, which ``balanced_accuracy``, the mean of recalls, leaves out.

    Args:
        confusion: true class, predicted class, resample: shape ``(K, K, R)``.

    Returns:
        ``accuracy``, ``balanced_accuracy``, ``macro_f1`` of shape ``(R,)``; ``precision``, ``recall``, ``f1`` of shape
        ``(K, R)``; ``confusion_rate``, rows divided by their sum, of shape ``(K, K, R)``; ``predicted_fraction`` and
        ``true_fraction``.
    """
    hit = np.einsum("kkr->kr", confusion)
    true, predicted, total = confusion.sum(1), confusion.sum(0), confusion.sum((0, 1))
    with np.errstate(invalid="ignore", divide="ignore"):
        rate, recall = confusion / true[:, None], hit / true
        balanced = np.where(true > 0, recall, 0.0).sum(0) / (true > 0).sum(0)
    f1 = 2 * hit / np.maximum(true + predicted, 1e-300)
    return {
        "accuracy": hit.sum(0) / total,
        "balanced_accuracy": balanced,
        "macro_f1": f1.mean(0),
        "precision": hit / np.maximum(predicted, 1e-300),
        "recall": recall,
        "f1": f1,
        "confusion_rate": rate,
        "true_fraction": true / total,
        "predicted_fraction": predicted / total,
    }


def ranking(score: np.ndarray, positive: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ROC AUC and average precision of a score; NaN in resamples that lack either side.

    Args:
        score: higher for positive objects, shape ``(n,)``.
        positive: mask, shape ``(n,)``.
        weight: shape ``(n, R)``.

    Returns:
        Two arrays of shape ``(R,)``.
    """
    order = np.argsort(-score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=np.nan) != 0)
    w, y = weight[order], positive[order]
    gain, every = np.where(y[:, None], w, w.dtype.type(0)), w
    if len(starts) < len(order):  # tied objects enter together
        gain, every = np.add.reduceat(gain, starts, axis=0), np.add.reduceat(w, starts, axis=0)
    right, shown = np.cumsum(gain, axis=0), np.cumsum(every, axis=0)
    positives, negatives = right[-1].astype(float), (shown[-1] - right[-1]).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        auc = ((every - gain) * (right - gain / 2)).sum(0, dtype=float) / (positives * negatives)
        precision = right / np.maximum(shown, w.dtype.type(1e-30))
        average = (gain * precision).sum(0, dtype=float) / positives
    undefined = (positives == 0) | (negatives == 0)
    return np.where(undefined, np.nan, auc), np.where(undefined, np.nan, average)


class ClassScores:
    """Scores of classified objects as a function of their weights.

    Args:
        probabilities: shape ``(n, K)``.
        labels: shape ``(n,)``.

    Attributes:
        predicted: most probable classes, the first of equals, shape ``(n,)``.
        count: objects, and classes.

    Raises:
        SbiDaError: see :func:`checked_classes`.
    """

    def __init__(self, probabilities: np.ndarray, labels: np.ndarray) -> None:
        self.probabilities, self.labels = checked_classes(probabilities, labels)
        p, y = self.probabilities, self.labels
        self.count = p.shape
        n, classes = p.shape
        self.predicted = p.argmax(1)
        self.loss = -np.log(np.maximum(p[np.arange(n), y], np.finfo(float).eps))
        self.brier = ((p - np.eye(classes)[y]) ** 2).sum(1)
        self._cells = _indicator(y * classes + self.predicted, classes**2)
        self.bins = [equal_mass(q, BINS) for q in (p.max(1), *p.T)]

    def __call__(self, weight: np.ndarray) -> dict[str, np.ndarray]:
        """Scores of weighted objects.

        Args:
            weight: shape ``(n, R)``.

        Returns:
            Those of :func:`from_confusion`, and ``confusion`` of shape ``(K, K, R)``; ``nll``, ``brier``, ``ece``,
            ``classwise_ece``, ``roc_auc``, ``average_precision`` of shape ``(R,)``, the last three being means over
            classes; ``class_ece``, ``class_roc_auc``, ``class_average_precision``, ``mean_probability`` of shape ``(K,
            R)``.
        """
        p, y, classes = self.probabilities, self.labels, self.count[1]
        total = weight.sum(0, dtype=float)
        confusion = np.asarray(self._cells @ weight, float).reshape(classes, classes, -1)
        means = np.column_stack([self.loss, self.brier, p]).T @ weight / total
        hit = np.column_stack([self.predicted == y, np.arange(classes) == y[:, None]])
        gaps = np.stack([
            np.abs(_indicator(b, int(b.max()) + 1, q - h) @ weight).sum(0) / total
            for b, q, h in zip(self.bins, (p.max(1), *p.T), hit.T, strict=True)
        ])
        ranks = np.stack([ranking(p[:, k], y == k, weight) for k in range(classes)])
        auc, average = ranks[:, 0], ranks[:, 1]
        return from_confusion(confusion) | {
            "confusion": confusion, "nll": means[0], "brier": means[1], "mean_probability": means[2:], "ece": gaps[0],
            "class_ece": gaps[1:], "classwise_ece": gaps[1:].mean(0), "class_roc_auc": auc, "class_average_precision": average,
            "roc_auc": _mean_of_known(auc), "average_precision": _mean_of_known(average),
        }

    def resampled(self, replicates: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Scores of bootstrap resamples of the objects, the last axis counting them."""
        parts = [self(weight) for weight in resamples(self.count[0], replicates, rng)]
        return {name: np.concatenate([part[name] for part in parts], axis=-1) for name in parts[0]}


def equal_mass(x: np.ndarray, bins: int) -> np.ndarray:
    """Bin of each value, shape ``(n,)``, in bins of about equal counts; equal values share a bin."""
    bins = int(np.clip(len(x) // PER_BIN, 1, bins))
    edges = np.unique(np.quantile(x, np.linspace(0, 1, bins + 1)[1:-1]))
    return np.unique(np.searchsorted(edges, x, side="right"), return_inverse=True)[1]


def _indicator(group: np.ndarray, groups: int, value: np.ndarray | None = None) -> csr_matrix:
    """Matrix ``(groups, n)`` that sums objects, or their values, by group."""
    n = len(group)
    value = np.ones(n, np.float32) if value is None else value
    return csr_matrix((value, (group, np.arange(n))), shape=(groups, n))


def _mean_of_known(x: np.ndarray) -> np.ndarray:
    """Mean over the first axis, NaN left out; NaN where nothing is known."""
    known = np.isfinite(x)
    with np.errstate(invalid="ignore"):
        return np.where(known, x, 0.0).sum(0) / known.sum(0)
