r"""Ages of open clusters from their members: the posterior of one shared age, against the literature.

Every member has a posterior of log age of its own; a cluster's is

.. math:: p(t\mid x_1\dots x_n) \propto p(t) \prod_i \left[(1-f)\,\frac{p(t\mid x_i)}{p(t)} + f\right],

the product of the members' posteriors with the prior counted once. ``f`` is the share of members that tell nothing of the age
(field stars, unresolved multiples, bad photometry): zero in the plain product, fitted per cluster in the hierarchical form, with a
flat prior on (0, 0.5). Members' posteriors are kernel estimates of draws.

:func:`calibrated_ages` aligns with members of one half of the clusters, whose published ages, [Fe/H] and A_V are labels, and dates the
other half, in turn: no cluster is dated by an estimator that has seen its age.
"""

import warnings
from collections.abc import Container
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from scipy.special import logsumexp

from sbi_da.alignment_config import AlignmentConfig, Weighting
from sbi_da.alignment_run import align
from sbi_da.estimator import Estimator
from sbi_da.inference import read_objects
from sbi_da.records import Records

__all__ = ["ages", "bias_and_scatter", "calibrated_ages", "cluster_ages", "read_members"]

GRID = np.linspace(6.0, 10.1, 165)
SHARES = np.linspace(0.02, 0.5, 13)
WIDTH = 0.08
"""Kernel width [dex]."""
MEMBERS, FEWEST = 60, 12
LABELS = {"log_age": ("cluster_log_age", "cluster_log_age_error"), "feh": ("cluster_feh", None), "av": ("cluster_av", None)}
CATALOGUES, FEH_ERROR, AV_ERROR, PATCHY = 0.2, 0.1, 0.1, 0.15
"""Of a member's labels: by how much catalogues disagree on ages [dex], [Fe/H] [dex], A_V [mag] and, relative to it, its spread within a
cluster."""
STEPS = AlignmentConfig(
    epochs=3, learning_rate=5e-4, adapter=["instrument", "film", "residual"], labelled=Weighting(kind="fixed", value=0.3)
)
"""The correction and the posterior loss on labelled members together."""


def read_members(estimator: Estimator, path: Path) -> tuple[Records, dict[str, np.ndarray]]:
    """Members of all clusters, and per member the cluster and its published log ages."""
    content = pq.read_table(path, columns=["cluster", "cluster_log_age", "hunt2024_log_age_50"]).to_pandas()
    records = read_objects(estimator, path, id_column="#row")
    return records, {name: content[name].to_numpy() for name in content}


def densities(estimator: Estimator, members: Records, draws: int = 200) -> np.ndarray:
    """p(t | x) / p(t) of each member on the grid, shape ``(member, age)``."""
    drawn = np.concatenate([
        estimator(members.isel(slice(start, start + 500))).marginal(["log_age"]).sample(draws)["log_age"].values
        for start in range(0, len(members), 500)
    ])
    flat = estimator.density[0].sample(40_000, np.random.default_rng(0))["log_age"]

    def kernel(sample: np.ndarray) -> np.ndarray:
        """Reflected at the ends, so that density does not leak out of the support."""
        total = np.zeros(len(GRID))
        for image in (sample, 2 * GRID[0] - sample, 2 * GRID[-1] - sample):
            counts = np.histogram(image, bins=np.linspace(GRID[0] - 0.0125, GRID[-1] + 0.0125, len(GRID) + 1))[0]
            total += counts
        shape = np.exp(-0.5 * ((GRID - GRID[:, None]) / WIDTH) ** 2)
        shape /= shape.sum(1, keepdims=True)
        smooth = total @ shape
        return np.asarray(smooth / smooth.sum())

    prior = kernel(flat)
    return np.stack([kernel(sample) for sample in drawn]) / prior


