"""Simulated records as the table a catalogue would be, and the answers read back."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sbi_da.catalog import Question
from sbi_da.records import ABSENT, LIMIT, write_table

QUESTION = Question(draws=20, kept_draws=4, correlations=True, id_column="source_id")


def columns_of(records, surveys, start=0):
    """Values and errors by the cards' column names, and identifiers."""
    columns = {"source_id": 10**15 + 7919 * (start + np.arange(len(records)))}
    for survey in surveys:
        held = records.survey(survey.name)
        for k, channel in enumerate(survey.channels):
            absent = held.state[:, k] == ABSENT
            columns[channel.column] = np.where(absent, np.nan, held.value[:, k])
            columns[channel.error_column] = np.where(absent | (held.state[:, k] == LIMIT), np.nan, held.error[:, k])
    return columns


def rows(table, index):
    return {name: values[index] for name, values in table.items()}


def contents(out):
    """Every file, by name."""
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def answers(out):
    """Columns of the answers, in order."""
    return pa.concat_tables([pq.read_table(p) for p in sorted((out / "objects").rglob("*.parquet"))])


def by_id(out):
    return answers(out).sort_by("id").combine_chunks()


def folder_of(table, path, size=30):
    path.mkdir()
    for k, start in enumerate(range(0, len(table["source_id"]), size)):
        write_table(path / f"part{k}.parquet", rows(table, slice(start, start + size)))
    return path
