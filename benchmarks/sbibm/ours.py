"""The heads of this package, all on the same encoder, with one schedule for all tasks.

Two estimators are trained: on the simulations, and on endless ones of an emulator that is learned from them. Draws come from both, in
shares that give held-out simulations (those that chose the epochs) the highest density: stacking; Yao et al. 2018, arXiv 1704.02030. For
any conditional only the second is trained: that takes long enough.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.special import softmax

from benchmarks.sbibm.method import Methods
from benchmarks.sbibm.tasks import Task
from sbi_da.any_prior import AnyPrior
from sbi_da.config import TrainingConfig
from sbi_da.emulator import emulate
from sbi_da.estimator import Estimator
from sbi_da.from_sbi import SbiSimulator
from sbi_da.held_out import EPOCH, held_out_log_density
from sbi_da.learning import estimator_of, learn
from sbi_da.network import MatchingConfig, NetworkConfig
from sbi_da.records import Records
from sbi_da.sources import RecordsSource, SimulatorSource, Source

__all__ = ["HEADLINE", "OURS", "Fitted", "Ours"]

HEADLINE = "flow_matching"

HELD_OUT = 0.05
PASSES, EMULATED = 60, 100
"""Through the simulations, fewer where held-out ones no longer gain; and through as many of the emulator's."""
DROPOUT = 0.1
"""On the simulations; the emulator's are never seen twice."""
NETWORK = NetworkConfig(
    width=32, layers=2, heads=4, summary=128, blocks=3, context=64, octaves=0, gated=True,
    hidden=(64, 64), transforms=4, bins=8,
    matching=MatchingConfig(
        width=48, layers=3, heads=4, tokens=4, repeats=4, gaussian="linear", questions="none", steps=32,
    ),
)
TRAINING = TrainingConfig(
    batch=128, learning_rate=2e-3, optimiser="adamw", warmup=100, averaging=0.999, weight_decay=1e-2, patience=12,
    gradient_clip=5.0,
)

ENDLESS = TRAINING.model_copy(update={"optimiser": "muon", "learning_rate": 4e-3})
"""On the emulator's simulations, which cannot be learned by heart."""


class Ours:
    """An estimator with one of the heads.

    Args:
        head: which.
        network: sizes.
        passes: through the simulations, and through those of an emulator; 0: none, so that the other estimator stays.
        matching: what else of ``network.matching`` is set.
    """

    def __init__(
        self, head: str, network: NetworkConfig = NETWORK, passes: tuple[int, int] = (PASSES, EMULATED), **matching: Any
    ) -> None:
        self.head, self.network, self.passes, self.matching = head, network, passes, matching

    def fit(self, task: Task, theta: np.ndarray, x: np.ndarray, seed: int) -> "Fitted":
        """Train; a twentieth of the simulations is held out to choose epochs and shares by."""
        names = [f"x_{i}" for i in range(x.shape[1])]
        prior = task.prior.distribution(torch.float64)
        simulator = SbiSimulator(None, prior, channels=names)
        order = np.random.default_rng(seed).permutation(len(theta))
        held, rest = np.split(order, [max(100, int(HELD_OUT * len(theta)))])
        emulated = SbiSimulator(emulate(theta[rest], x[rest], seed=seed), prior, channels=names)
        surveys = simulator.surveys()
        records = simulator.records(theta, x)
        sources: tuple[Callable[[AnyPrior], Source], ...] = (
            lambda p: RecordsSource(records.isel(np.sort(rest)), surveys, p, seed=seed),
            lambda p: SimulatorSource(emulated, surveys, p, seed=seed),
        )
        found: list[tuple[Estimator, np.ndarray]] = []
        for source, passes, dropout, training in zip(sources, self.passes, (DROPOUT, 0.0), (TRAINING, ENDLESS), strict=True):
            if passes:
                estimator = estimator_of(simulator, network=self._network(dropout), seed=seed)
                validation = RecordsSource(records.isel(np.sort(held)), surveys, estimator.prior, seed=seed)
                steps = -(-len(rest) // training.batch)
                settings = training.model_copy(update={"epochs": passes, "steps_per_epoch": steps, "validation": len(held)})
                learn(estimator, source(estimator.prior), settings, seed, validation=validation)
                found.append((estimator, held_out_log_density(estimator, validation.examples(len(held), EPOCH))))
        if self.matching.get("questions") == "channels":
            return FittedToAny(found[0][0], simulator)
        return Fitted([e for e, _ in found], stacked(np.stack([density for _, density in found])), simulator)

    def _network(self, dropout: float) -> NetworkConfig:
        matching = {**self.network.matching.model_dump(), "dropout": dropout, **self.matching}
        return NetworkConfig.model_validate({**self.network.model_dump(), "head": self.head, "dropout": dropout, "matching": matching})


def stacked(log_density: np.ndarray) -> np.ndarray:
    """Shares of laws ``(law,)`` in the mixture that gives objects the highest density, of log-densities ``(law, object)``."""
    share = np.full(len(log_density), 1 / len(log_density))
    for _ in range(1000):
        share = softmax(np.log(np.maximum(share, 1e-300))[:, None] + log_density, axis=0).mean(1)
    return share


class Fitted:
    """Trained estimators, each with a share of the draws."""

    def __init__(self, estimators: Sequence[Estimator], shares: np.ndarray, simulator: SbiSimulator) -> None:
        self.estimators, self.shares, self.simulator = estimators, shares, simulator

    def _records(self, x: np.ndarray) -> Records:
        names = self.simulator.prior.names
        middle = self.simulator.prior.from_normal(np.zeros((1, len(names))))
        return self.simulator.records(np.stack([middle[n] for n in names], -1), np.asarray(x, float)[None])

    def sample(self, x: np.ndarray, n: int, seed: int) -> np.ndarray:
        """Draws of one observation."""
        records, found = self._records(x), []
        for k, (estimator, count) in enumerate(zip(self.estimators, np.diff(np.rint(n * np.cumsum([0, *self.shares]))), strict=True)):
            if count:
                drawn = estimator(records).sample(int(count), seed + 100 * k)
                found.append(np.stack([drawn[name].values[0] for name in self.simulator.prior.names], -1))
        return np.random.default_rng(seed).permutation(np.concatenate(found))


class FittedToAny(Fitted):
    """One estimator, trained on questions about parameters and data."""

    def __init__(self, estimator: Estimator, simulator: SbiSimulator) -> None:
        super().__init__([estimator], np.ones(1), simulator)

    def sample_given(self, known: np.ndarray, values: np.ndarray, n: int, seed: int) -> np.ndarray:
        """Draws of what is not known."""
        names = self.simulator.prior.names
        d = len(names)
        seen, channels = np.where(known[d:], values[d:], np.nan), [f"x.{c}" for c in self.simulator.channels]
        posterior = self.estimators[0](self._records(seen))
        held = {name: float(values[i]) for i, name in enumerate(names) if known[i]}
        asked = [name for i, name in enumerate([*names, *channels]) if not known[i]]
        drawn = (posterior.given(**held) if held else posterior).marginal(asked).sample(n, seed)
        return np.stack([drawn[name].values[0] for name in asked], -1)


OURS: Methods = {
    "flow_matching": partial(Ours, "flow_matching"),
    "any_conditional": partial(Ours, "flow_matching", passes=(0, EMULATED), questions="channels"),
    "spline": partial(Ours, "spline"),
    "mixture": partial(Ours, "mixture"),
}
