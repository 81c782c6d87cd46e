"""Answers for tables of objects: posterior summaries with the surveys used and a flag where they must not be trusted."""

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sbi_da.answers import answer_columns
from sbi_da.errors import ConfigError, SbiDaError, UnknownNameError
from sbi_da.estimator import Estimator
from sbi_da.importance import low_ess
from sbi_da.posteriors import Posterior
from sbi_da.records import Records, read_table
from sbi_da.refinement import refine, simulator_of
from sbi_da.rejection import Score

__all__ = ["LOW_ESS", "NO_DATA", "OUTSIDE_PRIOR", "UNREADABLE", "query", "read_objects", "summarise", "summary_units"]

NO_DATA = "no_data"
"""Flag of an object none of whose measurements could be used: its posterior is the prior."""
LOW_ESS = "low_ess"
"""Flag of an object for which few draws carry the weight of the condition, of the prior asked for or of the likelihood."""
OUTSIDE_PRIOR = "outside_prior"
"""Flag of an object none of whose draws has any weight: its summaries are NaN."""
UNREADABLE = "unreadable_image"
"""Flag of an object with an image that could not be read; the root column ``image_flag`` of its records says why."""
CHUNK = 2000
"""Objects sampled at a time; fewer when more than 1,000 draws are wanted."""
QUANTILES = (0.05, 0.16, 0.5, 0.84, 0.95)
STATISTICS = ("mean", "sd", *(f"q{round(100 * q):02d}" for q in QUANTILES))


def read_objects(
    estimator: Estimator, path: str | Path, surveys: Sequence[str] | None = None, **options: Any
) -> Records:
    """Read a table, or saved records, with the survey cards the estimator was trained with.

    Args:
        estimator: knows its surveys.
        path: a table, or a folder of records.
        surveys: read only these; of the others a table's columns of identifiers are still used.
        options: passed to :func:`sbi_da.records.read_table`; records take none.

    Raises:
        UnknownNameError: a survey that the estimator, or the records, do not have.
        ConfigError: an option that applies to tables only.
    """
    for name in surveys or ():
        if name not in estimator.surveys:
            raise UnknownNameError("survey", name, estimator.surveys, "which this estimator was trained with")
    if Path(path).is_dir() or Path(path).suffix == ".zarr":
        flags = {"units": "unit", "parameters": "label"}
        given = [f"{key} (--{flags.get(key, key.replace('_', '-'))})" for key in options]
        if given:
            raise ConfigError(f"{path}: {', '.join(given)} applies to tables only, and these are saved records: leave it out")
        records = Records.open(path)
        for name in surveys or ():
            if name not in records.surveys:
                raise UnknownNameError("survey", name, records.surveys, f"in the records {path}")
        return records.select([s for s in records.surveys if s in surveys]) if surveys else records
    return read_table(path, estimator.layout.surveys, required=tuple(surveys or ()), only=surveys, **options)


