"""One evaluation of posterior draws, overall and by stratum, as a nested dictionary ready for JSON."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sbi_da.diagnostics.bootstrap import check_draws, figure, interval
from sbi_da.diagnostics.calibration import (
    LEVELS,
    coverage_error_from_pit,
    pit,
    rank_histogram,
    ranks,
    sbc_p_values,
)
from sbi_da.diagnostics.errors import error_figures, residuals, with_label_noise
from sbi_da.diagnostics.joint_calibration import tarp_from_pit, tarp_pit
from sbi_da.errors import SbiDaError

__all__ = ["UNKNOWN", "bins", "evaluate_draws", "jsonable"]

UNKNOWN = "unknown"
"""Label of objects whose value is NaN."""


def bins(values: np.ndarray, edges: Sequence[float], fmt: str = "{:g}") -> np.ndarray:
    """Labels such as ``<7.8``, ``7.8–9`` and ``≥9`` for use as a stratum.

    Args:
        values: shape ``(object,)``; NaN becomes :data:`UNKNOWN`.
        edges: rising inner edges; a value on an edge belongs above it.
        fmt: format of an edge.

    Returns:
        Strings, shape ``(object,)``.
    """
    if len(edges) == 0 or np.any(np.diff(edges) <= 0):
        raise SbiDaError(f"bins need rising edges, not {list(edges)}")
    text = [fmt.format(e) for e in edges]
    labels = [f"<{text[0]}", *(f"{a}–{b}" for a, b in zip(text[:-1], text[1:], strict=True)), f"≥{text[-1]}", UNKNOWN]
    values = np.asarray(values, float)
    index = np.where(np.isnan(values), len(edges) + 1, np.searchsorted(edges, values, side="right"))
    return np.array(labels)[index]


def _order(label: str) -> tuple[float, int, str]:
    """Bins by their edges, then names; the unknown last."""
    number = re.match(r"([<≥]?)(-?[\d.]+(?:e[+-]?\d+)?)(?:–|$)", label)
    edge = float(number[2]) if number else np.inf
    return edge, int(label == UNKNOWN) if not number else -int(number[1] == "<"), label


def jsonable(content: Any) -> Any:
    """Plain dictionaries, lists, strings and finite numbers; what is not finite becomes None."""
    if isinstance(content, Mapping):
        return {str(k): jsonable(v) for k, v in content.items()}
    if isinstance(content, np.ndarray):
        return jsonable(content.tolist())
    if isinstance(content, list | tuple):
        return [jsonable(v) for v in content]
    if isinstance(content, np.generic):
        return jsonable(content.item())
    return None if isinstance(content, float) and not math.isfinite(content) else content


@dataclass(frozen=True)
class _Scores:
    """What every stratum is cut from; computed once from the draws."""

    rank: np.ndarray
    u: np.ndarray
    tarp: np.ndarray
    residual: np.ndarray
    z: np.ndarray
    sd: np.ndarray
    log_prob: np.ndarray | None
    gain: np.ndarray | None


def _mean_median(x: np.ndarray, replicates: int, seed: int) -> dict[str, Any]:
    finite = x[np.isfinite(x)]
    if len(finite) == 0:
        return {"mean": figure(np.nan, np.nan, np.nan), "median": figure(np.nan, np.nan, np.nan), "not_finite": len(x)}
    mean, median = interval(lambda v: np.stack([v[0].mean(-1), np.median(v[0], -1)]), finite[None], replicates, seed)
    return {"mean": mean, "median": median, "not_finite": len(x) - len(finite)}


def _block(
    scores: _Scores, keep: np.ndarray, names: Sequence[str], n_draws: int, replicates: int, seed: int
) -> dict[str, Any]:
    rank, u = scores.rank[keep], scores.u[keep]
    block: dict[str, Any] = {"n": len(rank)}
    if scores.log_prob is not None:
        block["nll"] = _mean_median(-scores.log_prob[keep], replicates, seed)
    if scores.gain is not None:
        block["information_gain"] = _mean_median(scores.gain[keep], replicates, seed)
    error = coverage_error_from_pit(u, LEVELS, replicates, seed)
    block["coverage"] = {
        "levels": error["levels"],
        "curve": dict(zip(names, error["coverage"].T, strict=True)),
        "error": {k: error[k] for k in ("value", "low", "high", "expected", "limit")},
        "error_by_parameter": dict(zip(names, error["per_parameter"], strict=True)),
    }
    chi2, ks = (sbc_p_values(rank, n_draws, m, rng=np.random.default_rng(seed)) for m in ("chi2", "ks"))
    histograms = [rank_histogram(rank[:, p], n_draws) for p in range(len(names))]
    block["sbc"] = {
        "p_value": dict(zip(names, chi2, strict=True)),
        "ks_p_value": dict(zip(names, ks, strict=True)),
        "histogram": {name: h[0] for name, h in zip(names, histograms, strict=True)},
        "probability": histograms[0][1],
    }
    block["tarp"] = tarp_from_pit(scores.tarp[keep], LEVELS, replicates, seed)
    residual, z, sd = scores.residual[keep], scores.z[keep], scores.sd[keep]
    block["point_errors"] = {
        name: error_figures(residual[:, p], z[:, p], u[:, p], sd[:, p], replicates, seed)
        for p, name in enumerate(names)
    }
    return block


def evaluate_draws(
    draws: np.ndarray, truth: np.ndarray, names: Sequence[str],
    log_prob: np.ndarray | None = None, log_prob_prior: np.ndarray | None = None,
    strata: Mapping[str, np.ndarray] | None = None, min_count: int = 500, seed: int = 0,
    label_error: np.ndarray | None = None, replicates: int = 200,
) -> dict[str, Any]:
    """Density, calibration and point errors of a posterior, overall and by stratum.

    Args:
        draws: posterior draws, shape ``(object, draw, parameter)``.
        truth: shape ``(object, parameter)``; NaN where unknown.
        names: of the parameters.
        log_prob: log posterior density at the truth, nats, shape ``(object,)``.
        log_prob_prior: log prior density at the truth, in the same units, shape ``(object,)``.
        strata: by name (``"pattern"``, ``"log_age"``), one label per object, shape ``(object,)``; see :func:`bins`.
        min_count: smaller strata are counted and not evaluated.
        seed: of ranks, references and bootstrap.
        label_error: one standard deviation of the truth, shape ``(object, parameter)``, for real labels: see
            :mod:`sbi_da.diagnostics.errors`.
        replicates: bootstrap resamples.

    Returns:
        ``overall`` and ``strata[name][label]``, blocks with ``n``, ``nll``, ``information_gain``, ``coverage``,
        ``sbc``, ``tarp`` and ``point_errors``; ``too_few[name][label]``, the counts of strata left out; ``parameters``,
        ``n_draws``, ``min_count``, ``seed``.

    Raises:
        SbiDaError: lengths that do not agree, or draws that are not finite.
    """
    draws, truth = check_draws(draws, truth)
    n = len(truth)
    if len(names) != truth.shape[1]:
        raise SbiDaError(f"{len(names)} names for {truth.shape[1]} parameters: {', '.join(names)}")
    columns = {"log_prob": log_prob, "log_prob_prior": log_prob_prior, **(strata or {})}
    for name, column in columns.items():
        if column is not None and np.shape(column) != (n,):
            raise SbiDaError(f"{name!r} must hold one value for each of {n} objects, its shape is {np.shape(column)}")
    if label_error is not None and np.shape(label_error) != truth.shape:
        raise SbiDaError(f"label_error must have the shape of truth, {truth.shape}, not {np.shape(label_error)}")
    rng = np.random.default_rng(seed)
    residual, z, sd = residuals(draws, truth, label_error)
    noisy = with_label_noise(draws, label_error, rng)
    rank = ranks(noisy, truth, rng)
    gain = None if log_prob is None or log_prob_prior is None else np.asarray(log_prob) - np.asarray(log_prob_prior)
    scores = _Scores(
        rank, pit(rank, draws.shape[1], rng), tarp_pit(noisy, truth, rng), residual, z, sd,
        None if log_prob is None else np.asarray(log_prob, float), gain,
    )
    blocks: dict[str, dict[str, Any]] = {}
    too_few: dict[str, dict[str, int]] = {}
    for name, labels in (strata or {}).items():
        blocks[name], too_few[name] = {}, {}
        text = np.asarray(labels).astype(str)
        for label in sorted(np.unique(text).tolist(), key=_order):
            keep = text == label
            if keep.sum() < min_count:
                too_few[name][label] = int(keep.sum())
            else:
                blocks[name][label] = _block(scores, keep, names, draws.shape[1], replicates, seed)
    return jsonable({
        "parameters": list(names), "n_draws": draws.shape[1], "min_count": min_count, "seed": seed,
        "overall": _block(scores, np.ones(n, bool), names, draws.shape[1], replicates, seed),
        "strata": blocks, "too_few": too_few,
    })
