"""One channel out of a table: find its columns by the card, check every number, say what state it is in."""

from collections.abc import Mapping, Sequence

import numpy as np

from sbi_da.errors import TableError
from sbi_da.records.columns import Column, TableSource
from sbi_da.records.faults import Faults, LeaveOut, refuse_rows
from sbi_da.records.records import ABSENT, LIMIT, OBSERVED
from sbi_da.records.units import convert, parse_unit
from sbi_da.surveys.card import Channel

__all__ = ["find_columns", "match", "numbers", "read_channel"]

NULL_TEXT = {"", "nan", "null", "none", "na", "n/a", "--", "-"}


def match(names: Sequence[str], exact: Sequence[str], folded: Sequence[str], where: str) -> str | None:
    """The first of ``exact`` among ``names``; failing that, the one that equals one of ``folded`` but for case.

    Raises:
        TableError: several do.
    """
    for name in exact:
        if name in names:
            return name
    wanted = {name.lower() for name in folded}
    close = [name for name in names if name.lower() in wanted]
    if len(close) > 1:
        raise TableError(f"{where}: columns {', '.join(map(repr, close))} differ in case only; rename all but one")
    return close[0] if close else None


def find_columns(table: TableSource, channel: Channel) -> tuple[str, str] | None:
    """Names of the value and the error column of ``channel``; None if the table has no such value.

    Raises:
        TableError: the value is there but not its error.
    """
    value = match(table.names, [channel.column, *channel.aliases], [channel.column], table.title)
    if value is None:
        return None
    by_card = [channel.error_column, *channel.error_aliases]
    by_name = [f"{value}_error", f"{value}_err", f"e_{value}"]
    exact = [*by_card, *by_name] if value == channel.column else [*by_name, *by_card, f"{channel.column}_error"]
    error = match(table.names, exact, [channel.error_column, f"{channel.column}_error", by_name[0]], table.title)
    if error is None:
        raise TableError(
            f"{table.title}: column {value!r} has no error column: name it {channel.error_column!r} "
            f"or {value + '_error'!r}"
        )
    return value, error


def numbers(column: Column, where: str, first_row: int = 0, faults: Faults = refuse_rows) -> np.ndarray:
    """A column as float64 of shape ``(row,)``, NaN where null or at fault; texts are parsed.

    Raises:
        TableError: it is no column of numbers, or, unless ``faults`` lets that pass, holds an infinity or a text that is no number.
    """
    values = column.values
    if values.ndim != 1:
        raise TableError(f"{where}: one number per row is needed, not shape {values.shape[1:]}")
    if values.dtype.kind in "fiub":
        result = values.astype(float)
    elif values.dtype.kind in "OUS":
        result, example = np.full(len(values), np.nan), ""
        wrong = np.zeros(len(values), bool)
        for i, entry in enumerate(values):
            if column.missing[i] or entry is None:
                continue
            text = (entry.decode(errors="replace") if isinstance(entry, bytes) else str(entry)).strip()
            if text.lower() in NULL_TEXT:
                continue
            try:
                result[i] = float(text)
            except ValueError:
                wrong[i] = True
                example = text if wrong.sum() == 1 else example
        if wrong.any():
            faults(wrong, where, f"{example[:40]!r}, which is not a number,", "mend it or leave it empty", first_row)
    else:
        raise TableError(f"{where}: numbers are needed, not {values.dtype}")
    result = np.where(column.missing, np.nan, result)
    infinite = np.isinf(result)
    faults(infinite, where, "infinite values", "leave empty what was not measured", first_row)
    return np.where(infinite, np.nan, result)


def read_channel(
    table: TableSource, channel: Channel, columns: tuple[str, str], units: Mapping[str, str], first_row: int = 0,
    faults: Faults = refuse_rows,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Value, error and state of one channel, and which values could not be used for want of an error, each of shape ``(row,)``.

    Null, NaN and the card's ``missing_values`` are ABSENT. A value with a null error is a LIMIT if the card says that
    the survey writes limits so, else ABSENT, for a measurement of unknown error cannot be used. A limit's error is
    the card's at the depth, as simulated. Absent entries hold NaN. What ``faults`` lets pass is ABSENT.

    Raises:
        TableError: naming file, column, rows and the fix.
    """
    where = f"{table.title}: column {columns[0]!r}", f"{table.title}: column {columns[1]!r}"
    raw = [table.column(name) for name in columns]
    spoilt = LeaveOut(len(table))

    def check(bad: np.ndarray, where: str, what: str, fix: str, first_row: int = 0) -> None:
        faults(bad, where, what, fix, first_row)
        spoilt(bad, where, what, fix, first_row)

    value, error = (numbers(c, w, first_row, check) for c, w in zip(raw, where, strict=True))
    for missing in channel.missing_values:
        value[np.isclose(value, missing, rtol=1e-6, atol=0)] = np.nan
        error[np.isclose(error, missing, rtol=1e-6, atol=0)] = np.nan
    not_positive = (error <= 0) & ~np.isnan(value)
    check(not_positive, where[1], "errors that are not positive", "leave the error empty where it is unknown", first_row)
    value[spoilt.rows] = np.nan
    of_value, of_error = (
        parse_unit(units.get(name, c.unit), w) for name, c, w in zip(columns, raw, where, strict=True)
    )
    value, error, limit = convert(value, error, (of_value, of_error), channel, where)
    present, has_error = ~np.isnan(value), ~np.isnan(error)
    without = present & ~has_error
    limit |= without & (channel.limit == "no_error")
    state = np.where(limit, LIMIT, np.where(present & has_error, OBSERVED, ABSENT)).astype(np.uint8)
    if channel.valid is not None:
        low, high = channel.valid
        outside = (state != ABSENT) & ((value < low) | (value > high))
        fix = "mend them, or leave them empty if not measured"
        check(outside, where[0], f"values outside {low:g} to {high:g} {channel.unit}", fix, first_row)
        state[outside] = ABSENT
    if channel.depth is not None:
        error = np.where(limit, channel.noise.sigma(np.array(channel.depth)), error)
    elif limit.any():
        error = np.where(limit, channel.noise.sigma(value), error)
    absent = state == ABSENT
    return np.where(absent, np.nan, value), np.where(absent, np.nan, error), state, without & ~limit & ~spoilt.rows
