"""The channels an estimator reads, in a fixed order, and how records are laid out for it.

Surveys and channels are matched by name: their order in the records, and anything the estimator does not know, never matters.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sbi_da.errors import SbiDaError
from sbi_da.records import ABSENT, Records
from sbi_da.surveys import Channel, Survey

__all__ = ["Layout", "Scalars"]


@dataclass(frozen=True)
class Scalars:
    """Scalar measurements over all channels of a layout, each of shape ``(object, channel)``."""

    value: np.ndarray
    error: np.ndarray
    state: np.ndarray

    def __len__(self) -> int:
        return len(self.state)

    def take(self, index: np.ndarray) -> "Scalars":
        """Some of the objects."""
        return Scalars(self.value[index], self.error[index], self.state[index])


@dataclass(frozen=True)
class Layout:
    """Surveys in order; their channels follow one another."""

    surveys: tuple[Survey, ...]

    def __post_init__(self) -> None:
        names = [s.name for s in self.surveys]
        if not names or len(set(names)) != len(names):
            raise SbiDaError(f"an estimator needs one or more different surveys, not {names}")

    @property
    def channels(self) -> list[Channel]:
        """All channels."""
        return [channel for survey in self.surveys for channel in survey.channels]

    @property
    def survey_index(self) -> np.ndarray:
        """Index of the survey of each channel."""
        return np.repeat(np.arange(len(self.surveys)), [len(s.channels) for s in self.surveys])

    def read(self, records: Records) -> Scalars:
        """Lay out ``records``; what they do not hold is absent.

        Raises:
            SbiDaError: a channel in another unit, or an observed value or error that is not a finite, positive number in the
            range of single precision.
        """
        n = len(records)
        shape = (n, len(self.channels))
        value, error, state = np.zeros(shape), np.ones(shape), np.full(shape, ABSENT, np.uint8)
        column = 0
        for survey in self.surveys:
            held = records.survey(survey.name) if survey.name in records.surveys else None
            for channel in survey.channels:
                if held is not None and channel.name in held.channels:
                    k = held.channels.index(channel.name)
                    if held.units[k] != channel.unit:
                        raise SbiDaError(
                            f"{survey.name}.{channel.name} is in {held.units[k]!r} and the estimator reads {channel.unit!r}: convert it"
                        )
                    value[:, column], error[:, column] = held.value[:, k], held.error[:, k]
                    state[:, column] = held.state[:, k]
                column += 1
        self._check(value, error, state, records.ids)
        return Scalars(value, error, state)

    def _check(self, value: np.ndarray, error: np.ndarray, state: np.ndarray, ids: np.ndarray) -> None:
        seen = state != ABSENT
        single = np.finfo(np.float32)
        with np.errstate(invalid="ignore"):
            wild = ~(np.abs(value) < 1e-3 * single.max)
            useless = ~((error > 1e3 * single.tiny) & (error < 1e-3 * single.max))
        for name, bad in (("value", wild), ("error", useless)):
            rows, columns = np.nonzero(bad & seen)
            if len(rows):
                survey = self.surveys[self.survey_index[columns[0]]].name
                raise SbiDaError(
                    f"object {ids[rows[0]]!r}: {survey}.{self.channels[columns[0]].name} is observed but its {name} is "
                    f"{(value if name == 'value' else error)[rows[0], columns[0]]}: mark it absent or mend it"
                )

    def only(self, names: Sequence[str]) -> np.ndarray:
        """Boolean mask of the channels of the named surveys."""
        known = [s.name for s in self.surveys]
        return np.isin(self.survey_index, [known.index(name) for name in names])
