"""Where training objects come from: a simulator, afresh for every epoch or from a fixed set, or saved records."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from sbi_da.any_prior import AnyPrior
from sbi_da.errors import SbiDaError
from sbi_da.layout import Layout, Observations
from sbi_da.photographs import noise_free, photograph
from sbi_da.proposal import Proposal
from sbi_da.records import ABSENT, Measurements, Records
from sbi_da.records.missing import MissingLaw, NothingMissing
from sbi_da.simulation import lose, observe
from sbi_da.simulators import Simulator, Sky
from sbi_da.surveys import Channel, Survey

__all__ = ["Examples", "PopulationWeights", "RecordsSource", "ReweightedSource", "SimulatorSource", "Source", "StoredSource"]

PopulationWeights = Callable[[np.ndarray], np.ndarray]

EMPTY = 0.01
"""Share of training objects nobody looks at, whatever the law: without data the posterior must be the prior."""


@dataclass(frozen=True)
class Examples:
    """Measurements, the normal scores of their parameters ``(object, parameter)``, and log(prior / proposal)."""

    observed: Observations
    z: np.ndarray
    log_weight: np.ndarray

    def __len__(self) -> int:
        return len(self.z)

    def usable(self) -> "Examples":
        """Those inside the prior, with positive weight."""
        return self.take(np.isfinite(self.z).all(1) & np.isfinite(self.log_weight))

    def take(self, index: np.ndarray) -> "Examples":
        """Some of them."""
        return Examples(self.observed.take(index), self.z[index], self.log_weight[index])


class Source(Protocol):
    """Gives the examples of an epoch; the same epoch always gives the same ones."""

    weighted: bool
    """Whether examples come from a proposal and carry weights."""

    def examples(self, count: int, epoch: int) -> Examples:
        """About ``count`` examples."""
        ...


class _StoredSky:
    """Noise-free signals, and images, of some objects of a fixed set."""

    def __init__(self, signals: dict[Channel, np.ndarray], images: dict[str, np.ndarray], rows: np.ndarray) -> None:
        self._signals, self._images, self._rows = signals, images, rows

    def image(self, survey: Survey, rng: np.random.Generator) -> np.ndarray:
        return self._images[survey.name][self._rows]

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
        prior: AnyPrior,
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
        self._stored: tuple[dict[Channel, np.ndarray], dict[str, np.ndarray], np.ndarray, np.ndarray] | None = None

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
                through = np.random.default_rng([self.seed, 4])
                stills = {s.name: noise_free(s, whole, through) for s in self.surveys if s.image is not None}
                self._stored = ({c: whole.signal(c) for c in self.layout.channels}, stills, z, log_weight)
            signals, stills, z, log_weight = self._stored
            rounds = -(-count // self.simulations)
            rows = np.concatenate([rng.permutation(self.simulations) for _ in range(rounds)])[:count]
            sky, z, log_weight = _StoredSky(signals, stills, rows), z[rows], log_weight[rows]
        pictures = {s.name: photograph(s, sky, rng) for s in self.surveys if s.image is not None}
        seen = {s.name: observe(s, sky, rng) for s in self.surveys if s.channels}
        seen, pictures, emptied = lose(seen, self.missing, rng, pictures, [s.name for s in self.surveys])
        parts = list(seen.values()) or [Measurements.empty(len(z))]
        observed = Observations(
            np.concatenate([m.value for m in parts], 1),
            np.concatenate([m.error for m in parts], 1),
            np.concatenate([m.state for m in parts], 1),
            pictures,
        )
        nobody = rng.random(len(z)) < EMPTY
        observed = observed.where(np.broadcast_to(~nobody[:, None], observed.states.shape))
        return Examples(observed, z, np.where(emptied & ~nobody, -np.inf, log_weight)).usable()


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
        return Examples(plain.observed, plain.z, np.maximum(log_weight, log_weight.max() - 30))


class StoredSource:
    """Examples that are held, in a new order for every epoch.

    Args:
        examples: all of them.
        seed: of the order.
        layout: theirs, for a missing-data law.
        missing: this law, applied anew for every epoch; None: nothing is lost.
    """

    def __init__(self, examples: Examples, seed: int = 0, layout: Layout | None = None, missing: MissingLaw | None = None) -> None:
        self.all, self.seed, self.layout, self.missing = examples, seed, layout, missing
        self.weighted = bool(examples.log_weight.any())

    def examples(self, count: int, epoch: int) -> Examples:  # noqa: D102
        rng = np.random.default_rng([self.seed, 5, epoch])
        rounds = -(-count // len(self.all))
        rows = np.concatenate([rng.permutation(len(self.all)) for _ in range(rounds)])[:count]
        some = self.all.take(rows)
        return some if self.missing is None or self.layout is None else _thinned(some, self.missing, self.layout, rng)


class RecordsSource:
    """Examples from records with known parameters.

    The missing-data law is applied anew for every epoch, unless the records say that one was applied when they were made.

    Raises:
        SbiDaError: a parameter of the prior is not in the records.
    """

    def __init__(
        self, records: Records, surveys: Sequence[Survey], prior: AnyPrior, missing: MissingLaw | None = None,
        seed: int = 0,
    ) -> None:
        self.layout, self.missing, self.seed = Layout(tuple(surveys)), missing or NothingMissing(), seed
        absent = [n for n in prior.columns if n not in records.parameters]
        if absent:
            raise SbiDaError(f"the records lack {', '.join(absent)}; they hold {', '.join(records.parameters) or 'no parameters'}")
        if records.attrs.get("missing", "nothing") != "nothing":
            self.missing = NothingMissing()
        self.weighted = "log_weight" in records.columns
        weight = records.columns.get("log_weight", np.zeros(len(records)))
        if "emptied" in records.columns:
            weight = np.where(records.columns["emptied"], -np.inf, weight)
        z = prior.to_normal({n: records.parameters[n] for n in prior.columns})
        self.all = Examples(self.layout.read(records), z, weight).usable()
        if len(self.all) == 0:
            raise SbiDaError("none of the records lies inside the prior")

    def examples(self, count: int, epoch: int) -> Examples:  # noqa: D102
        rng = np.random.default_rng([self.seed, 2, epoch])
        rounds = -(-count // len(self.all))
        rows = np.concatenate([rng.permutation(len(self.all)) for _ in range(rounds)])[:count]
        some = self.all.take(rows)
        return _thinned(some, self.missing, self.layout, rng)


def _thinned(some: Examples, missing: MissingLaw, layout: Layout, rng: np.random.Generator) -> Examples:
    """Examples that a missing-data law has passed over; those it leaves nothing to see are gone."""
    before = some.observed.states
    keep = missing.keep(before, layout.entry_survey, rng)
    observed = some.observed.where(keep)
    emptied = (observed.states == ABSENT).all(1) & keep.any(1) & (before != ABSENT).any(1)
    return Examples(observed, some.z, np.where(emptied, -np.inf, some.log_weight)).usable()
