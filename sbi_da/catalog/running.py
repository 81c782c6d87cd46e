"""Inference over a catalogue: streaming, resumable, in several processes."""

import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from sbi_da.artefact import fingerprint
from sbi_da.catalog.answering import Answerer
from sbi_da.catalog.dask_workers import answer_on_cluster
from sbi_da.catalog.devices import usable
from sbi_da.catalog.hats import describe, one_type, positions
from sbi_da.catalog.identification import choose_identifiers
from sbi_da.catalog.ledger import Ledger
from sbi_da.catalog.question import Question
from sbi_da.catalog.rows import read_rows
from sbi_da.catalog.sources import Partition, find_files, open_catalogue
from sbi_da.catalog.workers import Task, answer_all
from sbi_da.errors import SbiDaError, UnknownNameError
from sbi_da.records.columns import open_source
from sbi_da.trust.reference import PLACE

__all__ = ["infer"]

PROBED = 100
"""Rows that are read of every kind of file before the inference begins."""
REFINING = 20
"""How much longer a row takes that is refined, at least."""
VERSIONS = ("sbi-da", "torch", "numpy", "pyarrow")
Told = Callable[[int, int], None]
"""Called with the number of rows that are done, and of all."""


def infer(
    run: str | Path,
    catalogue: str | Path,
    out: str | Path,
    question: Question | None = None,
    workers: int | None = None,
    dask: str | None = None,
    told: Told | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Answer a question about every row of a catalogue.

    Interrupted or killed, the same call goes on where it was. Answers depend on identifiers, measurements and the question only: any
    number of workers and any order gives the same bytes, on processors of one kind.

    Args:
        run: an estimator's artefact, or the run that made it.
        catalogue: a Parquet file, a folder of them, a HATS catalogue, or a FITS, CSV, ECSV or VOTable file.
        out: folder for the answers (``objects/``, one Parquet file per partition), the rows that are set aside (``rejected.parquet``)
            and ``manifest.json``.
        question: what is asked; None: summaries from a hundred draws.
        workers: processes; None: one for each core.
        dask: address of a Dask scheduler whose workers see these files and answer in place of processes here; None: none.
        told: hears of progress.
        device: that computes, ``cpu`` or ``cuda``; None: a graphics processor if this machine has one, of Dask's workers their
            processors. Another kind of device adds in another order, so an inference is finished on the kind it was begun with.

    Returns:
        The manifest.

    Raises:
        SbiDaError: in one line, what is wrong, where, and what to do.
    """
    run, out, question = Path(run), Path(out).expanduser(), question or Question()
    device = usable(device) if dask is None else device or "cpu"  # its workers may have what this machine has not
    answerer = Answerer.load(run, device if dask is None else "cpu")
    estimator = answerer.estimator
    if estimator.target != "density":
        raise SbiDaError(f"{run}: infers the {estimator.target} {', '.join(estimator.parameter_names)}: ask sbi-da query")
    answerer.check(question)
    for name in question.surveys or ():
        if name not in estimator.surveys:
            raise UnknownNameError("survey", name, estimator.surveys, "which this estimator was trained with")
    if workers is not None and workers < 1:
        raise SbiDaError(f"workers must be at least 1, not {workers}")
    files, root = find_files(catalogue)
    ledger = Ledger(out)
    ledger.open()
    try:
        versions = {name: version(name) for name in VERSIONS}
        asked = question.model_dump(mode="json")
        trust = fingerprint(run / PLACE, PLACE) if answerer.reference else None
        kind = torch.device(device).type
        plan = {"schema": 1, "estimator": fingerprint(run), "trust": trust, "question": asked, "versions": versions, "device": kind}
        ledger.settle(plan, files)
        if (finished := ledger.finished) is not None:
            return finished
        found = open_catalogue(str(catalogue), files, root is not None, ledger.staged, REFINING if question.refine else 1)
        if root is not None:
            question = question.model_copy(update={"keep": tuple(dict.fromkeys([*question.keep, *positions(root, found.columns)]))})
        id_column = choose_identifiers(found, estimator.layout.surveys, question)
        types: dict[str, tuple[str, str]] = {}
        for partition in found.kinds:  # so that a column of a wrong type is found now, not after hours
            source = open_source(partition.path, partition.start, min(partition.stop, partition.start + PROBED), partition.title)
            rows = read_rows(source, estimator.layout.surveys, question, id_column)
            if root is not None:
                one_type({id_column: rows.id_type, **{name: str(c.kind) for name, c in rows.kept.items()}}, partition.title, types)
        partitions = list(found.partitions)
        ledger.look_for_repeats(partitions, id_column)
        left = [p for p in partitions if ledger.done(p) is None]
        count = sum(map(len, partitions)) - sum(map(len, left))

        def heard(partition: Partition) -> None:
            nonlocal count
            count += len(partition)
            if told is not None:
                told(count, len(found))

        if told is not None:
            told(count, len(found))
        task = Task(out.resolve(), question, id_column, device)
        if dask is not None:
            answer_on_cluster(task, run.resolve(), left, dask, heard)
        else:
            answer_all(task, answerer, run, left, workers or cores(), heard)
        if root is not None:
            describe(root, ledger.answers, [p.name for p in partitions])
        return ledger.finish(partitions, found.malformed)
    finally:
        ledger.close()


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
