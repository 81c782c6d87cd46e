"""Tables in other formats as Parquet, in blocks, so that any rows of them can be read without the others.

A CSV file's entries stay the bytes they are: what is a number is found out where it is needed, row by row.
"""

import json
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sbi_da.errors import TableError
from sbi_da.records.columns import astropy_format, one_line, remedy

__all__ = ["stage"]

BLOCK = 50_000
"""Rows of a FITS table that are held at a time."""


def stage(path: Path, folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Copy a table to Parquet.

    Args:
        path: of the table.
        folder: for the copy; one that is there, whole, is taken as it is.

    Returns:
        Path of the copy, and what is to be said of lines that were no rows.

    Raises:
        TableError: the table cannot be read, or the copy not be written.
    """
    kind = astropy_format(path)
    copy, said = folder / f"{path.name}.parquet", folder / f"{path.name}.malformed.json"
    if copy.exists():
        return copy, tuple(json.loads(said.read_text()))
    malformed: list[str] = []
    partial = folder / f".{os.getpid()}.partial.parquet"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(partial, _csv(path, malformed) if kind == "ascii.csv" else _fits(path) if kind == "fits" else _whole(path, kind))
        said.write_text(json.dumps(malformed))
        os.replace(partial, copy)
    except TableError:
        raise
    except OSError as error:
        raise TableError(f"{path}: cannot be copied to {folder} ({one_line(error)}){remedy(error)}") from error
    except Exception as error:
        raise TableError(f"{path}: cannot be read as {kind.removeprefix('ascii.')} ({one_line(error)})") from error
    finally:
        partial.unlink(missing_ok=True)
    return copy, tuple(malformed)


def _write(path: Path, blocks: Iterable[Any]) -> None:
    import pyarrow.parquet as pq

    writer = None
    try:
        for block in blocks:
            writer = writer or pq.ParquetWriter(path, block.schema)
            writer.write_table(block.cast(writer.schema))
    finally:
        if writer is not None:
            writer.close()


def _csv(path: Path, malformed: list[str]) -> Iterator[Any]:
    import pyarrow as pa
    from pyarrow import csv

    def note(row: Any) -> str:
        malformed.append(f"line with {row.actual_columns} entries in place of {row.expected_columns}: {one_line(row.text or '')[:60]}")
        return "skip"

    parse = csv.ParseOptions(invalid_row_handler=note)
    read = csv.ReadOptions(use_threads=False)
    with csv.open_csv(path, read, csv.ParseOptions(invalid_row_handler=lambda row: "skip")) as first:
        names = first.schema.names
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise TableError(f"{path}: two columns are called {twice[0]!r}; rename one")
    convert = csv.ConvertOptions(column_types={name: pa.binary() for name in names}, strings_can_be_null=False)
    with csv.open_csv(path, read, parse, convert) as reader:
        yield pa.Table.from_batches([], reader.schema)
        for batch in reader:
            yield pa.Table.from_batches([batch])


def _fits(path: Path) -> Iterator[Any]:
    from astropy.io import fits
    from astropy.table import Table

    with fits.open(path, memmap=not path.name.endswith(".gz")) as opened:
        tables = [hdu for hdu in opened if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)]
        if not tables:
            raise TableError(f"{path}: no table in this FITS file")
        held, kind = tables[0], type(tables[0])
        for start in range(0, max(1, len(held.data)), BLOCK):
            part = kind(data=held.data[start : start + BLOCK], header=held.header)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield _arrow(Table.read(part))


def _whole(path: Path, kind: str) -> Iterator[Any]:
    from astropy.table import Table

    options = {"use_names_over_ids": True} if kind == "votable" else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield _arrow(Table.read(path, format=kind, **options))


def _arrow(table: Any) -> Any:
    """An astropy table as an Arrow table, with units."""
    import pyarrow as pa

    arrays, fields = [], []
    for name in table.colnames:
        column = table[name]
        data = np.asarray(getattr(column, "unmasked", column))
        data = data.astype(data.dtype.newbyteorder("="))
        mask = np.asarray(getattr(column, "mask", np.zeros(data.shape, bool)))
        if data.ndim > 1:
            size = int(np.prod(data.shape[1:]))
            array = pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(data).reshape(-1)), size)
        else:
            array = pa.array(data.tolist() if data.dtype.kind == "O" else data, mask=np.broadcast_to(mask, data.shape))
        unit = getattr(column, "unit", None)
        arrays.append(array)
        fields.append(pa.field(name, array.type, metadata={"unit": str(unit)} if unit is not None else None))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))
