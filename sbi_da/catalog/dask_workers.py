"""Partitions answered by the workers of a Dask cluster, which see the same files."""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sbi_da.catalog.answering import Answerer
from sbi_da.catalog.devices import usable
from sbi_da.catalog.sources import Partition
from sbi_da.errors import SbiDaError

if TYPE_CHECKING:
    from sbi_da.catalog.workers import Task

__all__ = ["answer_on_cluster"]

TIMEOUT = "10s"
RETRIES = 3
"""Times that a partition is tried again when its worker is lost."""


def _answer(task: "Task", run: Path, partition: Partition) -> dict[str, int]:
    torch.set_num_threads(1)  # for good: a worker may have several threads that answer
    return task(Answerer.kept(run, usable(task.device)), partition)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the tracebacks that Dask's client logs when the scheduler is lost."""
    loggers = [logging.getLogger(f"distributed.{name}") for name in ("client", "utils")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def answer_on_cluster(
    task: "Task", run: Path, partitions: Sequence[Partition], address: str, told: Callable[[Partition], None]
) -> None:
    """Answer partitions.

    Args:
        task: what is done with each; its folders are absolute.
        run: where workers load the estimator from.
        partitions: to answer.
        address: of the scheduler.
        told: called with each partition that is done.

    Raises:
        SbiDaError: Dask is not installed, nobody answers at the address or no longer, or workers are lost again and again.
    """
    try:
        from distributed import Client, as_completed
        from distributed.comm import CommClosedError
        from distributed.scheduler import KilledWorker
    except ImportError as error:
        raise SbiDaError(f"--dask needs Dask ({error}): pip install 'sbi-da[lsdb]'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            client: Any = Client(address, timeout=TIMEOUT)
    except (OSError, ValueError) as error:
        raise SbiDaError(f"--dask {address}: no scheduler answers there ({' '.join(str(error).split())[:100]})") from None
    with _quiet():
        try:
            waiting = {client.submit(_answer, task, run, p, retries=RETRIES, pure=False): p for p in partitions}
            for future in as_completed(list(waiting)):
                future.result()
                told(waiting[future])
        except KilledWorker:
            why = "workers were lost again and again, perhaps for want of memory"
            raise SbiDaError(f"{task.out}: {why}: the same command goes on") from None
        except (CancelledError, CommClosedError):
            raise SbiDaError(f"{task.out}: the scheduler at {address} was lost: start it again, and the same command goes on") from None
        finally:
            client.close()
