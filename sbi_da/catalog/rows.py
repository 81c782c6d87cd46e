"""Rows of a catalogue as an estimator takes them: what cannot be used is left out and flagged, a row that is nobody is set aside."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sbi_da.catalog.flags import Flag
from sbi_da.catalog.question import Question
from sbi_da.errors import TableError
from sbi_da.layout import unusable
from sbi_da.records import ABSENT, LIMIT, Measurements, Records
from sbi_da.records.columns import Column, TableSource, some
from sbi_da.records.faults import LeaveOut
from sbi_da.records.identifiers import ROW_NUMBER, keys, readable_identifiers
from sbi_da.records.tables import read_measurements
from sbi_da.surveys import Survey

__all__ = ["Rows", "identifiers_of", "read_rows"]


@dataclass(frozen=True)
class Rows:
    """Some rows, in the order of the catalogue.

    Attributes:
        records: of the rows that can be answered, whose identifiers are row numbers.
        ids: identifiers of these, some of which may repeat, shape ``(object,)``.
        flags: of these, sums of :class:`~sbi_da.catalog.flags.Flag`, shape ``(object,)``, int32.
        kept: columns to copy to the answer, by name, of these.
        rejected: numbers of the rows that are set aside, shape ``(row,)``.
        reasons: why, same shape.
    """

    records: Records
    ids: np.ndarray
    flags: np.ndarray
    kept: dict[str, Column]
    rejected: np.ndarray
    reasons: np.ndarray

    @property
    def id_type(self) -> str:
        """Type of the identifiers, however long they are."""
        return str(self.ids.dtype) if self.ids.dtype.kind in "iu" else "text"


def identifiers_of(source: TableSource, id_column: str, first: int) -> tuple[np.ndarray, np.ndarray]:
    """Identifiers of rows of which the first has number ``first``, and why some cannot serve."""
    if id_column == ROW_NUMBER:
        return np.arange(first, first + len(source)), np.full(len(source), "")
    return readable_identifiers(source.column(id_column), f"{source.title}: column {id_column!r}")


def read_rows(
    source: TableSource, surveys: Sequence[Survey], question: Question, id_column: str, first: int = 0, repeated: np.ndarray | None = None
) -> Rows:
    """Read rows.

    Args:
        source: an open table with these rows.
        surveys: whose columns to look for.
        question: which of them to read, in what units, and what to keep.
        id_column: of identifiers, or ``"#row"``.
        first: number of the first row in the catalogue.
        repeated: keys of identifiers that occur more than once, sorted; None: none do.

    Raises:
        TableError: a column that is not there, or that no row of can be read.
    """
    for name in (*question.units, *question.keep, *([id_column] if id_column != ROW_NUMBER else [])):
        if name not in source.names:
            raise TableError(f"{source.title}: no column {name!r}; it has {some(source.names)}")
    faults = LeaveOut(len(source))
    measurements, unused = read_measurements(source, surveys, question.units, question.surveys, first, faults)
    for name, m in measurements.items():
        bad = unusable(m.value, m.error) & (m.state != ABSENT)
        faults.rows |= bad.any(1)
        measurements[name] = m.where(~bad)
    ids, reasons = identifiers_of(source, id_column, first)
    usable = reasons == ""
    states = np.concatenate([m.state for m in measurements.values()], axis=1)
    again = np.zeros(len(ids), bool)
    if repeated is not None and len(repeated):
        own = keys(ids)
        again = repeated[np.searchsorted(repeated, own).clip(max=len(repeated) - 1)] == own
    without = np.logical_or.reduce(list(unused.values()))
    said = {
        Flag.NO_DATA: (states == ABSENT).all(1), Flag.LEFT_OUT: faults.rows, Flag.NO_ERROR: without,
        Flag.LIMIT: (states == LIMIT).any(1), Flag.REPEATED: again,
    }
    flags = sum(np.where(on, int(flag), 0) for flag, on in said.items())
    numbers = np.arange(first, first + len(source))
    held = {k: Measurements(m.channels, m.units, m.value[usable], m.error[usable], m.state[usable]) for k, m in measurements.items()}
    columns = {name: source.column(name) for name in question.keep}
    kept = {name: Column(c.values[usable], c.missing[usable], c.unit, c.kind) for name, c in columns.items()}
    records = Records.build(held, numbers[usable], attrs={"domain": "real"})
    return Rows(records, ids[usable], np.asarray(flags, np.int32)[usable], kept, numbers[~usable], reasons[~usable])
