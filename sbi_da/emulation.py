"""Emulators: the law of data given parameters, learned from simulations, to simulate from without end.

A posterior trained on a few thousand simulations learns them by heart before it has learned the posterior. What data scatter like for given
parameters is often far simpler than what parameters explain given data, is learned from the same simulations, and yields as many new ones
as the training takes (Papamakarios et al. 2019, arXiv 1805.07226, sample the posterior of such a likelihood; here a posterior for all
objects is learned). Of several laws the one that explains held-out simulations best stays.
"""

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from sbi_da.emulator import ConstantScatter, Emulator, VaryingScatter
from sbi_da.errors import SbiDaError
from sbi_da.optimiser import optimiser

__all__ = ["Emulation", "emulate"]

E = TypeVar("E", bound=Emulator)

EACH = 5
"""Simulations per component of a constant scatter, at least."""
FEWEST = 20
"""Simulations that an emulator is learned from, at least."""


@dataclass(frozen=True)
class Emulation:
    """How to learn an emulator.

    Attributes:
        components: numbers of components that are tried where the scatter depends on the parameters.
        constant: the same where it does not, as far as there are five simulations for each; of all these laws the one with the highest
            density of held-out data stays.
        width: of the network.
        blocks: residual perceptrons.
        dropout: share of what a perceptron adds that is dropped in training, where the scatter depends on the parameters.
        passes: through the simulations, at most, half of them where the scatter is constant; the one with the highest density of
            held-out data stays.
        patience: passes without a higher one before stopping.
        batch: simulations per step.
        learning_rate: peak of the schedule: linear up, cosine down.
        weight_decay: decoupled.
        averaging: decay per step of the average of the weights.
        held_out: share of the simulations by which law and pass are chosen.
    """

    components: Sequence[int] = (1, 8)
    constant: Sequence[int] = (1, 20)
    width: int = 64
    blocks: int = 3
    dropout: float = 0.05
    passes: int = 200
    patience: int = 30
    batch: int = 128
    learning_rate: float = 1e-2
    weight_decay: float = 1e-2
    averaging: float = 0.999
    held_out: float = 0.05
    warmup: int = field(default=100, repr=False)


def emulate(theta: Tensor | np.ndarray, x: Tensor | np.ndarray, how: Emulation | None = None, seed: int = 0) -> Emulator:
    """Learn an emulator.

    Args:
        theta: parameters, shape ``(simulation, parameter)``.
        x: their data, shape ``(simulation, entry)``.
        how: sizes and schedule.
        seed: of all that is random.

    Raises:
        SbiDaError: arrays of other shapes, not finite, or too few; no law to try.
    """
    known, seen = (torch.as_tensor(a).detach().cpu().float() for a in (theta, x))
    if known.ndim != 2 or seen.ndim != 2 or len(known) != len(seen):
        raise SbiDaError(f"theta and x have shapes {tuple(known.shape)} and {tuple(seen.shape)}: one row per simulation is needed in both")
    lost = int((~torch.cat([known, seen], 1).isfinite().all(1)).sum())
    if lost:
        raise SbiDaError(f"{lost} of {len(known)} simulations are not finite: emulate those that are (an emulator takes complete data)")
    if len(known) < FEWEST:
        raise SbiDaError(f"{len(known)} simulations: an emulator is learned from {FEWEST} or more")
    how = how or Emulation()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        order = torch.randperm(len(known))
        held = max(2, round(how.held_out * len(known)))
        rows, apart = order[held:], order[:held]
        found = list(_laws(known, seen, rows, apart, how))
    if not found:
        raise SbiDaError(f"emulate: no law to try: give components, or {EACH} simulations per component that is constant")
    return max(found, key=lambda pair: pair[1])[0]


def _laws(theta: Tensor, x: Tensor, rows: Tensor, held: Tensor, how: Emulation) -> Iterator[tuple[Emulator, float]]:
    """Fitted laws, and the mean log-density of held-out data under each."""
    size: dict[str, int] = {"parameters": theta.shape[1], "entries": x.shape[1], "width": how.width, "blocks": how.blocks}
    for components in how.components:
        law = VaryingScatter(components=components, dropout=how.dropout, **size).standardised(theta[rows], x[rows])
        yield _fitted(law, theta, x, rows, held, how)
    if how.constant:
        how = replace(how, passes=max(1, how.passes // 2))
        single, score = _fitted(ConstantScatter(**size).standardised(theta[rows], x[rows]), theta, x, rows, held, how)
        for components in how.constant:
            if components == 1:
                yield single, score
            elif EACH * components <= len(rows):
                yield _fitted(copy.deepcopy(single).scattered(theta[rows], x[rows], components), theta, x, rows, held, how)


def _fitted(emulator: E, theta: Tensor, x: Tensor, rows: Tensor, held: Tensor, how: Emulation) -> tuple[E, float]:
    """The emulator trained, and the mean log-density of held-out data."""
    steps = -(-len(rows) // how.batch)
    optimise = optimiser("adamw", emulator, how.learning_rate, how.weight_decay)
    average, best, score, waited, step = copy.deepcopy(emulator).eval(), emulator.state_dict(), -math.inf, 0, 0
    for _ in range(how.passes):
        emulator.train()
        for part in rows[torch.randperm(len(rows))].tensor_split(steps):
            share = 0.5 * (1 + math.cos(math.pi * step / (steps * how.passes)))
            for group in optimise.param_groups:
                group["lr"] = how.learning_rate * min(share, (step + 1) / how.warmup)
            optimise.zero_grad()
            (-emulator.log_likelihood(theta[part], x[part]).mean()).backward()
            nn.utils.clip_grad_norm_(emulator.parameters(), 5.0)
            optimise.step()
            step += 1
            with torch.no_grad():
                for kept, now in zip(average.parameters(), emulator.parameters(), strict=True):
                    kept.lerp_(now, max(1 - how.averaging, 9 / (9 + step)))
        with torch.no_grad():
            now_score = float(average.log_likelihood(theta[held], x[held]).mean())
        waited += 1
        if now_score > score:
            best, score, waited = copy.deepcopy(average.state_dict()), now_score, 0
        if waited >= how.patience:
            break
    if not math.isfinite(score):
        raise SbiDaError("emulate: no finite density of held-out data: lower the learning rate, or scale the data")
    average.load_state_dict(best)
    return average, score
