"""Partitions answered by the workers of a Dask cluster, which see the same files."""

import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from sbi_da.catalog.answering import Answerer
from sbi_da.catalog.sources import Partition
from sbi_da.errors import SbiDaError

if TYPE_CHECKING:
    from sbi_da.catalog.workers import Task

__all__ = ["answer_on_cluster"]

TIMEOUT = "10s"
RETRIES = 3
"""Times that a partition is tried again when its worker is lost."""


@lru_cache(maxsize=2)
def _answerer(run: str, fingerprint: str) -> Answerer:
    """Loaded once by each worker, which from then on computes with one thread; the fingerprint tells estimators of one place apart."""
    torch.set_num_threads(1)
    return Answerer.load(Path(run))


def _answer(task: "Task", run: str, fingerprint: str, partition: Partition) -> dict[str, int]:
    return task(_answerer(run, fingerprint), partition)


def answer_on_cluster(
    task: "Task", run: Path, fingerprint: str, partitions: Sequence[Partition], address: str, told: Callable[[Partition], None]
) -> None:
    """Answer partitions.

    Args:
        task: what is done with each; its folders are absolute.
        run: where workers load the estimator from.
        fingerprint: of the estimator.
        partitions: to answer.
        address: of the scheduler.
        told: called with each partition that is done.

    Raises:
        SbiDaError: Dask is not installed, nobody answers at the address, or workers are lost again and again.
    """
    try:
        from distributed import Client, as_completed
        from distributed.scheduler import KilledWorker
    except ImportError as error:
        raise SbiDaError(f"--dask needs Dask ({error}): pip install 'sbi-da[lsdb]'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            client: Any = Client(address, timeout=TIMEOUT)
    except (OSError, ValueError) as error:
        raise SbiDaError(f"--dask {address}: no scheduler answers there ({' '.join(str(error).split())[:100]})") from None
    try:
        waiting = {client.submit(_answer, task, str(run), fingerprint, p, retries=RETRIES, pure=False): p for p in partitions}
        for future in as_completed(list(waiting)):
            future.result()
            told(waiting[future])
    except KilledWorker:
        raise SbiDaError(f"{task.out}: workers were lost again and again, perhaps for want of memory: the same command goes on") from None
    finally:
        client.close()
