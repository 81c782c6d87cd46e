"""Posteriors as columns of a table."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from sbi_da.catalog.modes import densest
from sbi_da.catalog.question import Question
from sbi_da.catalog.steady import chunks, filled
from sbi_da.inference import QUANTILES, STATISTICS, summarise
from sbi_da.layout import Observations
from sbi_da.posteriors import Posterior
from sbi_da.posteriors.exact import alone, exact_summaries
from sbi_da.posteriors.noise import resample
from sbi_da.refinement import Refinement, log_evidence

__all__ = ["summaries"]

WITHOUT = 100
"""Draws that objects computed at a time would have, if no draws are wanted."""


@dataclass(frozen=True)
class _Drawn:
    """Draws of some objects, behind whom stand repeats, and what their weights say.

    Attributes:
        values: of each quantity, shape ``(object, draw)``.
        ess: effective sample sizes, without the repeats; None: the draws were not weighted.
        evidence: log-evidences, likewise.
    """

    values: dict[str, np.ndarray]
    ess: np.ndarray | None = None
    evidence: np.ndarray | None = None


def summaries(posterior: Posterior, observed: Observations, question: Question, refinement: Refinement | None) -> dict[str, Any]:
    """Columns that summarise posteriors, each of shape ``(object,)``, draws and correlations with a second dimension.

    Args:
        posterior: of the objects.
        observed: their measurements.
        question: what is asked.
        refinement: by which draws are weighted; None: they are not.
    """
    prior = posterior.prior
    closed = [] if refinement else alone(posterior.head, prior)
    names, n = [*prior.names, *posterior.derived], len(posterior)
    summary = {name: np.full((len(STATISTICS) + 1, n), np.nan, np.float32) for name in names}
    correlation = np.empty((n, len(names) * (len(names) - 1) // 2), np.float32)
    draws = {name: np.empty((n, question.kept_draws), np.float16) for name in names}
    weights = np.empty((2, n))
    for some, part in chunks(posterior, question.draws or WITHOUT):
        count = some.stop - some.start
        exact = exact_summaries(part, closed, QUANTILES, question.draws or WITHOUT)
        for name in closed:
            summary[name][:-1, some] = exact[name][:, :count]
        if not question.draws:
            continue
        drawn = _drawn(part, observed.take(np.arange(some.start, some.stop)), question, refinement)
        best = densest(np.stack([drawn.values[name] for name in prior.names], axis=-1))
        for name in names:
            values = drawn.values[name]
            if name not in closed:
                summary[name][:-1, some] = summarise(values)[:, :count]
            summary[name][-1, some] = np.take_along_axis(values, best[:, None], axis=1)[:count, 0]
            if question.kept_draws:
                draws[name][some] = _standard(values)[:count, : question.kept_draws]
        if question.correlations:
            correlation[some] = _correlations(np.stack([drawn.values[name] for name in names], axis=1))[:count]
        if drawn.ess is not None:
            weights[:, some] = drawn.ess, drawn.evidence
    if refinement:
        wholes: list[np.ndarray] = [*(rows.T for rows in summary.values()), *draws.values(), correlation]
        for whole in wholes:
            whole[weights[0] == 0] = np.nan
    columns: dict[str, Any] = {"ess": weights[0].astype(np.float32), "log_evidence": weights[1]} if refinement else {}
    said = (*STATISTICS, "map") if question.draws else STATISTICS
    for name in names:
        columns |= {f"{name}_{s}": row for s, row in zip(said, summary[name][: len(said)], strict=True)}
    columns["edge"] = np.min([_edge(summary[name], prior.bounds(name)) for name in prior.names], axis=0)
    if question.correlations:
        columns["correlations"] = correlation
    if question.kept_draws:
        columns |= {f"{name}_draws": draws[name] for name in names}
    return columns


def _drawn(part: Posterior, observed: Observations, question: Question, refinement: Refinement | None) -> _Drawn:
    """Draws of posteriors, behind whose objects stand repeats: weighted by the likelihood and resampled, if they are refined."""
    if refinement is None:
        return _Drawn(part.quantities(part.normal_scores(question.draws, question.seed)))
    count = len(observed)
    z, log_weight = refinement.weigh(part, observed, question.draws, question.seed)
    chosen, ess = resample(log_weight, question.draws, part.ids[:count], question.seed)
    kept = np.take_along_axis(z, chosen[..., None], axis=1)
    return _Drawn(part.quantities(kept[filled(np.arange(count), len(part))]), ess, log_evidence(log_weight))


def _edge(summary: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """How many standard deviations the median of a parameter lies from the nearest bound of the prior; NaN if all draws are alike."""
    sd, median = (summary[STATISTICS.index(name)] for name in ("sd", "q50"))
    away = np.minimum(median - bounds[0], bounds[1] - median)
    return np.divide(away, sd, out=np.full_like(away, np.nan), where=sd != 0)


def _standard(values: np.ndarray) -> np.ndarray:
    """Draws in standard deviations from their mean."""
    away = values - values.mean(1, keepdims=True)
    spread = values.std(1, ddof=1, keepdims=True)
    return np.divide(away, spread, out=np.zeros_like(away), where=spread > 0)


def _correlations(values: np.ndarray) -> np.ndarray:
    """Correlations of quantities ``(object, quantity, draw)``: the upper triangle without the diagonal, row by row."""
    standard = _standard(values.reshape(-1, values.shape[-1])).reshape(values.shape)
    matrix = np.einsum("oid,ojd->oij", standard, standard) / (values.shape[-1] - 1)
    upper = np.triu_indices(values.shape[1], 1)
    return matrix[:, upper[0], upper[1]]
