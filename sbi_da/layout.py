"""The channels an estimator reads, in a fixed order, and how records are laid out for it.

Surveys and channels are matched by name: their order in the records, and anything the estimator does not know, never matters.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sbi_da.errors import SbiDaError
from sbi_da.records import ABSENT, Images, LazyPixels, Records
from sbi_da.surveys import Channel, Imaging, Survey

__all__ = ["Layout", "Observations", "unusable"]


def unusable(value: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Where a value, or its error, is not a finite, for the error positive, number whose square single precision holds."""
    single = np.finfo(np.float32)
    largest = 1e-4 * np.sqrt(single.max)
    with np.errstate(invalid="ignore"):
        return ~((np.abs(value) < largest) & (error > 1e3 * single.tiny) & (error < largest))


@dataclass(frozen=True)
class Observations:
    """What the surveys of a layout measured of some objects.

    Attributes:
        value: of all scalar channels, shape ``(object, channel)``.
        error: same shape.
        state: same shape.
        images: by survey, with the bands of its card in order.
    """

    value: np.ndarray
    error: np.ndarray
    state: np.ndarray
    images: Mapping[str, Images] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.state)

    def take(self, index: np.ndarray) -> "Observations":
        """Some of the objects."""
        images = {name: image.take(index) for name, image in self.images.items()}
        return Observations(self.value[index], self.error[index], self.state[index], images)

    @property
    def states(self) -> np.ndarray:
        """States of all channels, then of all bands of images, shape ``(object, channel + band)``."""
        return np.concatenate([self.state, *(image.state for image in self.images.values())], axis=1)

    def where(self, keep: np.ndarray) -> "Observations":
        """The same with entries of :attr:`states` absent where ``keep``, boolean of its shape, is False."""
        start = self.state.shape[1]
        state, images = np.where(keep[:, :start], self.state, ABSENT).astype(np.uint8), {}
        for name, image in self.images.items():
            images[name] = image.where(keep[:, start : start + len(image.bands)])
            start += len(image.bands)
        return Observations(self.value, self.error, state, images)


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

    @property
    def cameras(self) -> dict[str, Imaging]:
        """Of the surveys that have images."""
        return {survey.name: survey.image for survey in self.surveys if survey.image is not None}

    @property
    def entry_survey(self) -> np.ndarray:
        """Index of the survey of each entry of :attr:`Observations.states`."""
        names = [survey.name for survey in self.surveys]
        bands = [np.full(len(camera.bands), names.index(name)) for name, camera in self.cameras.items()]
        return np.concatenate([self.survey_index, *bands]).astype(int)

    def read(self, records: Records) -> Observations:
        """Lay out ``records``; what they do not hold is absent.

        Raises:
            SbiDaError: a channel in another unit, images of another size, or an observed value or error that is not a finite, positive
            number whose square single precision holds.
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
        images = {name: self._images(name, camera, records) for name, camera in self.cameras.items()}
        return Observations(value, error, state, images)

    def _images(self, name: str, camera: Imaging, records: Records) -> Images:
        """Images of one survey with the bands of its card, in order."""
        n, bands = len(records), camera.band_names
        if name not in records.image_surveys:
            nowhere = np.broadcast_to(np.zeros((), np.uint8), (n, len(bands), camera.size, camera.size))
            return Images(bands, nowhere, np.ones((n, len(bands))), np.full((n, len(bands)), ABSENT, np.uint8))
        held = records.images(name)
        if held.pixels.shape[2:] != (camera.size, camera.size):
            raise SbiDaError(
                f"{name}: images of {held.pixels.shape[3]} x {held.pixels.shape[2]} pixels, and the estimator reads "
                f"{camera.size} x {camera.size}: resize them when they are packed"
            )
        return held if held.bands == bands else _in_order(held, bands)

    def _check(self, value: np.ndarray, error: np.ndarray, state: np.ndarray, ids: np.ndarray) -> None:
        seen = state != ABSENT
        for name, bad in (("value", unusable(value, np.ones(()))), ("error", unusable(np.zeros(()), error))):
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


def _in_order(held: Images, bands: tuple[str, ...]) -> Images:
    """Images with these bands, read when they are used; those they lack are absent."""
    source = [held.bands.index(band) if band in held.bands else None for band in bands]
    have = np.array([k is not None for k in source])
    taken = [k for k in source if k is not None]

    def read(index: np.ndarray) -> np.ndarray:
        block = np.zeros((len(index), len(bands), *held.pixels.shape[2:]), held.pixels.dtype)
        block[:, have] = held.pixels[index][:, taken]
        return block

    shape = (len(held), len(bands))
    error, state = np.ones(shape), np.full(shape, ABSENT, np.uint8)
    error[:, have], state[:, have] = held.error[:, taken], held.state[:, taken]
    return Images(bands, LazyPixels(read, (*shape, *held.pixels.shape[2:]), held.pixels.dtype), error, state)
