r"""Does a score find the objects of classes that no training knew, and what does rejecting by it cost the known ones?

The ranking is judged by the area under the ROC curve and by average precision, unknown objects being the positive
side; the share of unknown objects is the average precision of a blind score. A rejected object is given no class.
Three macro-F1 of the K known classes then tell different things: ``open`` judges all objects, an unknown one that is
not rejected being a false positive of the class it is given to; ``known`` judges the known objects alone, rejected
ones counting as missed; ``accepted`` judges those of them that are not rejected.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sbi_da.diagnostics.class_scores import checked_classes, from_confusion, ranking, resamples
from sbi_da.diagnostics.classification import percentile_figure
from sbi_da.diagnostics.evaluation import jsonable
from sbi_da.errors import SbiDaError

__all__ = ["anomaly_metrics", "rejection_metrics"]

SHARES = (0.01, 0.05, 0.1, 0.2)
"""Shares of all objects that are rejected where no threshold is given."""


def _checked(score: np.ndarray, unknown: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Finite scores and a mask of one shape, or a clear error."""
    s, mask = np.asarray(score, float), np.asarray(unknown)
    if s.ndim != 1 or not len(s) or mask.shape != s.shape or mask.dtype != bool:
        raise SbiDaError(
            f"anomaly scores must be (object,) with a boolean mask of unknown objects, got {s.shape} and {mask.dtype} {mask.shape}"
        )
    bad = np.flatnonzero(~np.isfinite(s))
    if len(bad):
        raise SbiDaError(f"anomaly scores of {len(bad)} objects are not finite, first at row {bad[0]}")
    return s, mask


def anomaly_metrics(score: np.ndarray, unknown: np.ndarray, replicates: int = 2000, seed: int = 0) -> dict[str, Any]:
    """How well a score ranks objects of unknown class above those of known ones, with 95 % bootstrap intervals.

    Args:
        score: higher for what looks less known, shape ``(n,)``.
        unknown: mask, shape ``(n,)``.
        replicates: bootstrap resamples of objects.
        seed: of the resampling.

    Returns:
        ``n_known``, ``n_unknown``, ``share_unknown``, ``auroc`` and ``auprc``; None where one side is empty.

    Raises:
        SbiDaError: shapes that do not agree, a mask that is not boolean, or scores that are not finite.
    """
    s, mask = _checked(score, unknown)
    value = [x[0] for x in ranking(s, mask, np.ones((len(s), 1)))]
    parts = [ranking(s, mask, weight) for weight in resamples(len(s), replicates, np.random.default_rng(seed))]
    sample = [np.concatenate(part) for part in zip(*parts, strict=True)]
    return dict(jsonable({
        "n_known": int((~mask).sum()), "n_unknown": int(mask.sum()), "share_unknown": float(mask.mean()),
        "auroc": percentile_figure(value[0], sample[0]), "auprc": percentile_figure(value[1], sample[1]),
    }))


def rejection_metrics(
    probabilities: np.ndarray, labels: np.ndarray, score: np.ndarray, unknown: np.ndarray,
    thresholds: Mapping[str, float] | Sequence[float] | None = None, replicates: int = 2000, seed: int = 0,
) -> dict[str, Any]:
    """Macro-F1 of the known classes when objects of high score are given no class, beside that without rejection.

    Args:
        probabilities: shape ``(n, K)``.
        labels: classes 0 to K - 1, shape ``(n,)``; not read where ``unknown``.
        score: shape ``(n,)``.
        unknown: mask, shape ``(n,)``.
        thresholds: objects above are rejected: by name, or in order; None for those that reject 1, 5, 10 and 20 % of
            all objects, which needs no label.
        replicates: bootstrap resamples of objects.
        seed: of the resampling.

    Returns:
        ``none`` and one entry a threshold: ``threshold``, shares ``rejected_known`` and ``rejected_unknown``,
        ``macro_f1_open``, ``macro_f1_known``, ``macro_f1_accepted``, and ``gain_open``, ``gain_known``,
        ``gain_accepted``: what each has over the same figure without rejection, in the same resamples.

    Raises:
        SbiDaError: arrays that do not fit, or no object of a known class.
    """
    s, mask = _checked(score, unknown)
    p = np.asarray(probabilities, float)
    if p.ndim != 2 or len(p) != len(s) or np.shape(labels) != s.shape:
        raise SbiDaError(f"rejection_metrics: {len(s)} scores, probabilities {p.shape} and labels {np.shape(labels)} do not fit")
    if mask.all():
        raise SbiDaError("rejection_metrics: no object is of a known class")
    p, y = checked_classes(p, np.where(mask, 0, labels))
    classes = p.shape[1]
    if thresholds is None:
        named = {f"{100 * share:g} % rejected": float(np.quantile(s, 1 - share)) for share in SHARES}
    elif isinstance(thresholds, Mapping):
        named = {str(k): float(v) for k, v in thresholds.items()}
    else:
        named = {f"score > {v:.3g}": float(v) for v in thresholds}
    named = {"none": np.inf, **named}
    y = np.where(mask, classes, y)  # row of the unknown, column of the rejected
    cells = {name: y * (classes + 1) + np.where(s > cut, classes, p.argmax(1)) for name, cut in named.items()}
    size = (classes + 1) ** 2
    onehot = np.concatenate([np.eye(size, dtype=np.float32)[cell] for cell in cells.values()], axis=1)
    value = _f1(onehot.T @ np.ones((len(s), 1)), len(named), classes)
    parts = [_f1(onehot.T @ w, len(named), classes) for w in resamples(len(s), replicates, np.random.default_rng(seed))]
    sample = {key: np.concatenate([part[key] for part in parts], axis=1) for key in value}
    result: dict[str, Any] = {}
    for i, (name, cut) in enumerate(named.items()):
        result[name] = {"threshold": None if name == "none" else cut}
        result[name] |= {
            key: percentile_figure(value[key][i, 0], sample[key][i], trials if np.isfinite(cut) else None)
            for key, trials in (
                ("rejected_known", (~mask).sum()), ("rejected_unknown", mask.sum()), ("macro_f1_open", None),
                ("macro_f1_known", None), ("macro_f1_accepted", None),
            )
        }
        for key in ("open", "known", "accepted"):
            v, r = value[f"macro_f1_{key}"], sample[f"macro_f1_{key}"]
            result[name][f"gain_{key}"] = percentile_figure(v[i, 0] - v[0, 0], r[i] - r[0])
    return dict(jsonable(result))


def _f1(flat: np.ndarray, rules: int, classes: int) -> dict[str, np.ndarray]:
    """Figures of every rule, each ``(rule, R)``, from confusion with a row of unknown and a column of rejected objects."""
    c = np.asarray(flat, float).reshape(rules, classes + 1, classes + 1, -1)
    known = c[:, :classes]
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = {"rejected_known": known[:, :, classes].sum(1) / known.sum((1, 2)), "rejected_unknown": c[:, -1, -1] / c[:, -1].sum(1)}
    hit, true = np.einsum("tkkr->tkr", known[:, :, :classes]), known.sum(2)
    scores = {
        "macro_f1_open": (2 * hit / np.maximum(true + c[:, :, :classes].sum(1), 1e-300)).mean(1),
        "macro_f1_known": (2 * hit / np.maximum(true + known[:, :, :classes].sum(1), 1e-300)).mean(1),
    }
    with np.errstate(invalid="ignore", divide="ignore"):
        scores["macro_f1_accepted"] = np.stack([from_confusion(rule)["macro_f1"] for rule in known[:, :, :classes]])
    return shares | scores
