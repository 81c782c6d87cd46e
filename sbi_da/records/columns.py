"""Columns of a table, whatever its format, read one at a time and only when asked for.

A column is a one-dimensional array with a mask and the unit its file states. Integers stay integers: a 64-bit
identifier never passes through a float.
"""

import errno
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from sbi_da.errors import TableError

__all__ = ["FORMATS", "Column", "TableLike", "TableSource", "astropy_format", "one_line", "open_source", "remedy", "some"]

FORMATS = {
    ".parquet": "parquet", ".pq": "parquet", ".fits": "fits", ".fit": "fits", ".ecsv": "ascii.ecsv",
    ".csv": "ascii.csv", ".vot": "votable", ".votable": "votable", ".xml": "votable",
}  # fmt: skip
TableLike = Any
"""A path, a mapping of arrays, a ``pyarrow.Table``, an ``astropy.table.Table`` or a ``pandas.DataFrame``."""


def one_line(error: BaseException | str) -> str:
    """A message without line breaks and unprintable characters."""
    text = "".join(c if c.isprintable() else " " for c in str(error))
    return " ".join(text.split()) or type(error).__name__


def some(names: Sequence[str], most: int = 8) -> str:
    """The first few names, for a message."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "none"


def remedy(error: BaseException) -> str:
    """What to do about a failed write, with a colon before it; empty where the message says all there is to say."""
    cause: BaseException | None = error
    while cause is not None:
        code = getattr(cause, "errno", None)
        if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return ": free space or choose another place"
        if code in (errno.EROFS, errno.EACCES):
            return ": choose another place"
        cause = cause.__cause__ or cause.__context__
    return ""


@dataclass(frozen=True)
class Column:
    """Values of shape ``(row,)``, where they are null, the unit (None: not stated), and the Arrow type if there is one."""

    values: np.ndarray
    missing: np.ndarray
    unit: str | None = None
    kind: Any = None


class TableSource(Protocol):
    """A table opened for reading."""

    title: str
    """What messages call it."""
    names: list[str]
    """Names of its columns."""

    def __len__(self) -> int: ...

    def column(self, name: str) -> Column:
        """One column."""
        ...


class _Arrow:
    """A ``pyarrow.Table``, or rows ``start`` to ``stop`` of a Parquet file whose columns are read on demand."""

    def __init__(self, table: Any, title: str, start: int = 0, stop: int | None = None) -> None:
        self.title, self._table = title, table
        self._file = hasattr(table, "num_row_groups")
        self._schema = table.schema_arrow if self._file else table.schema
        self.names = list(self._schema.names)
        twice = [name for i, name in enumerate(self.names) if name in self.names[:i]]
        if twice:
            raise TableError(f"{title}: two columns are called {twice[0]!r}; rename one")
        total = table.metadata.num_rows if self._file else table.num_rows
        self._start, self._stop, _ = slice(start, stop).indices(total)
        self._units = _units_of_astropy(self._schema.metadata)

    def __len__(self) -> int:
        return max(0, self._stop - self._start)

    def _read(self, name: str) -> Any:
        if not self._file:
            return self._table[name].slice(self._start, len(self))
        sizes = [self._table.metadata.row_group(i).num_rows for i in range(self._table.num_row_groups)]
        ends = np.cumsum(sizes)
        groups = [i for i, end in enumerate(ends) if end > self._start and end - sizes[i] < self._stop]
        if not groups:
            return self._schema.empty_table()[name]
        before = int(ends[groups[0]] - sizes[groups[0]])
        return self._table.read_row_groups(groups, columns=[name])[name].slice(self._start - before, len(self))

    def column(self, name: str) -> Column:
        import pyarrow as pa

        field = self._schema.field(name)
        meta = field.metadata or {}
        unit = (meta.get(b"unit") or meta.get(b"units") or b"").decode() or self._units.get(name)
        try:
            data = self._read(name)
        except Exception as error:
            raise TableError(f"{self.title}: column {name!r} cannot be read ({one_line(error)})") from error
        if pa.types.is_dictionary(data.type):
            data = data.cast(data.type.value_type)
        if pa.types.is_decimal(data.type):
            data = data.cast(pa.float64())
        missing = data.is_null().to_numpy().astype(bool)
        if missing.any():
            kind = data.type
            whole = pa.types.is_integer(kind) or pa.types.is_boolean(kind)
            text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
            if whole or text or pa.types.is_floating(kind):
                data = data.fill_null(pa.scalar(0 if whole else "" if text else np.nan).cast(kind))
        return Column(data.to_numpy(), missing, unit, data.type)


def _units_of_astropy(metadata: Mapping[bytes, bytes] | None) -> dict[str, str]:
    """Units as astropy writes them into a Parquet file."""
    text = (metadata or {}).get(b"table_meta_yaml")
    if text is None:
        return {}
    from astropy.table.meta import get_header_from_yaml

    header = get_header_from_yaml(text.decode().split("\n"))
    return {c["name"]: str(c["unit"]) for c in header.get("datatype", []) if c.get("unit")}


class _Astropy:
    """An ``astropy.table.Table``."""

    def __init__(self, table: Any, title: str, start: int = 0, stop: int | None = None) -> None:
        self.title, self._table, self.names = title, table[start:stop], [str(n) for n in table.colnames]

    def __len__(self) -> int:
        return len(self._table)

    def column(self, name: str) -> Column:
        data = self._table[name]
        unit = getattr(data, "unit", None)
        mask = getattr(data, "mask", None)
        data = getattr(data, "unmasked", data)
        values = np.asarray(getattr(data, "value", data))
        missing = np.zeros(values.shape, bool) if mask is None else np.broadcast_to(mask, values.shape)
        return Column(values, missing, str(unit) if unit is not None else None)


class _Arrays:
    """A mapping from names to arrays (possibly masked), or a ``pandas.DataFrame``."""

    def __init__(self, table: Any, title: str, start: int = 0, stop: int | None = None) -> None:
        self.title, self._table, self.names = title, table, [str(n) for n in table.keys()]
        self._rows = slice(start, stop)
        lengths = {len(table[name]) for name in table}
        if len(lengths) > 1:
            raise TableError(f"{title}: columns must have one length, not {sorted(lengths)}")
        self._len = len(range(*self._rows.indices(lengths.pop()))) if lengths else 0

    def __len__(self) -> int:
        return self._len

    def column(self, name: str) -> Column:
        data = self._table[name]
        unit = getattr(data, "unit", None)
        missing = np.ma.getmaskarray(data) if isinstance(data, np.ma.MaskedArray) else None
        if hasattr(data, "isna"):  # pandas: nullable integers must not become floats
            missing = data.isna().to_numpy()
            data = data.fillna(0) if str(data.dtype).lower().startswith(("int", "uint")) else data
            data = data.to_numpy(dtype=getattr(data.dtype, "numpy_dtype", None))
        values = np.asarray(getattr(data, "value", data))[self._rows]
        missing = np.zeros(values.shape, bool) if missing is None else missing[self._rows]
        return Column(values, missing, str(unit) if unit is not None else None)


def astropy_format(path: Path) -> str:
    """Format of a file by its suffix (``.gz`` aside).

    Raises:
        TableError: the suffix is none that is known.
    """
    suffixes = [s.lower() for s in path.suffixes]
    suffix = suffixes[-2] if len(suffixes) > 1 and suffixes[-1] == ".gz" else (suffixes or [""])[-1]
    if suffix not in FORMATS:
        raise TableError(f"{path}: unknown table format {suffix!r}; known are {', '.join(FORMATS)}")
    return FORMATS[suffix]


def open_source(table: TableLike, start: int = 0, stop: int | None = None, title: str | None = None) -> TableSource:
    """Open a table for reading.

    Args:
        table: a path (format by suffix), a mapping of arrays, or a pyarrow, astropy or pandas table.
        start: first row wanted.
        stop: end of the rows wanted (not included); all if None.
        title: what messages call a file, in place of its path.

    Raises:
        TableError: no such file, a format unknown or a file that cannot be read in it.
    """
    if not isinstance(table, str | Path):
        if hasattr(table, "column_names") and hasattr(table, "schema"):
            return _Arrow(table, "table", start, stop)
        if hasattr(table, "colnames"):
            return _Astropy(table, "table", start, stop)
        return _Arrays(table, "table", start, stop)
    path = Path(table).expanduser()
    if not path.exists():
        raise TableError(f"{path}: no such file")
    kind = astropy_format(path)
    if path.is_dir():
        raise TableError(f"{path}: a folder, not a table")
    try:
        if kind == "parquet":
            import pyarrow.parquet as pq

            return _Arrow(pq.ParquetFile(path), title or str(path), start, stop)
        from astropy.table import Table

        options = {"use_names_over_ids": True} if kind == "votable" else {}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # astropy warns about units and names it does not know; we answer for them
            return _Astropy(Table.read(path, format=kind, **options), str(path), start, stop)
    except TableError:
        raise
    except Exception as error:
        known = ", ".join(FORMATS)
        raise TableError(
            f"{path}: cannot be read as {kind.removeprefix('ascii.')} ({one_line(error)}); formats by suffix: {known}"
        ) from error
