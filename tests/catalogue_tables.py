"""Simulated records as the table a catalogue would be, who answers it, and the answers read back."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from sbi_da.catalog import Question
from sbi_da.catalog.answering import Answerer
from sbi_da.catalog.rows import read_rows
from sbi_da.config import Config
from sbi_da.distillation import fast_copy
from sbi_da.records import ABSENT, LIMIT, write_table
from sbi_da.records.columns import open_source
from sbi_da.runs import build, sources_of
from sbi_da.trust import TrustTraining, learn_reference

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


def answer_rows(answerer, table, index, question=QUESTION):
    """Columns of the answer for some rows of a table, without texts."""
    read = read_rows(open_source(rows(table, index)), answerer.estimator.layout.surveys, question, question.id_column)
    return {k: v for k, v in answerer(read, question).items() if k != "surveys"}


def untrained_answerer(config, head):
    """With random weights, so that nothing is zero by initialisation, and a reference that has hardly learned."""
    content = config.model_dump()
    content["network"] |= {"head": "spline" if head == "few_step" else head, "hidden": [31, 29]}  # no multiples of a vector register
    estimator = build(Config.model_validate(content))[2]
    estimator = fast_copy(estimator) if head == "few_step" else estimator
    torch.manual_seed(3)
    for parameter in estimator.parameters():
        torch.nn.init.normal_(parameter, std=0.15)
    how = TrustTraining(steps=2, batch=64, objects=4000, width=16, fault_width=16)
    return Answerer(estimator.eval(), learn_reference(estimator, sources_of(estimator), how))
