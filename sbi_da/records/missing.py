"""Missing-data laws: which measurements an object lacks.

A law only ever turns a measurement ABSENT. All but one do so independently of the object (missing at random, so
that absence carries no information); :class:`DepthMissing` is for tables that leave out what was too faint (missing not
at random). States come as one boolean or uint8 array of shape ``(object, channel)`` over the channels of all surveys in
a row.
"""

from abc import abstractmethod
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from sbi_da.errors import SbiDaError
from sbi_da.records.records import ABSENT, LIMIT

__all__ = [
    "AnyMissing", "CoverageMissing", "DepthMissing", "EmpiricalMissing", "MissingLaw", "MixedMissing", "NothingMissing",
    "UniformMissing",
]


def _check_weights(weights: list[float], name: str) -> None:
    if not all(np.isfinite(w) and w >= 0 for w in weights) or sum(weights) <= 0:
        raise ValueError(f"{name} must be finite, not negative, and not all zero")


def _lost(shape: tuple[int, ...], share: float, rng: np.random.Generator) -> np.ndarray:
    """Channels lost one by one, with a probability drawn for each object between 0 and twice ``share``."""
    return rng.random(shape) < rng.uniform(0, 2 * share, (shape[0], 1))


class MissingLaw(BaseModel):
    """Base of all laws."""

    model_config = ConfigDict(extra="forbid")

    @abstractmethod
    def keep(self, state: np.ndarray, survey: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What is kept.

        Args:
            state: states before, shape ``(object, channel)``.
            survey: index of the survey of each channel, shape ``(channel,)``.
            rng: source of chance.

        Returns:
            Boolean, shape ``(object, channel)``.
        """


class NothingMissing(MissingLaw):
    """Every survey sees every object."""

    kind: Literal["nothing"] = "nothing"

    def keep(self, state: np.ndarray, survey: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: D102
        return np.ones(state.shape, bool)


class UniformMissing(MissingLaw):
    """Every subset of surveys equally likely, then single channels lost.

    Attributes:
        channels: probability that a channel of a survey that was kept is lost all the same; drawn anew for each object
            uniformly between 0 and twice this number.
    """

    kind: Literal["uniform"] = "uniform"
    channels: float = Field(0.1, ge=0, le=0.5)

    def keep(self, state: np.ndarray, survey: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: D102
        kept = rng.random((len(state), int(survey.max()) + 1)) < 0.5
        return kept[:, survey] & ~_lost(state.shape, self.channels, rng)


class CoverageMissing(MissingLaw):
    """Each survey covers its share of the sky, independently of the others; then single channels are lost.

    Attributes:
        surveys: probability that a survey looked, one for each survey in their order.
        channels: as for :class:`UniformMissing`.
    """

    kind: Literal["coverage"] = "coverage"
    surveys: list[Annotated[float, Field(ge=0, le=1)]] = Field(min_length=1)
    channels: float = Field(0.1, ge=0, le=0.5)

    def keep(self, state: np.ndarray, survey: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: D102
        count = int(survey.max()) + 1
        if len(self.surveys) != count:
            raise SbiDaError(f"missing: coverage gives {len(self.surveys)} probabilities, there are {count} surveys")
        kept = rng.random((len(state), count)) < np.array(self.surveys)
        return kept[:, survey] & ~_lost(state.shape, self.channels, rng)


class EmpiricalMissing(MissingLaw):
    """The joint pattern of a real table, one row drawn for each object.

    Attributes:
        rows: observed (1) or not (0), one string of digits per distinct pattern, over all channels in order.
        counts: how often each occurs.
        table: instead of these, a table with the surveys' columns; it is read once, before training.
    """

    kind: Literal["empirical"] = "empirical"
    rows: list[str] = []
    counts: list[float] = []
    table: str | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> "EmpiricalMissing":
        if bool(self.rows) == bool(self.table) or len(self.rows) != len(self.counts):
            raise ValueError("give either table, or rows and counts of equal length")
        if len({len(row) for row in self.rows}) > 1 or any(not row or set(row) - {"0", "1"} for row in self.rows):
            raise ValueError("rows must be strings of 0 and 1, all of one length")
        if self.rows:
            _check_weights(self.counts, "counts")
        return self

    @classmethod
    def from_states(cls, state: np.ndarray) -> "EmpiricalMissing":
        """Take the pattern of ``state``, shape ``(object, channel)``."""
        rows, counts = np.unique(np.asarray(state) != ABSENT, axis=0, return_counts=True)
        return cls(rows=["".join("01"[int(x)] for x in row) for row in rows], counts=counts.tolist())

    def keep(self, state: np.ndarray, survey: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: D102
        if self.table is not None:
            raise SbiDaError(f"the pattern of {self.table} has not been read: sbi_da.runs.resolve does it")
        table = np.array([[c == "1" for c in row] for row in self.rows])
        if table.shape[1] != state.shape[1]:
            raise SbiDaError(f"empirical pattern over {table.shape[1]} channels, the surveys have {state.shape[1]}")
        p = np.array(self.counts) / np.sum(self.counts)
        return table[rng.choice(len(table), len(state), p=p)]


class DepthMissing(MissingLaw):
    """What is not detected is not in the table: limits become absent with probability ``fraction``."""

    kind: Literal["depth"] = "depth"
    fraction: float = Field(1.0, ge=0, le=1)

    def keep(self, state: np.ndarray, survey: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: D102
        dropped = rng.random((len(state), 1)) < self.fraction
        return ~((state == LIMIT) & dropped)


class MixedMissing(MissingLaw):
    """One of several laws for each object.

    Attributes:
        laws: the laws.
        weights: their relative frequencies.
    """

    kind: Literal["mixed"] = "mixed"
    laws: "list[AnyMissing]"
    weights: list[float]

    @model_validator(mode="after")
    def _one_weight_each(self) -> "MixedMissing":
        if not self.laws or len(self.laws) != len(self.weights):
            raise ValueError(f"give one weight for each law, not {len(self.weights)} weights for {len(self.laws)} laws")
        _check_weights(self.weights, "weights")
        return self

    def keep(self, state: np.ndarray, survey: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: D102
        p = np.array(self.weights) / np.sum(self.weights)
        which = rng.choice(len(self.laws), len(state), p=p)
        kept = np.ones(state.shape, bool)
        for i, law in enumerate(self.laws):
            rows = which == i
            kept[rows] = law.keep(state[rows], survey, rng)
        return kept


AnyMissing = Annotated[
    NothingMissing | UniformMissing | CoverageMissing | EmpiricalMissing | DepthMissing | MixedMissing,
    Field(discriminator="kind"),
]
MixedMissing.model_rebuild()
