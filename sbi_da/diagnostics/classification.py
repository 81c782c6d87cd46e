r"""How good are class probabilities? Scores with intervals, beside predictors that see no object.

Accuracy says little when classes are unbalanced, so it stands beside macro-F1, recall by class, proper scores and
calibration, and all of them beside two predictors that never look at an object: ``majority``, which always answers the
class that is commonest among the very objects judged, and ``prior``, which states the class fractions of the training
set. Formulae and conventions: :mod:`~sbi_da.diagnostics.class_scores`.

Intervals are 95 % percentiles of bootstrap resamples of objects (Efron 1979). Two repairs: noise adds to calibration
errors, so their resamples are moved back to the estimate; and where a proportion is 0 or 1 all resamples agree with
it, so its other end is the exact binomial one (Clopper & Pearson 1934). A single object has no interval. They do not
hold what another training would change: see :mod:`~sbi_da.diagnostics.class_runs`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sbi_da.diagnostics.bootstrap import LIMITS, figure
from sbi_da.diagnostics.class_scores import ClassScores, checked_classes, from_confusion
from sbi_da.diagnostics.evaluation import UNKNOWN, jsonable
from sbi_da.errors import SbiDaError

__all__ = ["OVERALL", "evaluate_classes", "percentile_figure"]

OVERALL = ("accuracy", "balanced_accuracy", "macro_f1", "nll", "brier", "roc_auc", "average_precision")
"""Scores of all classes together, as keys of a block."""
CONSISTENT = 400
"""Label sets drawn from the probabilities themselves, to see what calibration errors a finite sample alone explains."""
EDGE = 0.025


def percentile_figure(
    value: float, sample: np.ndarray, trials: float | None = None, centred: bool = False
) -> dict[str, float]:
    """A number and the 95 % interval that its resamples give.

    Args:
        value: of the objects themselves.
        sample: of the resamples, shape ``(R,)``; NaN where a resample does not define it.
        trials: objects that a proportion is of: its ends at 0 and 1 are then binomial.
        centred: move the resamples so that their mean is ``value``, and cut them at zero.
    """
    sample = sample[np.isfinite(sample)]
    if not np.isfinite(value) or not len(sample):
        return figure(value, np.nan, np.nan)
    if centred:
        sample = np.maximum(sample - sample.mean() + value, 0.0)
    low, high = np.percentile(sample, LIMITS)
    if trials and value <= 0:
        high = max(high, 1 - EDGE ** (1 / trials))
    if trials and value >= 1:
        low = min(low, EDGE ** (1 / trials))
    return figure(value, low, high)


def _baselines(
    value: Mapping[str, np.ndarray], sample: Mapping[str, np.ndarray], fractions: np.ndarray, classes: Sequence[str]
) -> dict[str, Any]:
    """The majority class and the prior: figures of each, and of the classifier's scores minus theirs."""

    def constant(scores: Mapping[str, np.ndarray], answer: int) -> dict[str, np.ndarray]:
        confusion = np.zeros_like(scores["confusion"])
        confusion[:, answer] = scores["confusion"].sum(1)
        return from_confusion(confusion)

    def stated(scores: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        true, answer = scores["true_fraction"], int(fractions.argmax())
        loss = -np.log(np.maximum(fractions, np.finfo(float).eps))
        brier = ((np.eye(len(fractions)) - fractions) ** 2).sum(1)
        return constant(scores, answer) | {
            "nll": loss @ true, "brier": brier @ true, "ece": np.abs(fractions[answer] - true[answer])
        }

    commonest = int(value["true_fraction"][:, 0].argmax())
    content: dict[str, Any] = {"majority": {"class": classes[commonest]}, "prior": {"class": classes[int(fractions.argmax())]}}
    for name, own, others in (
        ("majority", constant(value, commonest), constant(sample, commonest)), ("prior", stated(value), stated(sample))
    ):
        n = float(value["confusion"].sum())
        for key in ("accuracy", "balanced_accuracy", "macro_f1", "nll", "brier", "ece"):
            if key in own:
                trials = n if key == "accuracy" else None
                content[name][key] = percentile_figure(own[key][0], others[key], trials, key == "ece")
        content[name]["classifier_minus_this"] = {
            key: percentile_figure((value[key] - own[key])[0], sample[key] - others[key])
            for key in ("accuracy", "balanced_accuracy", "macro_f1", "nll", "brier") if key in own
        }
    return content


def _calibration(
    scores: ClassScores, value: Mapping[str, np.ndarray], sample: Mapping[str, np.ndarray], classes: Sequence[str],
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Calibration errors, what labels drawn from the probabilities themselves would give, and the reliability curve."""
    p, (n, _) = scores.probabilities, scores.count
    cumulative = np.cumsum(p, axis=1)[:, :-1]
    u = rng.random((n, CONSISTENT))
    drawn = np.zeros((n, CONSISTENT), np.int16)
    for column in cumulative.T:
        drawn += u > column[:, None]

    def summed(group: np.ndarray, x: np.ndarray) -> np.ndarray:
        out = np.zeros((int(group.max()) + 1, x.shape[1]))
        for b in range(len(out)):
            out[b] = x[group == b].sum(0)
        return out

    null, band = [], np.zeros(0)
    for i, group in enumerate(scores.bins):
        q = (p.max(1) if i == 0 else p[:, i - 1])[:, None]
        hit = drawn == (scores.predicted[:, None] if i == 0 else i - 1)
        null.append(np.abs(summed(group, q - hit)).sum(0) / n)
        if i == 0:
            count = np.bincount(group)
            band = np.percentile(summed(group, hit) / count[:, None], LIMITS, axis=1)
    confidence, right = p.max(1), scores.predicted == scores.labels

    def error(v: float, s: np.ndarray, chance: np.ndarray) -> dict[str, float]:
        return percentile_figure(v, s, None, True) | {
            "expected": float(chance.mean()), "limit": float(np.percentile(chance, LIMITS[1]))
        }

    group, count = scores.bins[0], np.bincount(scores.bins[0])
    return {
        "ece": error(value["ece"][0], sample["ece"], null[0]),
        "classwise_ece": error(value["classwise_ece"][0], sample["classwise_ece"], np.mean(null[1:], axis=0)),
        "by_class": {
            name: error(value["class_ece"][k, 0], sample["class_ece"][k], null[k + 1]) for k, name in enumerate(classes)
        },
        "bins": {
            "n": count, "confidence": np.bincount(group, confidence) / count, "accuracy": np.bincount(group, right) / count,
            "low": band[0], "high": band[1],
        },
    }


def _block(
    probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str], fractions: np.ndarray, replicates: int, seed: int
) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    scores = ClassScores(probabilities, labels)
    n, _ = scores.count
    value, sample = scores(np.ones((n, 1))), scores.resampled(replicates, rng)
    if n == 1:  # resamples of one object are that object: they know nothing of its like
        sample = {key: np.full(x.shape, np.nan) for key, x in sample.items()}
    true, predicted = value["confusion"].sum((1, 2)), value["confusion"].sum((0, 2))
    block: dict[str, Any] = {
        "n": n, "absent": [c for c, t, k in zip(classes, true, predicted, strict=True) if t + k == 0]
    }
    for key in OVERALL:
        block[key] = percentile_figure(value[key][0], sample[key], n if key == "accuracy" else None)
    trials = {"precision": predicted, "recall": true}
    block["per_class"] = {
        name: {"n_true": int(true[k]), "n_predicted": int(predicted[k])} | {
            key.removeprefix("class_"): percentile_figure(
                value[key][k, 0], sample[key][k], trials[key][k] if key in trials else None
            )
            for key in ("precision", "recall", "f1", "class_roc_auc", "class_average_precision")
        }
        for k, name in enumerate(classes)
    }
    block["calibration"] = _calibration(scores, value, sample, classes, rng)
    rate, spread = value["confusion_rate"][..., 0], sample["confusion_rate"]
    block["confusion"] = {
        "counts": value["confusion"][..., 0].astype(int),
        "rate": [[percentile_figure(v, s, t) for v, s in zip(row, resampled, strict=True)]
                 for row, resampled, t in zip(rate, spread, true, strict=True)],
    }
    block["baselines"] = _baselines(value, sample, fractions, classes)
    block["fractions"] = {
        key: {name: percentile_figure(value[source][k, 0], sample[source][k], limit) for k, name in enumerate(classes)}
        for key, source, limit in (
            ("true", "true_fraction", n), ("predicted", "predicted_fraction", n), ("mean_probability", "mean_probability", None)
        )
    }
    return block


def checked_fractions(fractions: Sequence[float] | np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """Class fractions that sum to one, shape ``(class,)``, or a clear error."""
    x = np.asarray(fractions, float)
    if x.shape != (len(classes),) or not (x >= 0).all() or not np.isfinite(x).all() or not x.sum() > 0:
        raise SbiDaError(f"class fractions must be {len(classes)} numbers, none negative, not all zero; got {x.tolist()}")
    return x / x.sum()


def evaluate_classes(
    probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str], train_fractions: Sequence[float] | np.ndarray,
    strata: Mapping[str, np.ndarray] | None = None, seed: int = 0, replicates: int = 2000, min_count: int = 50,
) -> dict[str, Any]:
    """Scores, calibration, confusion and class fractions, overall and by stratum, with 95 % intervals over objects.

    ``macro_f1`` is the mean over all ``classes``, also those of which a stratum has no object: they count 0, and are
    named in ``absent`` where they are not predicted either. ``balanced_accuracy``, ``roc_auc`` and
    ``average_precision`` are means over the classes for which they are defined.

    Args:
        probabilities: shape ``(n, K)``.
        labels: true classes, 0 to K - 1, shape ``(n,)``.
        classes: K names.
        train_fractions: class fractions of the training set, shape ``(K,)``: what the prior-only predictor states.
        strata: by name, one label per object, shape ``(n,)``.
        seed: of the resampling.
        replicates: bootstrap resamples.
        min_count: smaller strata are counted and not evaluated.

    Returns:
        ``overall`` and ``strata[name][label]``, blocks with ``n``, ``absent``, the scores of :data:`OVERALL`,
        ``per_class``, ``calibration`` (``ece``, ``classwise_ece``, ``by_class``, ``bins``), ``confusion`` (``counts``
        and ``rate``, true class by predicted class), ``baselines`` and ``fractions``; ``too_few[name][label]``;
        ``classes``, ``train_fractions``, ``seed``, ``replicates``, ``min_count``. Numbers with an interval are
        ``{"value", "low", "high"}``; None where undefined.

    Raises:
        SbiDaError: arrays that do not fit, probabilities that are none (NaN among them), or labels that are no class.
    """
    probabilities, labels = checked_classes(probabilities, labels)
    n, count = probabilities.shape
    if len(classes) != count or len(set(classes)) != count:
        raise SbiDaError(f"{count} columns of probabilities need as many different class names, got {list(classes)}")
    if replicates < 1:
        raise SbiDaError(f"evaluate_classes: replicates must be at least 1, got {replicates}")
    fractions = checked_fractions(train_fractions, classes)
    blocks: dict[str, dict[str, Any]] = {}
    too_few: dict[str, dict[str, int]] = {}
    for name, column in (strata or {}).items():
        text = np.asarray(column).astype(str)
        if text.shape != (n,):
            raise SbiDaError(f"stratum {name!r} must hold one label for each of {n} objects, its shape is {text.shape}")
        blocks[name], too_few[name] = {}, {}
        for label in sorted(np.unique(text).tolist(), key=lambda text: (text == UNKNOWN, text)):
            keep = text == label
            if keep.sum() < min_count:
                too_few[name][label] = int(keep.sum())
            else:
                blocks[name][label] = _block(probabilities[keep], labels[keep], classes, fractions, replicates, seed)
    return jsonable({
        "classes": list(classes), "train_fractions": dict(zip(classes, fractions.tolist(), strict=True)),
        "seed": seed, "replicates": replicates, "min_count": min_count,
        "overall": _block(probabilities, labels, classes, fractions, replicates, seed),
        "strata": blocks, "too_few": too_few,
    })
