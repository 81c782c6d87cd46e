"""Answers for data frames, to be mapped over the partitions of an LSDB catalogue, cross-matched or not.

``catalogue.map_partitions(answer_frame, run="runs/stars", question=Question(id_column="source_id"))``; surveys that were not matched
are nulls in the frame, and so absent.
"""

from pathlib import Path
from typing import Any

import numpy as np

from sbi_da.catalog.answering import Answerer
from sbi_da.catalog.devices import usable
from sbi_da.catalog.flags import Flag
from sbi_da.catalog.question import Question
from sbi_da.catalog.repeats import repeated
from sbi_da.catalog.rows import identifiers_of, read_rows
from sbi_da.catalog.workers import one_thread
from sbi_da.errors import TableError
from sbi_da.records.columns import open_source
from sbi_da.records.identifiers import ROW_NUMBER, keys

__all__ = ["answer_frame"]


def answer_frame(frame: Any, run: str | Path, question: Question, device: str = "cpu") -> Any:
    """Answer the rows of a :class:`pandas.DataFrame`.

    Args:
        frame: one partition, with the columns of the surveys.
        run: an estimator's artefact, or the run that made it, which every process sees.
        question: what is asked; it must name the column of identifiers, on which draws depend.
        device: that computes, as of :func:`~sbi_da.catalog.infer`.

    Returns:
        A frame with the same index, columns as in docs/scale.md; rows without an identifier have the flag 64 and no numbers.

    Raises:
        TableError: no column of identifiers is named, or a column cannot be read.
    """
    import pandas as pd

    if question.id_column is None or question.id_column == ROW_NUMBER:
        raise TableError("a frame is a part of a catalogue and has no row numbers: name its identifiers, Question(id_column=...)")
    source = open_source(frame)
    if question.id_column not in source.names:
        raise TableError(f"the frame has no column {question.id_column!r}")
    answerer = Answerer.kept(Path(run), usable(device))
    answerer.check(question)
    ids, reasons = identifiers_of(source, question.id_column, 0)
    with one_thread():
        again = repeated(keys(ids[reasons == ""]))
        rows = read_rows(source, answerer.estimator.layout.surveys, question, question.id_column, repeated=again)
        columns = answerer(rows, question)
    wide = {name: values for name, values in columns.items() if np.ndim(values) > 1}
    flat = {name: values for name, values in columns.items() if name not in wide}
    flat |= {f"{name}_{k}": values[:, k] for name, values in wide.items() for k in range(values.shape[1])}
    answered = pd.DataFrame(flat, index=np.flatnonzero(reasons == "")).reindex(np.arange(len(frame)))
    nobody = reasons != ""
    answered["flags"] = answered["flags"].fillna(0).astype(np.int32) | np.where(nobody, int(Flag.NOBODY), 0).astype(np.int32)
    answered["id"], answered["surveys"] = ids, answered["surveys"].fillna("").astype(str)
    answered.index = frame.index
    return answered
