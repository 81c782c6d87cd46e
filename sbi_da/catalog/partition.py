"""One partition in, one file out."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sbi_da.catalog.answering import Answerer, described
from sbi_da.catalog.question import Question
from sbi_da.catalog.rows import read_rows
from sbi_da.catalog.sources import Partition
from sbi_da.catalog.writing import durable, partial_name, write_json
from sbi_da.errors import TableError
from sbi_da.records.columns import one_line, open_source, remedy

__all__ = ["answer_partition"]

BLOCK = 10_000
"""Rows that are read at a time."""


def answer_partition(
    answerer: Answerer, partition: Partition, question: Question, id_column: str, out: Path, rejected: Path, repeated: np.ndarray
) -> dict[str, int]:
    """Answer the rows of a partition.

    Args:
        answerer: who answers.
        partition: the rows.
        question: what is asked.
        id_column: of identifiers, or ``"#row"``.
        out: file of the answers, written under a temporary name first.
        rejected: file of the rows that are set aside, as JSON; it is written before ``out``.
        repeated: keys of identifiers that occur more than once in the catalogue, sorted.

    Returns:
        How many rows were ``answered`` and ``rejected``.

    Raises:
        TableError: what cannot be read or written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    surveys = answerer.estimator.layout.surveys
    units, said = described(answerer.estimator, question)
    partial = partial_name(out)
    aside: dict[str, list[Any]] = {"row": [], "reason": []}
    answered, writer = 0, None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for start in range(partition.start, max(partition.stop, partition.start + 1), BLOCK):
            source = open_source(partition.path, start, min(start + BLOCK, partition.stop), partition.title)
            rows = read_rows(source, surveys, question, id_column, partition.first + start - partition.start, repeated)
            own = {name: column.unit for name, column in rows.kept.items() if column.unit}
            kinds = {name: column.kind for name, column in rows.kept.items()}  # not what happens to be in a block decides the type
            table = _table(answerer(rows, question), {**units, **own}, kinds, said)
            writer = writer or pq.ParquetWriter(partial, table.schema, compression="zstd")
            writer.write_table(table)
            answered += len(table)
            aside["row"] += rows.rejected.tolist()
            aside["reason"] += rows.reasons.tolist()
        if writer is not None:
            writer.close()
        durable(partial)
        if aside["row"]:
            write_json(rejected, aside)
        os.replace(partial, out)
    except (OSError, pa.ArrowException) as error:
        raise TableError(f"{out}: cannot be written ({one_line(error)}){remedy(error)}") from error
    finally:
        if writer is not None and writer.is_open:
            try:
                writer.close()
            except OSError:
                pass  # the disk is full, as was said already
        if partial.parent.is_dir():
            partial.unlink(missing_ok=True)
    return {"answered": answered, "rejected": len(aside["row"])}


def _table(columns: dict[str, Any], units: Mapping[str, str], kinds: Mapping[str, Any], said: dict[bytes, bytes]) -> Any:
    import pyarrow as pa

    arrays, fields = [], []
    for name, values in columns.items():
        data = np.ascontiguousarray(values)
        if data.ndim > 1:
            array = pa.FixedSizeListArray.from_arrays(pa.array(data.reshape(-1)), data.shape[1])
        else:
            mask = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
            array = pa.array(data, type=kinds.get(name), mask=mask)
        arrays.append(array)
        fields.append(pa.field(name, array.type, metadata={"unit": units[name]} if units.get(name) else None))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, metadata=said))
