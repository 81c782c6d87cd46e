"""Answers for tables of objects: posterior summaries with the surveys used and a flag where there is nothing to go by."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sbi_da.errors import UnknownNameError
from sbi_da.estimator import Estimator
from sbi_da.records import Records, read_table

__all__ = ["NO_DATA", "query", "read_objects"]

NO_DATA = "no_data"
"""Flag of an object none of whose measurements could be used: its posterior is the prior."""


def read_objects(
    estimator: Estimator, path: str | Path, surveys: Sequence[str] | None = None, **options: Any
) -> Records:
    """Read a table, or saved records, with the survey cards the estimator was trained with.

    Args:
        estimator: knows its surveys.
        path: a table, or a folder of records.
        surveys: use only these.
        options: passed to :func:`sbi_da.records.read_table`.
    """
    for name in surveys or ():
        if name not in estimator.surveys:
            raise UnknownNameError("survey", name, estimator.surveys, "which this estimator was trained with")
    if Path(path).is_dir() or Path(path).suffix == ".zarr":
        records = Records.open(path)
    else:
        records = read_table(path, estimator.layout.surveys, required=tuple(surveys or ()), **options)
    return records.select([s for s in records.surveys if s in surveys]) if surveys else records


def query(
    estimator: Estimator,
    records: Records,
    draws: int = 1000,
    given: Mapping[str, float] | None = None,
    prior: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Summaries of the posteriors of ``records`` as columns.

    Args:
        estimator: who answers.
        records: the objects.
        draws: posterior draws per object.
        given: parameters that are known.
        prior: laws that replace those of the training prior, by parameter.
        seed: of the draws.

    Returns:
        ``id``; ``surveys`` (those with a measurement, joined by ``+``); ``flag`` (empty, or :data:`NO_DATA`); and for every
        parameter and derived quantity its mean, standard deviation and 5, 16, 50, 84, 95 % quantiles as ``<name>_mean``, ``<name>_sd``,
        ``<name>_q05`` ... in its own unit.
    """
    posterior = estimator(records)
    if given:
        posterior = posterior.given(**given)
    if prior:
        posterior = posterior.under(**prior)
    summary = posterior.summary(draws, seed)
    used = records.select([s for s in records.surveys if s in estimator.surveys])
    pattern = used.pattern()
    columns: dict[str, np.ndarray] = {
        "id": records.ids,
        "surveys": pattern,
        "flag": np.where(pattern == "none", NO_DATA, ""),
    }
    for name in summary["parameter"].values:
        for statistic in summary.data_vars:
            columns[f"{name}_{statistic}"] = summary[statistic].sel(parameter=name).values
    return columns
