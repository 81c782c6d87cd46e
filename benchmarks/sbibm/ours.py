"""The heads of this package, all on the same encoder, with one schedule for all tasks."""

from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.sbibm.method import Methods
from benchmarks.sbibm.tasks import Task
from sbi_da.config import TrainingConfig
from sbi_da.estimator import Estimator
from sbi_da.from_sbi import SbiSimulator
from sbi_da.learning import estimator_of, learn
from sbi_da.network import MatchingConfig, NetworkConfig
from sbi_da.records import Records
from sbi_da.sources import RecordsSource

__all__ = ["HEADLINE", "OURS", "Fitted", "Ours"]

HEADLINE = "flow_matching"

HELD_OUT = 0.05
PASSES = 60
"""Through the simulations; fewer where held-out ones no longer gain."""
NETWORK = NetworkConfig(
    width=32, layers=2, heads=4, summary=128, blocks=3, context=64, octaves=0, dropout=0.1, gated=True,
    hidden=(64, 64), transforms=4, bins=8,
    matching=MatchingConfig(
        width=48, layers=3, heads=4, tokens=4, dropout=0.1, repeats=4, gaussian="linear", questions="none", steps=32,
    ),
)
TRAINING = TrainingConfig(
    batch=128, learning_rate=2e-3, optimiser="adamw", warmup=100, averaging=0.999, weight_decay=1e-2, patience=12,
    gradient_clip=5.0,
)


class Ours:
    """An estimator with one of the heads.

    Args:
        head: which.
        network: sizes.
        training: schedule.
        passes: through the simulations.
    """

    def __init__(
        self, head: str, network: NetworkConfig = NETWORK, training: TrainingConfig = TRAINING, passes: int = PASSES, **matching: Any
    ) -> None:
        changed = network.matching.model_copy(update=matching)
        self.network = NetworkConfig.model_validate({**network.model_dump(), "head": head, "matching": changed.model_dump()})
        self.training, self.passes = training, passes

    def fit(self, task: Task, theta: np.ndarray, x: np.ndarray, seed: int) -> "Fitted":
        """Train; a twentieth of the simulations is held out to choose the epoch by."""
        names = [f"x_{i}" for i in range(x.shape[1])]
        simulator = SbiSimulator(None, task.prior.distribution(torch.float64), channels=names)
        estimator = estimator_of(simulator, network=self.network, seed=seed)
        records = simulator.records(theta, x)
        order = np.random.default_rng(seed).permutation(len(records))
        held = max(100, int(HELD_OUT * len(records)))
        steps = -(-(len(records) - held) // self.training.batch)
        settings = self.training.model_copy(update={"epochs": self.passes, "steps_per_epoch": steps, "validation": held})
        source, validation = (
            RecordsSource(records.isel(np.sort(rows)), simulator.surveys(), estimator.prior, seed=seed)
            for rows in (order[held:], order[:held])
        )
        return Fitted(learn(estimator, source, settings, seed, validation=validation), simulator)


class Fitted:
    """A trained estimator."""

    def __init__(self, estimator: Estimator, simulator: SbiSimulator) -> None:
        self.estimator, self.simulator = estimator, simulator

    def _records(self, x: np.ndarray) -> Records:
        names = self.simulator.prior.names
        middle = self.simulator.prior.from_normal(np.zeros((1, len(names))))
        return self.simulator.records(np.stack([middle[n] for n in names], -1), np.asarray(x, float)[None])

    def sample(self, x: np.ndarray, n: int, seed: int) -> np.ndarray:
        """Draws of one observation."""
        drawn = self.estimator(self._records(x)).sample(n, seed)
        return np.stack([drawn[name].values[0] for name in self.simulator.prior.names], -1)

    def sample_given(self, known: np.ndarray, values: np.ndarray, n: int, seed: int) -> np.ndarray:
        """Draws of what is not known."""
        names = self.simulator.prior.names
        d = len(names)
        seen, channels = np.where(known[d:], values[d:], np.nan), [f"x.{c}" for c in self.simulator.channels]
        posterior = self.estimator(self._records(seen))
        held = {name: float(values[i]) for i, name in enumerate(names) if known[i]}
        asked = [name for i, name in enumerate([*names, *channels]) if not known[i]]
        drawn = (posterior.given(**held) if held else posterior).marginal(asked).sample(n, seed)
        return np.stack([drawn[name].values[0] for name in asked], -1)


OURS: Methods = {
    "flow_matching": partial(Ours, "flow_matching"),
    "any_conditional": partial(Ours, "flow_matching", questions="channels"),
    "spline": partial(Ours, "spline"),
    "mixture": partial(Ours, "mixture"),
}
