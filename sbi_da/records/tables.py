"""Tables of measurements in, tables of results out: Parquet, FITS, ECSV, CSV, VOTable.

Columns are found by the survey cards alone, by name and unit. Their order, further columns and which of its known
names a column goes by never matter.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sbi_da.errors import TableError, UnknownNameError
from sbi_da.records.channels import find_columns, match, numbers, read_channel
from sbi_da.records.columns import TableLike, TableSource, astropy_format, one_line, open_source, remedy, some
from sbi_da.records.faults import Faults, refuse_rows
from sbi_da.records.identifiers import ROW_NUMBER, entries, identifiers, null
from sbi_da.records.records import ABSENT, Measurements, Records
from sbi_da.surveys.card import Survey

__all__ = ["read_measurements", "read_table", "write_table"]


def read_table(
    table: TableLike,
    surveys: Sequence[Survey],
    *,
    id_column: str | None = None,
    group_column: str | None = None,
    parameters: Mapping[str, tuple[str, str | None]] | None = None,
    units: Mapping[str, str] | None = None,
    required: Sequence[str] = (),
    only: Sequence[str] | None = None,
    start: int = 0,
    stop: int | None = None,
) -> Records:
    """Real objects out of a table.

    A survey none of whose columns is there is not in the result. A row without a single measurement is kept: its
    posterior is the prior.

    Args:
        table: a path, whose suffix says the format; or a mapping of arrays, a pyarrow, astropy or pandas table.
        surveys: whose columns to look for.
        id_column: unique identifiers; by default the first of the surveys' ``id_columns`` that is there, else the
            row number; ``"#row"`` for the row number in any case.
        group_column: what becomes the root column ``group`` (a cluster, a sky cell), for splits.
        parameters: labels: name to (column, error column or None), taken in the parameter's own unit.
        units: column to unit, in place of what the file states; without either, the channel's unit.
        required: names of surveys without which the table is refused.
        only: names of the surveys whose measurements are read; the others serve to find identifiers. All if None.
        start: first row.
        stop: end of the rows (not included).

    Raises:
        TableError: in one line, the file, the column, the rows and the fix.
    """
    source = open_source(table, start, stop)
    units = dict(units or {})
    for name in (*units, *_named(id_column, group_column), *_label_columns(parameters)):
        if name not in source.names:
            raise TableError(f"{source.title}: no column {name!r}; it has {some(source.names)}")
    if len(source) == 0:
        raise TableError(f"{source.title}: the table has no rows" + (f" from row {start}" if start else ""))
    for name in required:
        if name not in [s.name for s in surveys]:
            raise UnknownNameError("survey", name, [s.name for s in surveys])
    result, unused = read_measurements(source, surveys, units, only, start)
    for name in required:
        if name not in result:
            looked = some([c.column for s in surveys if s.name == name for c in s.channels])
            raise TableError(
                f"{source.title}: no column of survey {name!r} (looked for {looked}); it has {some(source.names)}"
            )
    lacking = [f"{rows.sum()} in {name!r}" for name, rows in unused.items() if rows.any()]
    if lacking:
        warnings.warn(f"{source.title}: values without an error are not used: {', '.join(lacking)}", stacklevel=2)
    labels = {}
    for name, columns_of in (parameters or {}).items():
        for key, column in zip((name, f"{name}_error"), columns_of, strict=True):
            if column is not None:
                labels[key] = numbers(source.column(column), f"{source.title}: column {column!r}", start)
    columns = {}
    if group_column is not None:
        columns["group"] = entries(source.column(group_column), f"{source.title}: column {group_column!r}", start)
    attrs = {"domain": "real", "source": Path(source.title).name}
    return Records.build(result, _identifiers(source, surveys, id_column, start), labels, columns, attrs)


def read_measurements(
    source: TableSource,
    surveys: Sequence[Survey],
    units: Mapping[str, str] | None = None,
    only: Sequence[str] | None = None,
    start: int = 0,
    faults: Faults = refuse_rows,
) -> tuple[dict[str, Measurements], dict[str, np.ndarray]]:
    """What the surveys measured, and the values that could not be used for want of an error.

    Args:
        source: an open table.
        surveys: whose columns to look for.
        units: column to unit, in place of what the file states.
        only: names of the surveys to read; all if None.
        start: number of the first row, for messages.
        faults: what becomes of entries that cannot be used.

    Returns:
        By survey what it measured, for surveys of which there are columns; by column which values were not used, boolean, ``(row,)``.

    Raises:
        TableError: no column of any survey, or, unless ``faults`` lets it pass, an entry that cannot be used.
    """
    measurements: dict[str, Measurements] = {}
    unused: dict[str, np.ndarray] = {}
    for survey in surveys:
        if only is not None and survey.name not in only:
            continue
        found = {c.name: pair for c in survey.channels if (pair := find_columns(source, c))}
        if not found:
            continue
        shape = (len(source), len(survey.channels))
        value, error, state = np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, ABSENT)
        for i, channel in enumerate(survey.channels):
            if channel.name in found:
                names = found[channel.name]
                value[:, i], error[:, i], state[:, i], unused[names[0]] = read_channel(source, channel, names, units or {}, start, faults)
        held = tuple(c.unit for c in survey.channels)
        measurements[survey.name] = Measurements(tuple(survey.channel_names), held, value, error, state)
    if not measurements:
        looked = "; ".join(f"{s.name}: {some([c.column for c in s.channels], 4)}" for s in surveys)
        raise TableError(
            f"{source.title}: no column of any survey; looked for {looked}; the table has {some(source.names)}; "
            "rename its columns"
        )
    return measurements, unused


def _named(*names: str | None) -> list[str]:
    return [name for name in names if name is not None and name != ROW_NUMBER]


def _label_columns(parameters: Mapping[str, tuple[str, str | None]] | None) -> list[str]:
    return [column for pair in (parameters or {}).values() for column in pair if column is not None]


def _identifiers(source: TableSource, surveys: Sequence[Survey], id_column: str | None, start: int) -> np.ndarray:
    if id_column == ROW_NUMBER:
        return np.arange(start, start + len(source))
    if id_column is None:
        id_column = _find_identifiers(source, surveys)
        if id_column is None:
            return np.arange(start, start + len(source))
    return identifiers(source.column(id_column), f"{source.title}: column {id_column!r}", start)


def _find_identifiers(source: TableSource, surveys: Sequence[Survey]) -> str | None:
    """The first identifier column without nulls; None for row numbers."""
    names: dict[str | None, None] = {}
    for survey in surveys:
        names[match(source.names, survey.id_columns, survey.id_columns[:1], source.title)] = None
        names |= dict.fromkeys(name for name in survey.id_columns if name in source.names)
    empty, chosen = [], None
    for name in names:
        if name is None:
            continue
        nulls = int(null(source.column(name)).sum())
        if not nulls:
            chosen = name
            break
        empty.append(f"{name!r} ({nulls} nulls)")
    if empty:
        instead = "row numbers serve" if chosen is None else f"column {chosen!r} serves"
        warnings.warn(f"{source.title}: column {', '.join(empty)} cannot identify every row: {instead} instead", stacklevel=4)
    return chosen


def write_table(path: str | Path, columns: Mapping[str, np.ndarray], units: Mapping[str, str] | None = None) -> Path:
    """Write columns as a table, first under a temporary name beside it, then renamed over ``path``.

    Args:
        path: its suffix says the format.
        columns: arrays of one length, masked where null; of shape ``(row, draw)`` for Parquet, FITS, ECSV and VOTable.
        units: astropy unit strings by column.

    Raises:
        TableError: unknown suffix, columns of differing length, or a place that cannot be written; nothing is left
            behind.
    """
    path = Path(path).expanduser()
    kind = astropy_format(path)
    lengths = {len(v) for v in columns.values()}
    if len(lengths) != 1:
        raise TableError(f"{path}: columns must be given, and have one length, not {sorted(lengths)}")
    unknown = [name for name in units or {} if name not in columns]
    if unknown:
        have = some(list(columns))
        raise TableError(f"{path}: unit given for {unknown[0]!r}, which is no column; columns are {have}")
    partial = path.with_name(f".{os.getpid()}.partial.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "parquet":
            _write_parquet(partial, columns, units or {})
        else:
            _write_astropy(partial, columns, units or {}, kind)
        os.replace(partial, path)
    except BaseException as error:
        if partial.parent.is_dir():
            partial.unlink(missing_ok=True)
        if isinstance(error, Exception):
            raise TableError(f"{path}: cannot be written ({one_line(error)}){remedy(error)}") from error
        raise
    return path


def _write_parquet(path: Path, columns: Mapping[str, np.ndarray], units: Mapping[str, str]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays, fields = [], []
    for name, values in columns.items():
        mask = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
        data = np.asarray(values)
        if data.ndim > 1:
            flat = pa.array(np.ascontiguousarray(data).reshape(-1))
            array = pa.FixedSizeListArray.from_arrays(flat, int(np.prod(data.shape[1:])))
        else:
            array = pa.array(data, mask=mask)
        arrays.append(array)
        fields.append(pa.field(name, array.type, metadata={"unit": units[name]} if units.get(name) else None))
    pq.write_table(pa.Table.from_arrays(arrays, schema=pa.schema(fields)), path)


def _write_astropy(path: Path, columns: Mapping[str, np.ndarray], units: Mapping[str, str], kind: str) -> None:
    from astropy.table import Table

    table = Table({name: v if isinstance(v, np.ma.MaskedArray) else np.asarray(v) for name, v in columns.items()})
    for name, unit in units.items():
        table[name].unit = unit
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table.write(path, format=kind)