def query(
    estimator: Estimator,
    records: Records,
    draws: int = 1000,
    given: Mapping[str, float] | None = None,
    prior: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    reject: float | None = None,
    reject_by: Score = "anomaly",
    refinement: int = 0,
) -> dict[str, np.ndarray]:
    """Summaries of the posteriors of ``records`` as columns, sampled in chunks of objects.

    Args:
        estimator: who answers.
        records: the objects.
        draws: posterior draws per object.
        given: parameters that are known.
        prior: laws that replace those of the training prior, by parameter.
        seed: of the draws.
        reject: of classes, votes or labels: share of held-out simulations that would be rejected as like none; None: no column says so.
        reject_by: ``anomaly``, or of classes ``entropy``; see :mod:`sbi_da.rejection`.
        refinement: rounds of refinement by the simulator's likelihood, see :func:`sbi_da.refinement.refine`; 0: none.

    Returns:
        ``id``; ``surveys`` (those with a measurement, joined by ``+``); ``flag`` (empty, or :data:`NO_DATA`, :data:`LOW_ESS`,
        :data:`OUTSIDE_PRIOR`, :data:`UNREADABLE`, joined by ``+``); with ``given``, ``prior`` or ``refinement`` the effective sample size
        ``ess``, with ``refinement`` also ``log_evidence``; and for every parameter and derived quantity its mean, standard deviation and
        5, 16, 50, 84, 95 % quantiles as ``<name>_mean``, ``<name>_sd``, ``<name>_q05`` ... in its own unit. Where a class, votes or
        labels are inferred instead: what :func:`~sbi_da.answers.answer_columns` says; ``prior`` then gives fractions of the classes.
    """
    if draws < 1:
        raise SbiDaError(f"draws must be at least 1, not {draws}")
    names = [*estimator.parameter_names, *estimator.derived]
    used = records.select([s for s in records.surveys if s in estimator.surveys])
    pattern = used.pattern()
    if estimator.target != "density":
        if refinement:
            raise SbiDaError(f"refinement is of parameters: this estimator infers the {estimator.target} {', '.join(names)}, leave it out")
        _check_question(estimator, given, prior)
        columns, unreadable = answer_columns(estimator, records, (prior or {}).get(names[0]), reject, reject_by)
        flags = {NO_DATA: pattern == "none", UNREADABLE: unreadable != ""}
        return {"id": records.ids, "surveys": pattern, "flag": _joined(flags), **columns}
    if reject is not None:
        raise SbiDaError("reject is of classes, votes and labels: this estimator infers parameters, leave it out")
    if refinement and given:
        raise SbiDaError(f"given {', '.join(given)}: a refined posterior cannot be held at a value: leave out one of the two")
    simulator = simulator_of(estimator) if refinement else None
    ess, evidence = np.full(len(records), np.nan), np.full(len(records), np.nan)
    summary = {name: np.full((len(STATISTICS), len(records)), np.nan) for name in names}
    step = max(1, min(CHUNK, 1000 * CHUNK // draws))
    for start in range(0, max(1, len(records)), step):
        rows = slice(start, start + step)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="effective sample size")  # said once, of all objects, below
            if refinement:
                drawn = refine(estimator, records.isel(rows), draws, seed, rounds=refinement, prior=prior, simulator=simulator)
                evidence[rows] = drawn["log_evidence"].values
            else:
                drawn = _asked(estimator(records.isel(rows)), given, prior).sample(draws, seed)
        if "effective_sample_size" in drawn:
            ess[rows] = drawn["effective_sample_size"].values
        for name in names:
            summary[name][:, rows] = summarise(drawn[name].values)
    lost, least = ess == 0, low_ess(draws)
    low = (ess < least) & ~lost
    flags = {NO_DATA: pattern == "none", LOW_ESS: low, OUTSIDE_PRIOR: lost}
    columns = {"id": records.ids, "surveys": pattern, "flag": _joined(flags)}
    if given or prior or refinement:
        columns["ess"] = ess
        if refinement:
            columns["log_evidence"] = evidence
        if (low | lost).any():
            asked = "the condition or the prior lies in the tail of their posteriors"
            why = "few of their draws explain what was measured" if refinement else asked
            warnings.warn(
                f"effective sample size below {least:g} for {(low | lost).sum()} of {len(records)} objects: {why}; "
                f"see the flags {LOW_ESS} and {OUTSIDE_PRIOR}",
                stacklevel=2,
            )
    for name in names:
        for statistic, values in zip(STATISTICS, summary[name], strict=True):
            columns[f"{name}_{statistic}"] = np.where(lost, np.nan, values)
    return columns


def _asked(posterior: Posterior, given: Mapping[str, float] | None, prior: Mapping[str, Mapping[str, Any]] | None) -> Posterior:
    posterior = posterior.given(**given) if given else posterior
    return posterior.under(**prior) if prior else posterior


def _check_question(estimator: Estimator, given: Mapping[str, float] | None, prior: Mapping[str, Any] | None) -> None:
    """Refuse what makes no sense of classes, votes or labels."""
    name = estimator.parameter_names[0]
    if given and estimator.target == "class":
        raise SbiDaError(f"given {', '.join(given)}: only the class {name} is inferred, and it cannot be held: use prior for its fractions")
    if given or (prior and estimator.target != "class"):
        raise SbiDaError(f"this estimator infers {estimator.target}: nothing can be given, and no prior put in place of another")
    for key in prior or {}:
        if key != name:
            raise UnknownNameError("parameter", key, [name])


def summarise(drawn: np.ndarray) -> np.ndarray:
    """The :data:`STATISTICS` of draws of shape ``(object, draw)``, shape ``(statistic, object)``; NaN draws are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # one draw has no deviation, no draw has no mean
        quantile: Any = np.nanquantile if np.isnan(drawn).any() else np.quantile
        mean, sd = np.nanmean(drawn, axis=1), np.nanstd(drawn, axis=1, ddof=1)
        return np.stack([mean, sd, *quantile(drawn, QUANTILES, axis=1)])


def summary_units(estimator: Estimator) -> dict[str, str]:
    """Units of the columns of :func:`query`, where they have one that astropy reads; logarithms (dex) have none."""
    from astropy import units as u

    found: dict[str, str] = {}
    if estimator.target != "density":
        return found
    for name in (*estimator.parameter_names, *estimator.derived):
        unit = estimator.parameter(name).unit
        try:
            parsed = u.Unit(unit)
        except (ValueError, TypeError):
            continue
        if unit.strip() and "dex" not in unit and parsed != u.dimensionless_unscaled:
            found |= {f"{name}_{statistic}": unit for statistic in STATISTICS}
    return found


def _joined(flags: Mapping[str, np.ndarray]) -> np.ndarray:
    """For each object the names of its flags, joined by ``+``."""
    rows = zip(*flags.values(), strict=True)
    return np.array(["+".join(name for name, on in zip(flags, row, strict=True) if on) for row in rows], dtype=str)
