"""Processes that answer partitions, each with one thread and an estimator of its own, which end with the process that started them."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sbi_da.catalog.answering import Answerer
from sbi_da.catalog.ledger import Ledger
from sbi_da.catalog.partition import answer_partition
from sbi_da.catalog.question import Question
from sbi_da.catalog.sources import Partition
from sbi_da.errors import SbiDaError

__all__ = ["Task", "answer_all", "one_thread"]

WATCH = 0.5
"""Seconds between looks whether the parent lives."""


@dataclass(frozen=True)
class Task:
    """What every partition has in common.

    Attributes:
        out: folder of the inference, absolute.
        question: what is asked.
        id_column: of identifiers, or ``"#row"``.
        device: that computes.
    """

    out: Path
    question: Question
    id_column: str
    device: str = "cpu"

    def __call__(self, answerer: Answerer, partition: Partition) -> dict[str, int]:
        """Answer a partition and write down that it is done; returns its counts."""
        ledger = Ledger(self.out)
        place, aside = ledger.answers / partition.name, ledger.rejected(partition)
        with one_thread():
            counts = answer_partition(answerer, partition, self.question, self.id_column, place, aside, ledger.repeats())
        ledger.record(partition, counts)
        return counts


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread for the arithmetic: with more, sums may be added in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def answer_all(
    task: Task, answerer: Answerer, run: Path, partitions: Sequence[Partition], workers: int, told: Callable[[Partition], None]
) -> None:
    """Answer partitions.

    Args:
        task: what is done with each.
        answerer: who answers, if one worker does: this process.
        run: where other processes load it from.
        partitions: to answer.
        workers: number of processes.
        told: called with each partition that is done.

    Raises:
        SbiDaError: a process was ended from outside.
    """
    workers = min(workers, len(partitions))
    if workers <= 1:
        for partition in partitions:
            task(answerer, partition)
            told(partition)
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(workers, context, _start, (run, task.device, os.getpid(), stop))
    try:
        with _main_left_alone(), _interrupts_ignored():
            waiting: dict[Future[Any], Partition] = {pool.submit(_answer, task, partition): partition for partition in partitions}
        while waiting:
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                partition = waiting.pop(future)
                future.result()
                told(partition)
    except BrokenProcessPool:
        message = "a worker was ended from outside, perhaps for want of memory: the same command goes on; --workers says how many"
        raise SbiDaError(f"{task.out}: {message}") from None
    except BaseException:
        stop.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _main_left_alone() -> Iterator[None]:
    """Processes that are started in here do not run the script again that started them, guarded by its name or not."""
    main = sys.modules["__main__"]
    hidden: dict[str, Any] = {name: main.__dict__.pop(name) for name in ("__file__", "__spec__") if name in main.__dict__}
    main.__spec__ = None
    try:
        yield
    finally:
        main.__dict__.update(hidden)


_answerer: Answerer | None = None  # of a worker, loaded once when it starts


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes that are started in here never hear of Ctrl-C, which reaches all processes; the one that started them answers it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _start(run: Path, device: str, parent: int, stop: Any) -> None:
    global _answerer
    threading.Thread(target=_end_with, args=(parent, stop), daemon=True).start()
    torch.set_num_threads(1)
    _answerer = Answerer.load(run, device)


def _answer(task: Task, partition: Partition) -> dict[str, int]:
    assert _answerer is not None
    return task(_answerer, partition)


def _end_with(parent: int, stop: Any) -> None:
    """End this process when the one that started it is no more, or says so."""
    while os.getppid() == parent and not stop.wait(WATCH):
        pass
    os._exit(1)
