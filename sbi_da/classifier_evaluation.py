"""Everything an evaluation of a classifier holds: scores, figures, galleries, latent pictures, domain tests, anomalies.

Arrays in, a dictionary ready for JSON and figures out; nothing here knows how the probabilities came about. Objects of
unknown classes have no label that a classifier could have hit: they are left out of all scores, and judged by their
anomaly scores alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sbi_da.alignment.anomalies import entropy_score
from sbi_da.alignment.label_shift import label_shift_em
from sbi_da.diagnostics.anomalies import anomaly_metrics, rejection_metrics
from sbi_da.diagnostics.bootstrap import figure
from sbi_da.diagnostics.class_domains import class_domain_tests
from sbi_da.diagnostics.classification import evaluate_classes
from sbi_da.diagnostics.evaluation import jsonable
from sbi_da.errors import SbiDaError
from sbi_da.plots.anomalies import anomaly_figure
from sbi_da.plots.classification import (
    class_scores_figure,
    confusion_figure,
    fractions_figure,
    ranking_figure,
    reliability_figure,
)
from sbi_da.plots.galaxies import gallery_figure, latent_classes_figure, umap_available

__all__ = ["evaluate_classifier"]

SHOWN = 6
"""Images in a row of a gallery."""
LEAST = 30
"""Fewest objects of a latent picture."""


def evaluate_classifier(
    probabilities: np.ndarray,
    labels: np.ndarray,
    classes: Sequence[str],
    reference_fractions: Sequence[float] | np.ndarray,
    *,
    images: Any = None,
    features: np.ndarray | None = None,
    simulated_features: np.ndarray | None = None,
    simulated_labels: np.ndarray | None = None,
    strata: Mapping[str, np.ndarray] | None = None,
    unknown: np.ndarray | None = None,
    anomaly_scores: np.ndarray | None = None,
    anomaly_thresholds: Mapping[str, float] | None = None,
    seed: int = 0,
    replicates: int = 2000,
    permutations: int = 500,
    min_count: int = 50,
) -> tuple[dict[str, Any], dict[str, Figure]]:
    """Metrics and figures of a classifier on labelled objects.

    Args:
        probabilities: shape ``(n, K)``.
        labels: classes 0 to K - 1, shape ``(n,)``; not read where ``unknown``.
        classes: K names.
        reference_fractions: class fractions of the training set, under which the probabilities hold, shape ``(K,)``.
        images: of the objects, values 0 to 1, shape ``(n, y, x, 3)``: an array, or what gives one when indexed by a
        list of rows.
        features: what the classifier's head sees of the objects, shape ``(n, d)``.
        simulated_features: the same of labelled simulated objects, shape ``(m, d)``, for the domain tests.
        simulated_labels: their classes, shape ``(m,)``.
        strata: by name, one label per object, shape ``(n,)``.
        unknown: mask of objects of no such class, shape ``(n,)``.
        anomaly_scores: higher for what looks less known, shape ``(n,)``; if None and there are unknown objects, the
            entropy of the probabilities.
        anomaly_thresholds: objects above are rejected, by name; None for those that reject fixed shares of all objects.
        seed: of resampling, permutations and layouts.
        replicates: bootstrap resamples.
        permutations: of the domain tests.
        min_count: smaller strata are not evaluated.

    Returns:
        What :func:`~sbi_da.diagnostics.classification.evaluate_classes` gives, and ``label_shift`` (class fractions by
        EM), ``left_out``, and where asked for ``domains`` and ``anomalies``; ``notes`` on what was skipped. The
        figures by name, see :data:`sbi_da.classification_report.CAPTIONS`.

    Raises:
        SbiDaError: arrays that do not fit each other, or no object of a known class.
    """
    p, y = np.asarray(probabilities), np.asarray(labels)
    if p.ndim != 2 or y.shape != p.shape[:1]:
        raise SbiDaError(f"probabilities must be (object, class) and labels (object,), got {p.shape} and {y.shape}")
    n = len(p)
    columns = {"images": images, "features": features, "unknown": unknown, "anomaly_scores": anomaly_scores, **(strata or {})}
    for name, column in columns.items():
        if column is not None and len(column) != n:
            raise SbiDaError(f"evaluate_classifier: {name!r} has {len(column)} rows for {n} objects")
    if (simulated_features is None) != (simulated_labels is None):
        raise SbiDaError("evaluate_classifier: simulated_features and simulated_labels belong together")
    if simulated_features is not None and features is None:
        raise SbiDaError("evaluate_classifier: simulated_features are compared with features, which are not given")
    strange = np.zeros(n, bool) if unknown is None else np.asarray(unknown)
    if strange.dtype != bool:
        raise SbiDaError(f"evaluate_classifier: unknown must be a boolean mask, not {strange.dtype}")
    known = np.flatnonzero(~strange)
    cut = {name: np.asarray(column)[known] for name, column in (strata or {}).items()}
    metrics = evaluate_classes(p[known], y[known], classes, reference_fractions, cut, seed, replicates, min_count)
    notes: list[str] = []
    metrics["left_out"] = {"unknown class": int(strange.sum())}
    metrics["label_shift"] = _label_shift(p[known], np.asarray(reference_fractions, float), classes, seed, notes)
    figures = _score_figures(metrics, p[known], y[known], classes)
    if images is not None:
        figures |= _galleries(images, p, y, known, classes)
    if features is not None:
        x = np.asarray(features, float)
        if simulated_features is not None and simulated_labels is not None:
            metrics["domains"] = class_domain_tests(
                simulated_features, simulated_labels, x, np.where(strange, -1, y), classes, permutations=permutations, seed=seed
            )
        sides = None if simulated_features is None else (np.asarray(simulated_features), np.asarray(simulated_labels))
        figures |= _latent(x, y, classes, sides, strange, seed, notes)
    if strange.any():
        score = entropy_score(p) if anomaly_scores is None else np.asarray(anomaly_scores, float)
        metrics["anomalies"] = {
            "score": "entropy of the probabilities" if anomaly_scores is None else "given",
            **anomaly_metrics(score, strange, replicates, seed),
            "rejection": rejection_metrics(p, y, score, strange, anomaly_thresholds, replicates, seed),
        }
        figures["anomaly_scores"] = anomaly_figure(score, strange, metrics["anomalies"]["auroc"], anomaly_thresholds)
        if images is not None:
            figures["gallery_anomalies"] = _anomaly_gallery(images, score, strange)
    metrics["notes"] = notes
    return dict(jsonable(metrics)), figures


def _label_shift(p: np.ndarray, reference: np.ndarray, classes: Sequence[str], seed: int, notes: list[str]) -> dict[str, Any] | None:
    """Class fractions by EM as figures, and whether the objects constrain them."""
    if not (reference > 0).all():
        notes.append("Class fractions by EM were skipped: a class has no share in the training set.")
        return None
    em = label_shift_em(p, reference, seed=seed)
    by_class = {c: figure(em.fractions[k], em.low[k], em.high[k]) for k, c in enumerate(classes)}
    return {"method": "em", "fractions": by_class, "trusted": em.trusted}


def _score_figures(metrics: Mapping[str, Any], p: np.ndarray, y: np.ndarray, classes: Sequence[str]) -> dict[str, Figure]:
    """What is drawn of the scores."""
    overall = metrics["overall"]
    fractions = {
        "training": metrics["train_fractions"], "true": overall["fractions"]["true"], "predicted": overall["fractions"]["predicted"]
    }
    if metrics["label_shift"]:
        fractions["EM"] = metrics["label_shift"]["fractions"]
    return {
        "class_scores": class_scores_figure(overall["per_class"]),
        "confusion": confusion_figure(overall["confusion"], classes),
        "ranking": ranking_figure(p, y, classes, overall["per_class"]),
        "reliability": reliability_figure(overall["calibration"]),
        "class_fractions": fractions_figure(fractions, classes),
    }


def _taken(images: Any, rows: np.ndarray) -> np.ndarray:
    """Images of some rows; none of them may be asked for."""
    if len(rows):
        return np.asarray(images[rows.tolist()])
    return np.zeros((0, 1, 1, 3))


def _galleries(images: Any, p: np.ndarray, y: np.ndarray, known: np.ndarray, classes: Sequence[str]) -> dict[str, Figure]:
    """Most confidently right and most confidently wrong objects of every true class."""
    answer, stated = p.argmax(1), p.max(1)
    right: list[tuple[str, np.ndarray, list[str]]] = []
    wrong: list[tuple[str, np.ndarray, list[str]]] = []
    for k, name in enumerate(classes):
        own = known[y[known] == k]
        own = own[np.argsort(-stated[own], kind="stable")]
        hits, misses = own[answer[own] == k], own[answer[own] != k]
        for rows, some, captions in (
            (right, hits, [f"{stated[i]:.3f}" for i in hits[:SHOWN]]),
            (wrong, misses, [f"{classes[answer[i]]} {stated[i]:.2f}" for i in misses[:SHOWN]]),
        ):
            rows.append((f"{name}\n{len(some):,} of {len(own):,}", _taken(images, some[:SHOWN]), captions))
    return {"gallery_right": gallery_figure(right, SHOWN), "gallery_wrong": gallery_figure(wrong, SHOWN)}


def _anomaly_gallery(images: Any, score: np.ndarray, strange: np.ndarray) -> Figure:
    """Objects of highest and of lowest anomaly score, known and unknown ones."""
    rows = []
    for own, kind in ((np.flatnonzero(strange), "unknown"), (np.flatnonzero(~strange), "known")):
        order = own[np.argsort(-score[own], kind="stable")]
        for some, which in ((order[:SHOWN], "highest"), (order[::-1][:SHOWN], "lowest")):
            rows.append((f"{kind},\n{which} scores", _taken(images, some), [f"{score[i]:.3g}" for i in some]))
    return gallery_figure(rows, SHOWN)


def _latent(
    x: np.ndarray, y: np.ndarray, classes: Sequence[str], simulated: tuple[np.ndarray, np.ndarray] | None, strange: np.ndarray,
    seed: int, notes: list[str],
) -> dict[str, Figure]:
    """Pictures by both methods; what cannot be drawn is noted."""
    if len(x) < LEAST or (simulated is not None and len(simulated[0]) < LEAST):
        notes.append(f"Latent pictures were skipped: they need {LEAST} objects of each domain.")
        return {}
    figures = {}
    for method in ("tsne", "umap"):
        if method == "umap" and not umap_available():
            notes.append("The UMAP picture was skipped: the optional package umap-learn is not installed.")
            continue
        figures[f"latent_{method}"] = latent_classes_figure(x, y, classes, simulated, strange, method, seed=seed)
    return figures
