"""Draws of trained methods, kept in a folder so that nothing is done twice.

``<folder>/<task>/<simulations>/<method>_<seed>.npz`` holds ``samples`` (observation, draw, parameter), float32, and the
seconds that training and sampling took. The simulations are a function of task, number and seed: every method sees the same.
"""

import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchmarks.sbibm.method import Method
from benchmarks.sbibm.tasks import Task

__all__ = ["DRAWS", "Run", "generator", "path_of", "run", "simulations"]

DRAWS = 10_000


@dataclass(frozen=True)
class Run:
    """What one method drew for the observations of a task.

    Attributes:
        samples: shape ``(observation, draw, parameter)``.
        training: seconds.
        sampling: seconds, for all observations.
    """

    samples: np.ndarray
    training: float
    sampling: float


def generator(*key: object) -> torch.Generator:
    """Random numbers of a key."""
    return torch.Generator().manual_seed(zlib.crc32(repr(key).encode()))


def simulations(task: Task, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """``n`` draws of the prior and their data, float32."""
    numbers = generator(task.name, n, seed)
    theta = task.prior.sample(n, numbers)
    return theta.float().numpy(), task.simulate(theta, numbers).float().numpy()


def path_of(folder: Path, task: str, n: int, method: str, seed: int) -> Path:
    """Where a run is kept."""
    return folder / task / str(n) / f"{method}_{seed}.npz"


def run(path: Path, make: Callable[[], Method], task: Task, n: int, seed: int, observed: np.ndarray) -> Run:
    """Train a method on ``n`` simulations and draw for each observation ``(observation, m)``; or read what it drew before."""
    if path.exists():
        with np.load(path) as kept:
            if len(kept["samples"]) >= len(observed):
                return Run(kept["samples"][: len(observed)], float(kept["training"]), float(kept["sampling"]))
    started = time.perf_counter()
    fitted = make().fit(task, *simulations(task, n, seed), seed)
    trained = time.perf_counter()
    samples = np.stack([np.asarray(fitted.sample(x, DRAWS, seed), np.float32) for x in observed])
    done = Run(samples, trained - started, time.perf_counter() - trained)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part.npz")
    np.savez(unfinished, samples=samples, training=done.training, sampling=done.sampling)
    unfinished.replace(path)
    return done
