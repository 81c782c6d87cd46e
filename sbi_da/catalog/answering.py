"""The answer to a question about some rows, as columns of a table."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

import sbi_da
from sbi_da.catalog.flags import Flag
from sbi_da.catalog.modes import densest
from sbi_da.catalog.question import Question
from sbi_da.catalog.rows import Rows
from sbi_da.catalog.steady import chunks, steady_contexts
from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.inference import STATISTICS, summarise, summary_units
from sbi_da.prior import Prior

__all__ = ["SCHEMA", "answer", "described"]

SCHEMA = 1
"""Of the columns of an answer."""


def answer(estimator: Estimator, rows: Rows, question: Question) -> dict[str, Any]:
    """Columns of the answer, each of shape ``(object,)``, draws and correlations with a second dimension; see docs/scale.md."""
    prior, _ = estimator.density
    records = rows.records
    kept = {name: np.ma.MaskedArray(c.values, c.missing) for name, c in rows.kept.items()}
    columns: dict[str, Any] = {"id": rows.ids, "surveys": records.pattern(), "flags": rows.flags}
    observed = estimator.layout.read(records)
    posterior = estimator.posterior(steady_contexts(estimator, observed, real=True), observed, rows.ids, real=True)
    names, n = [*prior.names, *estimator.derived], len(records)
    summary = {name: np.empty((len(STATISTICS) + 1, n), np.float32) for name in names}
    correlation = np.empty((n, len(names) * (len(names) - 1) // 2), np.float32)
    draws = {name: np.empty((n, question.kept_draws), np.float16) for name in names}
    for some, part in chunks(posterior, question.draws):
        z = part.normal_scores(question.draws, question.seed)
        found = part.quantities(z)
        best = densest(z, prior.log_jacobian({k: found[k] for k in prior.names}, z))
        count = some.stop - some.start
        for name in names:
            values = found[name]
            mode = np.take_along_axis(values, best[:, None], axis=1)[:, 0]
            summary[name][:, some] = np.concatenate([summarise(values), mode[None]])[:, :count]
            if question.kept_draws:
                draws[name][some] = _standard(values)[:count, : question.kept_draws]
        if question.correlations:
            correlation[some] = _correlations(np.stack([found[name] for name in names], axis=1))[:count]
    for name in names:
        columns |= {f"{name}_{s}": row for s, row in zip((*STATISTICS, "map"), summary[name], strict=True)}
    if question.correlations:
        columns["correlations"] = correlation
    if question.kept_draws:
        columns |= {f"{name}_draws": draws[name] for name in names}
    clash = [name for name in kept if name in columns]
    if clash:
        raise SbiDaError(f"column {clash[0]!r} cannot be kept: the answer has one of that name; rename it")
    return {"id": columns.pop("id"), **kept, **columns}


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


def described(estimator: Estimator, prior: Prior, question: Question) -> tuple[Mapping[str, str], dict[bytes, bytes]]:
    """Units by column, and what a file says of itself: version of the columns, flags, question."""
    units = {name.replace("_mean", "_map"): unit for name, unit in summary_units(estimator).items() if name.endswith("_mean")}
    said = {
        "schema": SCHEMA, "sbi_da": sbi_da.__version__, "flags": {str(int(flag)): flag.meaning for flag in Flag},
        "quantities": [*prior.names, *estimator.derived], "question": question.model_dump(mode="json"),
    }
    return {**summary_units(estimator), **units}, {b"sbi_da": json.dumps(said).encode()}