def ages(ratio: np.ndarray, prior: np.ndarray) -> dict[str, float]:
    """Median log age of a cluster, by the product and hierarchically.

    Args:
        ratio: p(t | x) / p(t) of its members, shape ``(member, age)``.
        prior: p(t) on the grid.
    """
    with np.errstate(divide="ignore"):
        product = np.log(prior) + np.log(np.maximum(ratio, 1e-6)).sum(0)
        mixed = np.stack([np.log((1 - f) * ratio + f).sum(0) for f in SHARES])
        hierarchical = np.log(prior) + logsumexp(mixed, axis=0)
    found: dict[str, float] = {}
    for name, log_density in (("product", product), ("hierarchical", hierarchical)):
        cumulative = np.exp(log_density - log_density.max()).cumsum()
        low, mid, high = np.interp(np.array([0.16, 0.5, 0.84]) * cumulative[-1], cumulative, GRID)
        found |= {name: float(mid), f"{name}_low": float(low), f"{name}_high": float(high)}
    return found


def labelled_members(estimator: Estimator, path: Path) -> Records:
    """Members of all clusters, grouped by cluster, that carry its labels."""
    records = read_objects(estimator, path, id_column="#row", group_column="cluster", parameters=LABELS)
    known = records.parameters
    return records.with_parameters({
        "log_age_error": np.hypot(known["log_age_error"], CATALOGUES), "feh_error": np.full(len(records), FEH_ERROR),
        "av_error": np.hypot(AV_ERROR, PATCHY * known["av"]),
    })


def calibrated_ages(
    estimator: Estimator, path: Path, count: int, seed: int = 0, threads: int = 1
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows as of :func:`cluster_ages` after alignment with ``count`` members of the other half of the clusters, and what the gate said."""
    members = labelled_members(estimator, path)
    rng = np.random.default_rng(seed)
    of = members.columns["group"]
    clusters = rng.permutation(np.unique(of))
    rows, reasons = [], []
    for half in (0, 1):
        taught, dated = clusters[half::2], clusters[1 - half :: 2]
        own = [rng.permutation(np.flatnonzero(of == name)) for name in taught]
        deal = [rows_of[k] for k in range(count) for rows_of in own if k < len(rows_of)]  # one of each cluster in turn
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            found = align(estimator, members.isel(np.sort(deal[:count])), config=STEPS, seed=seed, threads=threads)
        reasons.append(found.verdict.reason)
        rows += cluster_ages(found.candidate, path, seed, set(dated))
    return rows, reasons


def cluster_ages(estimator: Estimator, path: Path, seed: int = 0, only: Container[str] | None = None) -> list[dict[str, Any]]:
    """One row per cluster: ages found and published."""
    members, known = read_members(estimator, path)
    rows = []
    for k, name in enumerate(np.unique(known["cluster"])):
        if only is not None and name not in only:
            continue
        own = np.flatnonzero(known["cluster"] == name)
        chosen = np.sort(np.random.default_rng([seed, k]).permutation(own)[:MEMBERS])
        if len(chosen) < FEWEST:
            continue
        found = ages(densities(estimator, members.isel(chosen)), np.ones(len(GRID)))
        rows.append({
            "cluster": str(name), "members": len(chosen), "published": float(known["cluster_log_age"][own[0]]),
            "hunt2024": float(known["hunt2024_log_age_50"][own[0]]), **found,
        })
    return rows


def bias_and_scatter(rows: list[dict[str, Any]], by: str = "hierarchical", replicates: int = 2000) -> dict[str, dict[str, float]]:
    """Median difference to the published ages and 1.48 MAD, with 95 % bootstrap intervals over clusters."""
    difference = np.array([row[by] - row["published"] for row in rows])
    index = np.random.default_rng(0).integers(len(difference), size=(replicates, len(difference)))

    def robust(x: np.ndarray) -> np.ndarray:
        middle = np.median(x, -1, keepdims=True)
        return np.stack([middle[..., 0], 1.4826 * np.median(np.abs(x - middle), -1)])

    value, spread = robust(difference), robust(difference[index])
    low, high = np.percentile(spread, [2.5, 97.5], axis=1)
    return {
        key: {"value": float(value[k]), "low": float(low[k]), "high": float(high[k])} for k, key in enumerate(("bias", "scatter"))
    }
