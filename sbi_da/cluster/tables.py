"""Clusters of a table: objects by group, one row of summaries per group."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from sbi_da.cluster.combination import combine
from sbi_da.cluster.result import Cluster
from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.inference import NO_DATA, STATISTICS, summarise
from sbi_da.records import Records

__all__ = ["cluster_units", "clusters", "member_columns"]


def clusters(
    estimator: Estimator,
    records: Records,
    shared: Sequence[str],
    draws: int = 1000,
    seed: int = 0,
    keep: Callable[[str, Cluster], None] | None = None,
    **options: Any,
) -> dict[str, np.ndarray]:
    """Shared parameters of every group of ``records`` as columns.

    Args:
        estimator: of the members' parameters.
        records: objects with the root column ``group``.
        shared: what the objects of a group have in common.
        draws: points that are weighed for each group.
        seed: of all draws.
        keep: called with each group's name and result.
        options: ``spread``, ``contamination``, ``prior`` of :func:`~sbi_da.cluster.combine`.

    Returns:
        ``group``; ``members`` (those with any measurement: the others say nothing); ``flag``; ``ess``; ``log_bayes_factor``; for every
        shared parameter, and the contamination where it is inferred, mean, standard deviation and quantiles as in
        :func:`~sbi_da.inference.query`, and the Monte Carlo error of the mean as ``<name>_mc_error``.

    Raises:
        SbiDaError: no column ``group``, no continuous parameters, or what :func:`~sbi_da.cluster.combine` refuses.
    """
    if "group" not in records.columns:
        raise SbiDaError("cluster: the objects have no column group: name the column that says which belong together")
    if estimator.target != "density":
        raise SbiDaError(f"cluster: this estimator infers the {estimator.target} {', '.join(estimator.parameter_names)}: nothing to share")
    used = records.select([s for s in records.surveys if s in estimator.surveys])
    seen, of = used.pattern() != "none", records.columns["group"]
    rows: list[dict[str, Any]] = []
    for name in np.unique(of):
        own = np.flatnonzero((of == name) & seen)
        row: dict[str, Any] = {"group": name, "members": len(own), "flag": NO_DATA, "ess": np.nan, "log_bayes_factor": np.nan}
        if len(own):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="cluster of")  # the flags say it
                found = combine(estimator(records.isel(own)), shared, points=draws, seed=seed, **options)
            row |= {"flag": found.flag, "ess": found.effective_sample_size, "log_bayes_factor": found.log_bayes_factor}
            summary = found.summary()
            for k, statistic in product(summary["parameter"].values, summary.data_vars):
                row[f"{k}_{statistic}"] = float(summary[statistic].sel(parameter=k))
            if keep is not None:
                keep(str(name), found)
        rows.append(row)
    longest = max(rows, key=lambda row: len(row))
    return {key: np.array([row.get(key, np.nan) for row in rows]) for key in longest}


def member_columns(estimator: Estimator, name: str, cluster: Cluster, draws: int = 1000, seed: int = 0) -> dict[str, np.ndarray]:
    """Each member given the cluster: ``id``, ``group``, ``membership``, ``ess`` and summaries as in :func:`~sbi_da.inference.query`."""
    drawn = cluster.members(draws, seed)
    ids = drawn["object"].values
    columns: dict[str, np.ndarray] = {
        "id": ids, "group": np.full(len(ids), name), "membership": drawn["membership"].values, "ess": drawn["effective_sample_size"].values,
    }
    for key in (*estimator.parameter_names, *estimator.derived):
        columns |= {f"{key}_{s}": v for s, v in zip(STATISTICS, summarise(drawn[key].values), strict=True)}
    return columns


def cluster_units(units: Mapping[str, str], columns: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Units of columns, from those of :func:`~sbi_da.inference.summary_units`."""
    errors = {f"{key.removesuffix('_mean')}_mc_error": unit for key, unit in units.items() if key.endswith("_mean")}
    return {key: unit for key, unit in {**units, **errors}.items() if key in columns}
