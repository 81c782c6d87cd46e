"""The heads of this package, all on the same encoder, with one schedule for all tasks.

An estimator is trained on the simulations, an emulator is learned from the same, and draws of the first are refined by the likelihood of
the second. Where an emulator explains the data badly that does harm: draws come from the estimator as it is and refined, in shares that
give held-out simulations (those that chose the epochs) the highest density: stacking; Yao et al. 2018, arXiv 1704.02030. Of any conditional
all draws are refined.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.special import softmax

from benchmarks.sbibm.method import Methods
from benchmarks.sbibm.tasks import Task
from sbi_da.config import TrainingConfig
from sbi_da.emulated_refinement import refine_by_emulator, refined_log_density
from sbi_da.emulation import emulate
from sbi_da.emulator import Emulator
from sbi_da.estimator import Estimator
from sbi_da.from_sbi import SbiSimulator, seeded
from sbi_da.held_out import held_out_log_density
from sbi_da.learning import estimator_of, learn
from sbi_da.network import MatchingConfig, NetworkConfig
from sbi_da.records import Records
from sbi_da.sources import Examples, RecordsSource

__all__ = ["HEADLINE", "OURS", "Ours", "Refined", "Stacked"]

HEADLINE = "flow_matching"

HELD_OUT = 0.05
PASSES = 60
"""Through the simulations; fewer where held-out ones no longer gain."""
NETWORK = NetworkConfig(
    width=32, layers=2, heads=4, summary=128, blocks=3, context=64, octaves=0, gated=True, dropout=0.1,
    hidden=(64, 64), transforms=4, bins=8,
    matching=MatchingConfig(
        width=48, layers=3, heads=4, tokens=4, repeats=4, gaussian="linear", questions="none", steps=32, dropout=0.1,
    ),
)
TRAINING = TrainingConfig(
    batch=128, learning_rate=2e-3, optimiser="adamw", warmup=100, averaging=0.999, weight_decay=1e-2, patience=12,
    gradient_clip=5.0,
)
SPARE = 4
"""Proposals of which one is kept, so that few are kept twice."""
JUDGED = 200
"""Held-out simulations that decide on shares."""


class Ours:
    """An estimator with one of the heads, and an emulator.

    Args:
        head: which.
        network: sizes.
        passes: through the simulations.
        matching: what else of ``network.matching`` is set.
    """

    def __init__(self, head: str, network: NetworkConfig = NETWORK, passes: int = PASSES, **matching: Any) -> None:
        self.head, self.network, self.passes, self.matching = head, network, passes, matching

    def fit(self, task: Task, theta: np.ndarray, x: np.ndarray, seed: int) -> "Refined | Stacked":
        """Train; a twentieth of the simulations is held out to choose epochs and shares by."""
        simulator = SbiSimulator(None, task.prior.distribution(torch.float64), channels=[f"x_{i}" for i in range(x.shape[1])])
        surveys, records = simulator.surveys(), simulator.records(theta, x)
        order = np.random.default_rng(seed).permutation(len(theta))
        held, rest = (np.sort(part) for part in np.split(order, [max(100, int(HELD_OUT * len(theta)))]))
        estimator = estimator_of(simulator, network=self._network(), seed=seed)
        apart = RecordsSource(records.isel(held), surveys, estimator.prior, seed=seed)
        settings = TRAINING.model_copy(
            update={"epochs": self.passes, "steps_per_epoch": -(-len(rest) // TRAINING.batch), "validation": len(held)}
        )
        learn(estimator, RecordsSource(records.isel(rest), surveys, estimator.prior, seed=seed), settings, seed, validation=apart)
        refined = Refined(estimator, emulate(theta[rest], x[rest], seed=seed), simulator)
        return refined if self.matching.get("questions") == "channels" else Stacked(refined, records.isel(held[:JUDGED]))

    def _network(self) -> NetworkConfig:
        matching = {**self.network.matching.model_dump(), **self.matching}
        return NetworkConfig.model_validate({**self.network.model_dump(), "head": self.head, "matching": matching})


def stacked(log_density: np.ndarray) -> np.ndarray:
    """Shares of laws ``(law,)`` in the mixture that gives objects the highest density, of log-densities ``(law, object)``."""
    share = np.full(len(log_density), 1 / len(log_density))
    for _ in range(1000):
        share = softmax(np.log(np.maximum(share, 1e-300))[:, None] + log_density, axis=0).mean(1)
    return share


class Refined:
    """A trained estimator, refined by an emulator."""

    def __init__(self, estimator: Estimator, emulator: Emulator, simulator: SbiSimulator) -> None:
        self.estimator, self.emulator, self.simulator = estimator, emulator, simulator

    def records(self, x: np.ndarray) -> Records:
        """One observation; NaN was not taken."""
        names = self.simulator.prior.names
        middle = self.simulator.prior.from_normal(np.zeros((1, len(names))))
        return self.simulator.records(np.stack([middle[n] for n in names], -1), np.asarray(x, float)[None])

    def sample(self, x: np.ndarray, n: int, seed: int) -> np.ndarray:
        """Draws of the parameters."""
        return self._sample(x, n, seed, {})

    def _sample(self, x: np.ndarray, n: int, seed: int, known: Mapping[str, float]) -> np.ndarray:
        drawn = refine_by_emulator(self.estimator, self.records(x), self.emulator, n, seed, known, proposals=SPARE * n)
        return np.stack([drawn[name].values[0] for name in self.simulator.prior.names if name not in known], -1)

    def sample_given(self, known: np.ndarray, values: np.ndarray, n: int, seed: int) -> np.ndarray:
        """Draws of what is not known: of the parameters, refined, and of the data given these, from the emulator."""
        names = self.simulator.prior.names
        d = len(names)
        held = {name: float(values[i]) for i, name in enumerate(names) if known[i]}
        x = np.where(known[d:], values[d:], np.nan)
        theta = np.broadcast_to(values[:d], (n, d)).copy()
        if len(held) < d:
            theta[:, ~known[:d]] = self._sample(x, n, seed, held)
        with seeded(seed), torch.no_grad():
            whole = self.emulator.complete(torch.from_numpy(theta).float(), torch.from_numpy(x).float()).numpy()
        return np.concatenate([theta[:, ~known[:d]], whole[:, ~known[d:]]], -1)


class Stacked:
    """An estimator of which some draws are refined.

    Args:
        refined: the estimator, refined.
        records: simulations that the share is chosen by.
    """

    def __init__(self, refined: Refined, records: Records) -> None:
        self.refined, estimator = refined, refined.estimator
        z = estimator.prior.to_normal(records.parameters)
        plain = held_out_log_density(estimator, Examples(estimator.layout.read(records), z, np.zeros(len(z))))
        self.share = float(stacked(np.stack([plain, refined_log_density(estimator, records, refined.emulator)]))[1])

    def sample(self, x: np.ndarray, n: int, seed: int) -> np.ndarray:
        """Draws of the parameters of one observation."""
        count = round(self.share * n)
        found = [self.refined.sample(x, count, seed)] if count else []
        if count < n:
            drawn = self.refined.estimator(self.refined.records(x)).sample(n - count, seed + 100)
            found.append(np.stack([drawn[name].values[0] for name in self.refined.simulator.prior.names], -1))
        return np.random.default_rng(seed).permutation(np.concatenate(found))


OURS: Methods = {
    "flow_matching": partial(Ours, "flow_matching"),
    "any_conditional": partial(Ours, "flow_matching", questions="channels"),
    "spline": partial(Ours, "spline"),
    "mixture": partial(Ours, "mixture"),
}
