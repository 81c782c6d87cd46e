"""Tables in other formats as Parquet, in blocks, so that any rows of them can be read without the others.

A CSV file's entries stay the texts they are: what is a number is found out where it is needed, row by row.
"""

import csv
import gzip
import itertools
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sbi_da.catalog.writing import durable, partial_name, read_json, write_json
from sbi_da.errors import TableError
from sbi_da.records.columns import astropy_format, one_line, remedy

__all__ = ["stage"]

BLOCK = 50_000
"""Rows that are held at a time, of formats that can be read in parts."""


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
    if copy.exists() and (told := read_json(said)) is not None:
        return copy, tuple(told["malformed"])
    malformed: list[str] = []
    partial = partial_name(copy)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(partial, _csv(path, malformed) if kind == "ascii.csv" else _fits(path) if kind == "fits" else _whole(path, kind))
        write_json(said, {"malformed": malformed})
        durable(partial)
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

    with (gzip.open if path.name.endswith(".gz") else open)(path, "rt", encoding="utf-8-sig", errors="replace", newline="") as stream:
        reader = csv.reader(stream, strict=True)
        names = next((row for row in reader if row), [])
        if not names:
            raise TableError(f"{path}: no line of column names")
        twice = [name for i, name in enumerate(names) if name in names[:i]]
        if twice:
            raise TableError(f"{path}: two columns are called {twice[0]!r}; rename one")
        schema = pa.schema([(name, pa.string()) for name in names])
        yield schema.empty_table()
        while lines := list(itertools.islice(reader, BLOCK)):
            kept = [line for line in lines if len(line) == len(names)]
            odd = [line for line in lines if line and len(line) != len(names)]
            malformed += [f"{len(line)} entries in place of {len(names)}: {one_line(','.join(line))[:60]}" for line in odd]
            yield pa.table([[line[k] for line in kept] for k in range(len(names))], schema=schema)


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
