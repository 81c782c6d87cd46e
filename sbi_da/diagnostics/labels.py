"""How good are probabilities of labels of which an object may have several? Each label is a question of two classes of its own.

What is said of classes in :mod:`~sbi_da.diagnostics.classification` holds for each: proper scores and calibration beside the majority
answer and the rate of the label in the training set. Objects of which a label is unknown do not count for it.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sbi_da.diagnostics.bootstrap import resampled_means
from sbi_da.diagnostics.classification import evaluate_classes, percentile_figure
from sbi_da.diagnostics.evaluation import jsonable
from sbi_da.errors import SbiDaError

__all__ = ["evaluate_labels"]


def evaluate_labels(
    labels: np.ndarray, probabilities: np.ndarray, rates: Mapping[str, float], seed: int = 0, replicates: int = 1000
) -> dict[str, Any]:
    """Scores of probabilities of labels.

    Args:
        labels: 1, 0, or negative where unknown, shape ``(object, label)``.
        probabilities: that they hold, same shape.
        rates: of the labels in the training set, by name, in the order of the columns.
        seed: of resampling.
        replicates: bootstrap resamples.

    Returns:
        ``overall`` (``n``, ``nll`` of all known labels of an object together, ``baseline_nll`` of the rates, ``gain``: the latter less
        the former, and ``roc_auc``, the mean over labels) and ``labels``: for each its ``rate`` and what
        :func:`~sbi_da.diagnostics.classification.evaluate_classes` says of the classes ``no`` and ``yes``; None if known of no object.

    Raises:
        SbiDaError: no known label at all.
    """
    y, p = np.asarray(labels), np.asarray(probabilities, float)
    known = y >= 0
    if not known.any():
        raise SbiDaError(f"none of the objects has a known label of {', '.join(rates)}")
    tiny = np.finfo(float).eps
    rate = np.array(list(rates.values()))
    own, base = (-np.log(np.maximum(np.where(y == 1, q, 1 - q), tiny)) for q in (p, np.broadcast_to(rate, p.shape)))
    rows = known.any(1)
    surprise = np.stack([np.where(known, loss, 0.0).sum(1)[rows] for loss in (own, base)], 1)
    columns = {"nll": surprise[:, 0], "baseline_nll": surprise[:, 1], "gain": surprise[:, 1] - surprise[:, 0]}
    sample = resampled_means(np.stack(list(columns.values()), 1), replicates, np.random.default_rng(seed))
    blocks: dict[str, Any] = {}
    for k, name in enumerate(rates):
        mine = known[:, k]
        pair = np.stack([1 - p[mine, k], p[mine, k]], 1)
        blocks[name] = None
        if mine.any():
            found = evaluate_classes(pair, y[mine, k].astype(int), ("no", "yes"), (1 - rate[k], rate[k]), None, seed, replicates)
            blocks[name] = {"rate": float(rate[k])} | found["overall"]
    areas = [b["roc_auc"]["value"] for b in blocks.values() if b and b["roc_auc"]["value"] is not None]
    overall: dict[str, Any] = {"n": int(rows.sum())}
    overall |= {name: percentile_figure(float(column.mean()), sample[:, k]) for k, (name, column) in enumerate(columns.items())}
    overall["roc_auc"] = float(np.mean(areas)) if areas else None
    return dict(jsonable({"target": "labels", "seed": seed, "replicates": replicates, "overall": overall, "labels": blocks}))
