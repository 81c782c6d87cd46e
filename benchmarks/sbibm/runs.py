"""Draws of trained methods, kept in a folder so that nothing is done twice.

``<folder>/<task>/<simulations>/<method>_<seed>.npz`` holds ``samples`` (observation, draw, parameter), float32, and the seconds that
training and sampling took; for methods that can answer any conditional and tasks of ``CONDITIONAL`` also ``conditional_0``,
``conditional_1`` ... (draw, unknown), and ``masked_0`` ... (draw, parameter) of data with some missing, for questions that are the same for
all. The simulations are a function of task, number and seed: every method sees the same.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sbibm.conditionals import generator, masked_data, random_conditionals
from benchmarks.sbibm.method import AnyConditional, Method
from benchmarks.sbibm.tasks import Task

__all__ = ["CONDITIONAL", "DRAWS", "QUESTIONS", "Run", "path_of", "run", "simulations"]

DRAWS = 10_000
CONDITIONAL = ("two_moons", "slcp")
QUESTIONS = 1
"""Seed of the questions."""


@dataclass(frozen=True)
class Run:
    """What one method drew for the observations of a task.

    Attributes:
        samples: shape ``(observation, draw, parameter)``.
        training: seconds.
        sampling: seconds, for all observations.
        conditionals: draws ``(draw, unknown)`` for each random conditional.
        masked: draws ``(draw, parameter)`` for each observation of which only some data are seen.
    """

    samples: np.ndarray
    training: float
    sampling: float
    conditionals: list[np.ndarray]
    masked: list[np.ndarray]


def simulations(task: Task, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """``n`` draws of the prior and their data, float32."""
    numbers = generator(task.name, n, seed)
    theta = task.prior.sample(n, numbers)
    return theta.float().numpy(), task.simulate(theta, numbers).float().numpy()


def path_of(folder: Path, task: str, n: int, method: str, seed: int) -> Path:
    """Where a run is kept."""
    return folder / task / str(n) / f"{method}_{seed}.npz"


def run(
    path: Path, make: Callable[[], Method], task: Task, n: int, seed: int, observed: np.ndarray, questions: int = 0
) -> Run:
    """Train a method on ``n`` simulations and draw for each observation ``(observation, m)``; or read what it drew before.

    Args:
        path: of the file.
        make: the method.
        task: what it infers.
        n: simulations.
        seed: of them and of the method.
        observed: observations.
        questions: random conditionals, and as many observations with missing data, that are asked of methods that can answer them.
    """
    if path.exists() and (kept := _read(path, len(observed), questions)):
        return kept
    started = time.perf_counter()
    fitted = make().fit(task, *simulations(task, n, seed), seed)
    trained = time.perf_counter()
    samples = np.stack([np.asarray(fitted.sample(x, DRAWS, seed), np.float32) for x in observed])
    sampled = time.perf_counter()
    done = Run(samples, trained - started, sampled - trained, [], [])
    asked = fitted if questions and task.name in CONDITIONAL and isinstance(fitted, AnyConditional) else None
    _write(path, done, finished=asked is None)
    if asked is not None:
        for q in random_conditionals(task, questions, QUESTIONS):
            done.conditionals.append(np.asarray(asked.sample_given(q.known, q.values, DRAWS, seed), np.float32))
        for q in masked_data(task, observed, questions, QUESTIONS):
            x = np.where(q.known, q.values, np.nan)[task.parameters :]
            done.masked.append(np.asarray(fitted.sample(x, DRAWS, seed), np.float32))
        _write(path, done, finished=True)
    return done


def _write(path: Path, done: Run, finished: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part.npz")
    answers: dict[str, Any] = {f"conditional_{i}": draws for i, draws in enumerate(done.conditionals)}
    answers |= {f"masked_{i}": draws for i, draws in enumerate(done.masked)}
    np.savez(unfinished, samples=done.samples, training=done.training, sampling=done.sampling, finished=finished, **answers)
    unfinished.replace(path)


def _read(path: Path, observations: int, questions: int) -> Run | None:
    """A kept run; None if it answered fewer questions than are asked now, or was interrupted while it answered."""
    with np.load(path) as kept:
        if len(kept["samples"]) < observations or (questions and not kept.get("finished", True)):
            return None
        answers = []
        for kind in ("conditional", "masked"):
            answered = sum(name.startswith(f"{kind}_") for name in kept.files)
            if 0 < answered < questions:
                return None
            answers.append([kept[f"{kind}_{i}"] for i in range(min(answered, questions))])
        return Run(kept["samples"][:observations], float(kept["training"]), float(kept["sampling"]), *answers)
