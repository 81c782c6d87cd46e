"""Where training objects come from: a simulator, afresh for every epoch or from a fixed set, or saved records."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sbi_da.errors import SbiDaError
from sbi_da.layout import Layout, Scalars
from sbi_da.prior import Prior
from sbi_da.proposal import Proposal
from sbi_da.records import ABSENT, Records
from sbi_da.records.missing import MissingLaw, NothingMissing
from sbi_da.simulation import lose, observe
from sbi_da.simulators import Simulator, Sky
from sbi_da.surveys import Channel, Survey

__all__ = ["Examples", "PopulationWeights", "RecordsSource", "ReweightedSource", "SimulatorSource", "Source"]

PopulationWeights = Callable[[np.ndarray], np.ndarray]

EMPTY = 0.01
"""Share of training objects nobody looks at, whatever the law: without data the posterior must be the prior."""


@dataclass(frozen=True)
class Examples:
    """Measurements, the normal scores of their parameters ``(object, parameter)``, and log(prior / proposal)."""

    scalars: Scalars
    z: np.ndarray
    log_weight: np.ndarray

    def __len__(self) -> int:
        return len(self.z)

    def usable(self) -> "Examples":
        """Those inside the prior, with positive weight."""
        keep = np.isfinite(self.z).all(1) & np.isfinite(self.log_weight)
        return Examples(self.scalars.take(keep), self.z[keep], self.log_weight[keep])


class Source(Protocol):
    """Gives the examples of an epoch; the same epoch always gives the same ones."""

    weighted: bool
    """Whether examples come from a proposal and carry weights."""

    def examples(self, count: int, epoch: int) -> Examples:
        """About ``count`` examples."""
        ...


class _StoredSky:
    """Noise-free signals of some objects of a fixed set."""

    def __init__(self, signals: dict[Channel, np.ndarray], rows: np.ndarray) -> None:
        self._signals, self._rows = signals, rows

    def signal(self, channel: Channel) -> np.ndarray:
        return self._signals[channel][self._rows]


class SimulatorSource:
    """Simulated examples.

    Args:
        simulator: prior and sky.
        surveys: who looks.
        prior: prior of the inferred parameters.
        missing: missing-data law.
        proposal: where to draw; None: the prior.
        simulations: size of the fixed set of noise-free objects; None simulates new ones for every epoch. Noise and
            missing data are new for every epoch in either case.
        seed: seed.
    """

    def __init__(
        self,
        simulator: Simulator,
        surveys: Sequence[Survey],
        prior: Prior,
        missing: MissingLaw | None = None,
        proposal: Proposal | None = None,
        simulations: int | None = None,
        seed: int = 0,
    ) -> None:
        self.simulator, self.surveys, self.prior = simulator, tuple(surveys), prior
        self.layout = Layout(self.surveys)
        self.missing, self.proposal = missing or NothingMissing(), proposal
        self.weighted = proposal is not None
        self.simulations, self.seed = simulations, seed
        self._stored: tuple[dict[Channel, np.ndarray], np.ndarray, np.ndarray] | None = None

    def _draw(self, count: int, rng: np.random.Generator) -> tuple[Sky, np.ndarray, np.ndarray]:
        full = self.simulator.prior
        if self.proposal is None:
            z, log_weight = rng.standard_normal((count, len(full.names))), np.zeros(count)
        else:
            z, log_weight = self.proposal.sample(count, full.names, rng)
        theta = full.from_normal(z)
        sky = self.simulator.at(theta, rng)
        if self.prior.names == full.names:
            scores = np.clip(z, -8, 8)
        else:
            scores = self.prior.to_normal({**theta, **self.simulator.derive(theta)})
        return sky, scores, log_weight

    def examples(self, count: int, epoch: int) -> Examples:  # noqa: D102
        rng = np.random.default_rng([self.seed, 1, epoch])
        if self.simulations is None:
            sky, z, log_weight = self._draw(count, rng)
        else:
            if self._stored is None:
                whole, z, log_weight = self._draw(self.simulations, np.random.default_rng([self.seed, 0]))
                self._stored = ({c: whole.signal(c) for c in self.layout.channels}, z, log_weight)
            signals, z, log_weight = self._stored
            rounds = -(-count // self.simulations)
            rows = np.concatenate([rng.permutation(self.simulations) for _ in range(rounds)])[:count]
            sky, z, log_weight = _StoredSky(signals, rows), z[rows], log_weight[rows]
        seen, emptied = lose({s.name: observe(s, sky, rng) for s in self.surveys}, self.missing, rng)
        parts = list(seen.values())
        scalars = Scalars(
            np.concatenate([m.value for m in parts], 1),
            np.concatenate([m.error for m in parts], 1),
            np.concatenate([m.state for m in parts], 1),
        )
        nobody = rng.random(len(z)) < EMPTY
        scalars.state[nobody] = ABSENT
        return Examples(scalars, z, np.where(emptied & ~nobody, -np.inf, log_weight)).usable()


class ReweightedSource:
    """Examples of another source under another population of parameters.

    Args:
        source: gives the examples.
        weights: density of the population over that of the prior, of normal scores ``(object, parameter)``, shape ``(object,)``.

    Raises:
        SbiDaError: when examples are asked for, if no weight is positive.
    """

    weighted = True

    def __init__(self, source: Source, weights: PopulationWeights) -> None:
        self.source, self.weights = source, weights

    def examples(self, count: int, epoch: int) -> Examples:  # noqa: D102
        plain = self.source.examples(count, epoch)
        weight = self.weights(plain.z)
        if not (weight > 0).any():
            raise SbiDaError("the labelled objects do not determine a population: switch population or deploy off")
        with np.errstate(divide="ignore"):
            log_weight = plain.log_weight + np.log(weight)
        return Examples(plain.scalars, plain.z, np.maximum(log_weight, log_weight.max() - 30))


class RecordsSource:
    """Examples from records with known parameters.

    The missing-data law is applied anew for every epoch, unless the records say that one was applied when they were made.

    Raises:
        SbiDaError: a parameter of the prior is not in the records.
    """

    def __init__(
        self, records: Records, surveys: Sequence[Survey], prior: Prior, missing: MissingLaw | None = None, seed: int = 0
    ) -> None:
        self.layout, self.missing, self.seed = Layout(tuple(surveys)), missing or NothingMissing(), seed
        absent = [n for n in prior.names if n not in records.parameters]
        if absent:
            raise SbiDaError(f"the records lack {', '.join(absent)}; they hold {', '.join(records.parameters) or 'no parameters'}")
        if records.attrs.get("missing", "nothing") != "nothing":
            self.missing = NothingMissing()
        self.weighted = "log_weight" in records.columns
        weight = records.columns.get("log_weight", np.zeros(len(records)))
        if "emptied" in records.columns:
            weight = np.where(records.columns["emptied"], -np.inf, weight)
        z = prior.to_normal({n: records.parameters[n] for n in prior.names})
        self._all = Examples(self.layout.read(records), z, weight).usable()
        if len(self._all) == 0:
            raise SbiDaError("none of the records lies inside the prior")

    def examples(self, count: int, epoch: int) -> Examples:  # noqa: D102
        rng = np.random.default_rng([self.seed, 2, epoch])
        rounds = -(-count // len(self._all))
        rows = np.concatenate([rng.permutation(len(self._all)) for _ in range(rounds)])[:count]
        scalars = self._all.scalars.take(rows)
        keep = self.missing.keep(scalars.state, self.layout.survey_index, rng)
        state = np.where(keep, scalars.state, ABSENT)
        emptied = (state == ABSENT).all(1) & keep.any(1) & (scalars.state != ABSENT).any(1)
        log_weight = np.where(emptied, -np.inf, self._all.log_weight[rows])
        return Examples(Scalars(scalars.value, scalars.error, state), self._all.z[rows], log_weight).usable()
