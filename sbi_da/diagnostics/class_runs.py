r"""Scores of several trainings of one classifier: intervals over seeds, over objects, and over both.

Few seeds are all there ever are, so their part is Student's: the mean of :math:`S` values has the 95 % interval
:math:`\bar m \pm t_{S-1} s / \sqrt S`. Over objects and seeds together, a replicate adds to the mean score one
bootstrap deviation of the objects and one draw of the seeds' part,

.. math:: \bar m + \Big(\frac1S \sum_r m_r(w) - \bar m\Big) + \frac{s}{\sqrt S}\, T_{S-1},

a hierarchical bootstrap whose upper level is parametric: resampling three seeds would give ten different means and far
too narrow an interval. Where all runs judge the same objects, a resample :math:`w` is shared by them and :math:`s` is
the spread of the runs as it is. Where each run has its own test set, objects are resampled run by run, and :math:`s^2`
is what the variance between runs has in excess of the bootstrap variance within them (a random-effects estimate, zero
if there is none).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.stats import t

from sbi_da.diagnostics.bootstrap import LIMITS, figure
from sbi_da.diagnostics.class_scores import ClassScores, resamples
from sbi_da.diagnostics.classification import OVERALL
from sbi_da.diagnostics.evaluation import jsonable
from sbi_da.errors import SbiDaError

__all__ = ["evaluate_runs", "seed_interval"]

UNBOUNDED = ("nll", "brier")
"""Scores that may exceed one."""


def seed_interval(values: Sequence[float] | np.ndarray) -> dict[str, Any]:
    """Mean over seeds with its 95 % t-interval.

    Args:
        values: one a seed.

    Returns:
        ``value``, ``low``, ``high`` (None for a single seed), ``sd`` between seeds and ``n``.

    Raises:
        SbiDaError: no value, or one that is not finite.
    """
    x = np.asarray(values, float)
    if x.ndim != 1 or not len(x) or not np.isfinite(x).all():
        raise SbiDaError(f"seed_interval needs a finite value for each seed, got {x.tolist()}")
    n, sd = len(x), float(x.std(ddof=1)) if len(x) > 1 else np.nan
    half = float(t.ppf(LIMITS[1] / 100, n - 1)) * sd / np.sqrt(n) if n > 1 else np.nan
    return dict(jsonable(figure(x.mean(), x.mean() - half, x.mean() + half) | {"sd": sd, "n": n}))


def evaluate_runs(
    runs: Sequence[tuple[np.ndarray, np.ndarray]], classes: Sequence[str], same_objects: bool = True, seed: int = 0,
    replicates: int = 2000,
) -> dict[str, Any]:
    """Mean scores over runs, with 95 % intervals over objects and seeds together.

    Args:
        runs: probabilities ``(n, K)`` and labels ``(n,)`` of each seed, on objects that it was not trained on.
        classes: K names.
        same_objects: whether every run judges the same objects in the same order.
        seed: of the resampling.
        replicates: bootstrap resamples.

    Returns:
        ``n_runs``, ``n_objects`` (of each run), ``classes``; and by score (accuracy, macro-F1, ..., ``ece``, ``recall:
        <class>``, ``f1: <class>``) ``value``, ``low``, ``high``, ``by_run``, ``seeds`` (see :func:`seed_interval`) and
        ``objects`` (the interval for these very trainings). A single run has no part of the seeds: ``low`` and
        ``high`` are then those of ``objects``.

    Raises:
        SbiDaError: no run, runs that do not fit each other, or arrays that
        :class:`~sbi_da.diagnostics.class_scores.ClassScores` refuses.
    """
    if not runs or replicates < 1:
        raise SbiDaError("evaluate_runs needs one run or more and one replicate or more")
    scores = [ClassScores(*run) for run in runs]
    for i, one in enumerate(scores):
        if one.count[1] != len(classes):
            raise SbiDaError(f"evaluate_runs: run {i} has probabilities of {one.count[1]} classes, {len(classes)} are named")
        if same_objects and not np.array_equal(one.labels, scores[0].labels):
            raise SbiDaError(
                f"evaluate_runs: run {i} has other labels than run 0: give all runs the same objects in the same order, or say "
                "same_objects=False"
            )
    rng = np.random.default_rng(seed)
    value = [_named(one(np.ones((one.count[0], 1))), classes) for one in scores]
    if same_objects:
        parts = [
            [_named(one(weight), classes) for one in scores] for weight in resamples(scores[0].count[0], replicates, rng)
        ]
        sample = [{key: np.concatenate([part[i][key] for part in parts]) for key in value[0]} for i in range(len(scores))]
    else:
        sample = [_named(one.resampled(replicates, rng), classes) for one in scores]
    student = rng.standard_t(max(len(runs) - 1, 1), replicates) if len(runs) > 1 else np.zeros(replicates)
    result = {
        key: _combined(
            np.array([v[key][0] for v in value]), np.stack([s[key] for s in sample]), student, same_objects,
            np.inf if key in UNBOUNDED else 1.0,
        )
        for key in value[0]
    }
    return jsonable({"n_runs": len(runs), "n_objects": [one.count[0] for one in scores], "classes": list(classes)} | result)


def _named(scores: dict[str, np.ndarray], classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Scores of shape ``(R,)`` by name."""
    content = {key: scores[key] for key in (*OVERALL, "ece", "classwise_ece")}
    for key in ("recall", "f1"):
        content |= {f"{key}: {name}": scores[key][k] for k, name in enumerate(classes)}
    return content


def _combined(value: np.ndarray, sample: np.ndarray, student: np.ndarray, shared: bool, most: float) -> dict[str, Any]:
    """Figures of one score from its values ``(S,)`` and resamples ``(S, R)``; undefined in one run, undefined at all."""
    known = np.isfinite(sample).all(0)
    runs, middle = len(value), float(value.mean())
    if not np.isfinite(middle) or not known.any():
        return figure(middle, np.nan, np.nan) | {"by_run": value.tolist(), "seeds": None, "objects": None}
    sample, student = sample[:, known], student[known]
    # The noise of a resample biases some scores (calibration errors most): the mean of resamples is moved to the estimate.
    objects = sample.mean(0) - sample.mean()
    spread = 0.0
    if runs > 1:
        excess = value.var(ddof=1) - (0.0 if shared else sample.var(1).mean())
        spread = float(np.sqrt(max(excess, 0.0) / runs))

    def ends(deviation: np.ndarray) -> dict[str, float]:
        return figure(middle, *np.clip(middle + np.percentile(deviation, LIMITS), 0.0, most))

    return ends(objects + spread * student) | {
        "by_run": value.tolist(), "seeds": seed_interval(value), "objects": ends(objects)
    }
