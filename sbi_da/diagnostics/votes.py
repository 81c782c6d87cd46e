r"""How good are laws of votes? Beside a law that sees no object: the Dirichlet law of the training set's base rates.

- NLL of the counts [nats], Dirichlet-multinomial, mean over the objects that were asked.
- Mean absolute error of the expected fractions, and Spearman's correlation of expected with observed fractions. Both compare with what
  few volunteers said, which scatters: neither reaches 0 or 1 for the best of posteriors.
- Share of objects whose most frequent answer is the one expected to be.
- Coverage: a count :math:`n_k` of :math:`N` votes is beta-binomial under the posterior. Its transform
  :math:`u = F(n_k - 1) + U\,P(n_k)` with :math:`U` uniform is uniform if the posterior is right, however few the votes
  (:mod:`~sbi_da.diagnostics.calibration`).

Intervals are 95 % bootstrap ones over objects. In those of rank correlations the ranks stay those among all objects.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from scipy.special import betaln, gammaln
from scipy.stats import rankdata

from sbi_da.diagnostics.bootstrap import resampled_means
from sbi_da.diagnostics.calibration import LEVELS, coverage_error_from_pit
from sbi_da.diagnostics.classification import percentile_figure
from sbi_da.diagnostics.evaluation import jsonable
from sbi_da.errors import SbiDaError
from sbi_da.posteriors.votes import dirichlet_multinomial

__all__ = ["evaluate_votes", "vote_transform"]

CHUNK = 2_000_000
"""Probabilities of counts held at a time."""


def evaluate_votes(
    counts: Mapping[str, np.ndarray], concentrations: Mapping[str, np.ndarray], base: Mapping[str, np.ndarray],
    questions: Mapping[str, tuple[str, ...]], seed: int = 0, replicates: int = 1000,
) -> dict[str, Any]:
    """Scores of laws of votes.

    Args:
        counts: by question, shape ``(object, answer)``; rows of zeros were not asked.
        concentrations: of the posterior, same shape.
        base: of the training set, shape ``(answer,)``.
        questions: names of the answers.
        seed: of resampling and of the transform.
        replicates: bootstrap resamples.

    Returns:
        ``overall`` (``n``, ``nll``, ``baseline_nll``, ``gain``: the latter less the former, of all questions together) and ``questions``:
        the same of each, with ``leading`` and ``baseline_leading``, ``coverage`` and ``answers``: of each ``base_fraction``,
        ``observed_fraction``, ``error``, ``baseline_error`` and ``rank_correlation``.

    Raises:
        SbiDaError: no votes at all.
    """
    asked = {name: n.sum(1) > 0 for name, n in counts.items()}
    anyone = np.any(list(asked.values()), axis=0)
    if not anyone.any():
        raise SbiDaError(f"none of the objects has votes on {', '.join(questions)}")
    rng = np.random.default_rng(seed)
    surprise = {q: _surprise(counts[q], concentrations[q], base[q]) for q in questions}
    total = np.nansum([surprise[q] for q in questions], axis=0)[anyone]
    overall = {"n": int(anyone.sum())} | _means({"nll": total[:, 0], "baseline_nll": total[:, 1], "gain": total[:, 1] - total[:, 0]},
                                                replicates, rng)
    blocks = {}
    for q, answers in questions.items():
        own = asked[q]
        blocks[q] = {"n": int(own.sum()), "votes": float(counts[q].sum())}
        if own.any():
            blocks[q] |= _block(counts[q][own], concentrations[q][own], base[q], surprise[q][own], answers, replicates, rng)
    return dict(jsonable({"target": "votes", "seed": seed, "replicates": replicates, "overall": overall, "questions": blocks}))


def _surprise(counts: np.ndarray, alpha: np.ndarray, base: np.ndarray) -> np.ndarray:
    """NLL of the posterior and of the base rates, shape ``(object, 2)``; NaN where not asked."""
    n = torch.from_numpy(counts)
    both = [-dirichlet_multinomial(n, torch.from_numpy(np.asarray(a, float))).numpy() for a in (alpha, base)]
    return np.where(counts.sum(1, keepdims=True) > 0, np.stack(both, 1), np.nan)


def _block(
    counts: np.ndarray, alpha: np.ndarray, base: np.ndarray, surprise: np.ndarray, answers: tuple[str, ...], replicates: int,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Of one question, on objects that were asked."""
    observed, expected, rates = counts / counts.sum(1, keepdims=True), alpha / alpha.sum(1, keepdims=True), base / base.sum()
    first = observed.argmax(1)
    block: dict[str, Any] = _means({
        "nll": surprise[:, 0], "baseline_nll": surprise[:, 1], "gain": surprise[:, 1] - surprise[:, 0],
        "leading": expected.argmax(1) == first, "baseline_leading": rates.argmax() == first,
    }, replicates, rng)
    votes, others = counts.sum(1), alpha.sum(1, keepdims=True) - alpha
    u = np.stack([vote_transform(counts[:, k], votes, alpha[:, k], others[:, k], rng) for k in range(len(answers))], 1)
    cover = coverage_error_from_pit(u, LEVELS, min(replicates, 200), int(rng.integers(2**31)))
    curves = {answer: cover["coverage"][:, k] for k, answer in enumerate(answers)}
    block["coverage"] = {
        "levels": LEVELS, "curve": curves, "error": {key: cover[key] for key in ("value", "low", "high", "expected", "limit")},
    }
    block["answers"] = {}
    for k, answer in enumerate(answers):
        figures = _means({
            "observed_fraction": observed[:, k], "error": np.abs(expected[:, k] - observed[:, k]),
            "baseline_error": np.abs(rates[k] - observed[:, k]),
        }, replicates, rng)
        correlation = _rank_correlation(expected[:, k], observed[:, k], replicates, rng)
        block["answers"][answer] = {"base_fraction": float(rates[k])} | figures | {"rank_correlation": correlation}
    return block


