"""The answer to a question about some rows, as columns of a table."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

import sbi_da
from sbi_da.artefact import fingerprint
from sbi_da.catalog.flags import Flag
from sbi_da.catalog.modes import densest
from sbi_da.catalog.question import Question
from sbi_da.catalog.rows import Rows
from sbi_da.catalog.steady import chunks, steady_features, steady_statistics
from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.inference import QUANTILES, STATISTICS, summarise, summary_units
from sbi_da.posteriors import Posterior
from sbi_da.posteriors.exact import alone, exact_summaries
from sbi_da.trust import Reference
from sbi_da.trust.reference import PLACE

__all__ = ["SCHEMA", "Answerer", "described"]

STRANGE = 1e-3
"""p-value below which an object is flagged."""

WITHOUT = 100
"""Draws that objects computed at a time would have, if no draws are wanted."""

SCHEMA = 1
"""Of the columns of an answer."""


@dataclass(frozen=True)
class Answerer:
    """Who answers.

    Attributes:
        estimator: of posteriors of continuous parameters, in evaluation mode.
        reference: what simulated objects look like; None: nothing is said of how strange objects are.
    """

    estimator: Estimator
    reference: Reference | None = None

    @classmethod
    def load(cls, run: Path, device: str = "cpu") -> "Answerer":
        """From an artefact, or the run that made it, to compute on a device."""
        estimator = Estimator.load(run)
        return cls(estimator, Reference.load(run, estimator)).to(device)

    @classmethod
    def kept(cls, run: Path, device: str = "cpu") -> "Answerer":
        """Loaded once by each process, and again when the artefact is another one."""
        return _kept(run, device, fingerprint(run), fingerprint(run / PLACE, PLACE) if (run / PLACE).is_dir() else "")

    def to(self, device: str | torch.device) -> "Answerer":
        """Compute on a device."""
        self.estimator.to(device)
        if self.reference is not None:
            self.reference.to(device)
        return self

    def check(self, question: Question) -> None:
        """Refuse what this estimator cannot be asked.

        Raises:
            SbiDaError: summaries without draws that need them.
        """
        prior, head = self.estimator.density
        closed = alone(head, prior)
        drawn = [name for name in (*prior.names, *self.estimator.derived) if name not in closed]
        if drawn and not question.draws:
            why = "closed forms are of mixtures (network.head=mixture)" if not closed else "they depend on other parameters, or are derived"
            raise SbiDaError(f"no draws: the summaries of {', '.join(drawn)} need some: {why}")

    def __call__(self, rows: Rows, question: Question) -> dict[str, Any]:
        """Columns of the answer, each of shape ``(object,)``, draws and correlations with a second dimension; see docs/scale.md."""
        observed = self.estimator.layout.read(rows.records)
        features = steady_features(self.estimator, observed, real=True)
        strange: dict[str, np.ndarray] = {}
        if self.reference and len(observed):
            found = steady_statistics(self.reference, self.estimator, features, observed)
            strange = {name: p.astype(np.float32) for name, p in self.reference.p_values(found).items()}
        elif self.reference:
            strange = {name: np.empty(0, np.float32) for name in self.reference.columns}
        posterior = self.estimator.posterior(features.told, observed, rows.ids, real=True)
        columns = _summaries(posterior, self.estimator.derived, question)
        columns |= {f"p_{name}": p for name, p in strange.items()}
        flags = rows.flags | np.where(strange["all"] < STRANGE, int(Flag.STRANGE), 0).astype(np.int32) if strange else rows.flags
        kept = {name: np.ma.MaskedArray(c.values, c.missing) for name, c in rows.kept.items()}
        first = {"id": rows.ids, "surveys": rows.records.pattern(), "flags": flags}
        clash = [name for name in kept if name in {**first, **columns}]
        if clash:
            raise SbiDaError(f"column {clash[0]!r} cannot be kept: the answer has one of that name; rename it")
        return {"id": first.pop("id"), **kept, **first, **columns}


@lru_cache(maxsize=2)
def _kept(run: Path, device: str, estimator: str, trust: str) -> Answerer:
    return Answerer.load(run, device)


def _summaries(posterior: Posterior, derived: tuple[str, ...], question: Question) -> dict[str, Any]:
    """Columns that summarise posteriors."""
    prior, closed = posterior.prior, alone(posterior.head, posterior.prior)
    names, n = [*prior.names, *derived], len(posterior)
    summary = {name: np.full((len(STATISTICS) + 1, n), np.nan, np.float32) for name in names}
    correlation = np.empty((n, len(names) * (len(names) - 1) // 2), np.float32)
    draws = {name: np.empty((n, question.kept_draws), np.float16) for name in names}
    for some, part in chunks(posterior, question.draws or WITHOUT):
        count = some.stop - some.start
        exact = exact_summaries(part, closed, QUANTILES, question.draws or WITHOUT)
        for name in closed:
            summary[name][:-1, some] = exact[name][:, :count]
        if not question.draws:
            continue
        found = part.quantities(part.normal_scores(question.draws, question.seed))
        best = densest(np.stack([found[name] for name in prior.names], axis=-1))
        for name in names:
            values = found[name]
            if name not in closed:
                summary[name][:-1, some] = summarise(values)[:, :count]
            summary[name][-1, some] = np.take_along_axis(values, best[:, None], axis=1)[:count, 0]
            if question.kept_draws:
                draws[name][some] = _standard(values)[:count, : question.kept_draws]
        if question.correlations:
            correlation[some] = _correlations(np.stack([found[name] for name in names], axis=1))[:count]
    columns: dict[str, Any] = {}
    said = (*STATISTICS, "map") if question.draws else STATISTICS
    for name in names:
        columns |= {f"{name}_{s}": row for s, row in zip(said, summary[name][: len(said)], strict=True)}
    columns["edge"] = np.min([_edge(summary[name], prior.bounds(name)) for name in prior.names], axis=0)
    if question.correlations:
        columns["correlations"] = correlation
    if question.kept_draws:
        columns |= {f"{name}_draws": draws[name] for name in names}
    return columns


def _edge(summary: np.ndarray, bounds: tuple[float, float]) -> np.ndarray:
    """How many standard deviations the median of a parameter lies from the nearest bound of the prior."""
    sd, median = (summary[STATISTICS.index(name)] for name in ("sd", "q50"))
    away = np.minimum(median - bounds[0], bounds[1] - median)
    return np.divide(away, sd, out=np.full_like(away, np.inf), where=sd > 0)


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


def described(estimator: Estimator, question: Question) -> tuple[Mapping[str, str], dict[bytes, bytes]]:
    """Units by column, and what a file says of itself: version of the columns, flags, question."""
    units = {name.replace("_mean", "_map"): unit for name, unit in summary_units(estimator).items() if name.endswith("_mean")}
    said = {
        "schema": SCHEMA, "sbi_da": sbi_da.__version__, "flags": {str(int(flag)): flag.meaning for flag in Flag},
        "quantities": [*estimator.parameter_names, *estimator.derived], "question": question.model_dump(mode="json"),
    }
    longest = len("+".join(estimator.surveys))  # astropy wants to know how much room a text takes
    return {**summary_units(estimator), **units}, {b"sbi_da": json.dumps(said).encode(), b"table::len::surveys": b"%d" % max(4, longest)}
