"""Exact draws of some variables of a task given others, whichever these are.

Where a law can be drawn from directly it is (Gaussians, truncated Gaussians, crescents by rejection); where it cannot (the spread of slcp,
the filter of the spiking neuron) the particles of ``tempering`` are many enough that nothing is seen of their number.
"""

import zlib
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.sbibm.tasks import Task
from sbi_da.errors import SbiDaError

__all__ = ["Conditional", "generator", "masked_data", "random_conditionals", "sample"]


@dataclass(frozen=True)
class Conditional:
    """A question about a task: some variables, given these values of others.

    Attributes:
        known: mask over parameters, then data, shape ``(d + m,)``.
        values: of the known ones; the others are those of the same simulation, not to be read.
    """

    known: np.ndarray
    values: np.ndarray


def generator(*key: object) -> torch.Generator:
    """Random numbers of a key."""
    return torch.Generator().manual_seed(zlib.crc32(repr(key).encode()))


def sample(task: Task, known: np.ndarray, values: np.ndarray, n: int, seed: int) -> np.ndarray:
    """Draws of the variables of a task that are not known.

    Args:
        task: the task.
        known: mask over parameters, then data, shape ``(d + m,)``.
        values: of the known ones, same shape.
        n: number of draws.
        seed: of random numbers.

    Returns:
        Shape ``(n, unknown)``, parameters first.

    Raises:
        SbiDaError: a mask of another size, or a conditional that cannot be drawn from.
    """
    known, values = np.asarray(known, bool), np.asarray(values, float)
    if not known.shape == values.shape == (task.parameters + task.data,):
        raise SbiDaError(f"{task.name} has {task.parameters} parameters and {task.data} data: known and values must have that many entries")
    numbers = generator(task.name, known.tolist(), values[known].tolist(), seed)
    mask = torch.from_numpy(known)
    values_ = torch.where(mask, torch.from_numpy(values), torch.zeros(()).double())
    return task.draw(mask, values_, n, numbers)[:, ~mask].numpy()


def random_conditionals(task: Task, count: int, seed: int) -> list[Conditional]:
    """Questions with every variable known with even odds, not all and not none, and values of one simulation each."""
    numbers = generator(task.name, "conditionals", seed)
    theta = task.prior.sample(count, numbers)
    both = torch.cat([theta, task.simulate(theta, numbers)], -1)
    found = []
    for values in both:
        known = torch.zeros(len(values), dtype=torch.bool)
        while known.all() or not known.any():
            known = torch.rand(len(values), generator=numbers) < 0.5
        found.append(Conditional(known.numpy(), values.numpy()))
    return found


def masked_data(task: Task, observed: np.ndarray, count: int, seed: int) -> list[Conditional]:
    """Questions for the parameters where only some of the data are seen: any subset but all and none, all with the same odds.

    Args:
        task: the task.
        observed: observations ``(observation, m)``; they take turns.
        count: number of questions.
        seed: of the subsets.
    """
    numbers = generator(task.name, "masked", seed)
    found = []
    for i in range(count):
        subset = int(torch.randint(1, 2**task.data - 1, (1,), generator=numbers))
        known = np.array([False] * task.parameters + [bool(subset >> k & 1) for k in range(task.data)])
        found.append(Conditional(known, np.concatenate([np.zeros(task.parameters), observed[i % len(observed)]])))
    return found