def _means(columns: Mapping[str, np.ndarray], replicates: int, rng: np.random.Generator) -> dict[str, Any]:
    """Means over objects with their intervals."""
    x = np.stack([np.asarray(c, float) for c in columns.values()], 1)
    sample = resampled_means(x, replicates, rng) if len(x) > 1 else np.full((1, x.shape[1]), np.nan)
    return {name: percentile_figure(float(x[:, k].mean()), sample[:, k]) for k, name in enumerate(columns)}


def _rank_correlation(x: np.ndarray, y: np.ndarray, replicates: int, rng: np.random.Generator) -> dict[str, float]:
    """Spearman's, NaN where all are equal."""
    a, b = (rankdata(v) for v in (x, y))
    with np.errstate(invalid="ignore", divide="ignore"):
        a, b = ((v - v.mean()) / v.std() for v in (a, b))
        value, sample = float((a * b).mean()), np.full(1, np.nan)
        if len(x) > 2 and np.isfinite(value):
            m = resampled_means(np.stack([a, b, a * a, b * b, a * b], 1), replicates, rng).T
            sample = (m[4] - m[0] * m[1]) / np.sqrt((m[2] - m[0] ** 2) * (m[3] - m[1] ** 2))
    return percentile_figure(value, sample)


def vote_transform(count: np.ndarray, total: np.ndarray, a: np.ndarray, b: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Randomised transform of counts under beta-binomial laws.

    Args:
        count: votes for an answer, rounded to whole ones, shape ``(object,)``.
        total: votes on the question, same shape.
        a: concentration of the answer, same shape.
        b: of all others together.
        rng: randomises.

    Returns:
        Between 0 and 1, uniform where the law is right, shape ``(object,)``.
    """
    n = np.rint(total)
    count = np.minimum(np.rint(count), n)
    k = np.arange(int(n.max()) + 1)
    uniform, out = rng.random(len(n)), np.empty(len(n))
    step = max(1, CHUNK // len(k))
    for start in range(0, len(n), step):
        rows = slice(start, start + step)
        size, alpha, beta = n[rows, None], a[rows, None], b[rows, None]
        left = np.maximum(size - k, 0)
        log_p = gammaln(size + 1) - gammaln(k + 1) - gammaln(left + 1) + betaln(k + alpha, left + beta) - betaln(alpha, beta)
        p = np.where(k <= size, np.exp(log_p), 0.0)
        p /= p.sum(1, keepdims=True)
        below = np.where(k < count[rows, None], p, 0.0).sum(1)
        out[rows] = below + uniform[rows] * np.where(k == count[rows, None], p, 0.0).sum(1)
    return np.clip(out, 0.0, 1.0)
