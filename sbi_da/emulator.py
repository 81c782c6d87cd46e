r"""An emulator: the law of data given parameters, learned from simulations, to simulate from without end.

.. math:: q(x\mid\theta) = \sum_k w_k\, N\bigl(\Lambda_k (x - A\theta - a);\, s_k, 1\bigr)\,|\Lambda_k|

with weights, roots of precisions and shifts given by a network of :math:`\theta`, and :math:`A\theta + a`, which all components share, by a
linear map: where the data scatter little, their mean has to be known far better than a network's layers round it. A posterior trained on
a few thousand simulations learns them by heart before it has learned the posterior. What data scatter like for given parameters is often
far simpler than what parameters explain given data, is learned from the same simulations, and yields as many new ones as the training
takes (Papamakarios et al. 2019, arXiv 1805.07226, sample the posterior of such a likelihood; here a posterior for all objects is learned).
Whether that gained anything, real simulations that were held out tell.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from sbi_da.errors import SbiDaError
from sbi_da.gated import Residual
from sbi_da.optimiser import optimiser
from sbi_da.posteriors.gaussian import Gaussian, GaussianLayer
from sbi_da.posteriors.mixture import MixtureLaw

__all__ = ["Emulator", "Emulation", "emulate"]

FEWEST = 20
"""Simulations that an emulator is learned from, at least."""


@dataclass(frozen=True)
class Emulation:
    """How to learn an emulator.

    Attributes:
        components: numbers of components that are tried; the one with the highest density of held-out data stays.
        width: of the network.
        blocks: residual perceptrons.
        dropout: share of what a perceptron adds that is dropped in training.
        passes: through the simulations, at most; the one with the highest density of held-out data stays.
        patience: passes without a higher one before stopping.
        batch: simulations per step.
        learning_rate: peak of the schedule: linear up, cosine down.
        weight_decay: decoupled.
        averaging: decay per step of the average of the weights.
        held_out: share of the simulations by which components and pass are chosen.
    """

    components: Sequence[int] = (1, 8)
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


class Emulator(nn.Module):
    """Draws data for parameters: a ``simulate`` for :class:`~sbi_da.from_sbi.SbiSimulator`.

    Args:
        theta: parameters to standardise by, shape ``(simulation, parameter)``.
        x: their data, shape ``(simulation, entry)``.
        components: of the mixture.
        width: of the network.
        blocks: residual perceptrons.
        dropout: in training.
    """

    centre: Tensor
    scale: Tensor
    data_centre: Tensor
    data_scale: Tensor

    def __init__(self, theta: Tensor, x: Tensor, components: int = 1, width: int = 64, blocks: int = 3, dropout: float = 0.0) -> None:
        super().__init__()
        parameters, entries = theta.shape[1], x.shape[1]
        for name, values in (("", theta), ("data_", x)):
            self.register_buffer(f"{name}centre", values.mean(0))
            self.register_buffer(f"{name}scale", values.std(0).clamp_min(1e-12))
        self.trunk = nn.Sequential(
            nn.Linear(parameters, width), *(Residual(width, 2 * width, dropout, gated=True) for _ in range(blocks)), nn.LayerNorm(width)
        )
        self.weights = nn.Linear(width, components)
        self.each = GaussianLayer(entries, width, width, components)
        self.start = nn.Parameter(0.5 * torch.randn(components, entries) * (components > 1))
        self.mean = nn.Linear(parameters, entries)

    def law(self, theta: Tensor) -> MixtureLaw:
        """The law of standardised data, for parameters ``(object, parameter)``."""
        c = (theta - self.centre) / self.scale
        h = self.trunk(c)
        each = self.each(h)
        shift = torch.linalg.solve_triangular(each.root, (each.location + self.start)[..., None], upper=False)[..., 0]
        components = Gaussian(self.mean(c)[..., None, :] + shift, each.root, each.log_det)
        return MixtureLaw(self.weights(h).log_softmax(-1), components)

    def log_likelihood(self, theta: Tensor, x: Tensor) -> Tensor:
        """Log-density of data ``(object, entry)`` given parameters ``(object, parameter)``, in the data's units, shape ``(object,)``."""
        return self.law(theta).log_prob((x - self.data_centre) / self.data_scale) - self.data_scale.log().sum()

    def forward(self, theta: Tensor) -> Tensor:
        """Data for parameters ``(object, parameter)``, shape ``(object, entry)``; torch's global generator draws them."""
        noise = torch.randn(len(theta), 1, 1 + len(self.data_centre), device=theta.device)
        return self.law(theta).draw(noise)[:, 0] * self.data_scale + self.data_centre


def emulate(theta: Tensor | np.ndarray, x: Tensor | np.ndarray, how: Emulation | None = None, seed: int = 0) -> Emulator:
    """Learn an emulator.

    Args:
        theta: parameters, shape ``(simulation, parameter)``.
        x: their data, shape ``(simulation, entry)``.
        how: sizes and schedule.
        seed: of all that is random.

    Raises:
        SbiDaError: arrays of other shapes, not finite, or too few.
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
        found = [_fitted(known, seen, order[held:], order[:held], count, how) for count in how.components]
    return max(found, key=lambda pair: pair[1])[0]


def _fitted(theta: Tensor, x: Tensor, rows: Tensor, held: Tensor, components: int, how: Emulation) -> tuple[Emulator, float]:
    """An emulator and the mean log-density of held-out data."""
    emulator = Emulator(theta[rows], x[rows], components, how.width, how.blocks, how.dropout)
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
        raise SbiDaError("no finite density of held-out data: lower the learning rate, or scale the data")
    average.load_state_dict(best)
    return average, score
