r"""A survey as its card states it: channels, units, columns, depth, noise.

The quoted error of a channel of true value :math:`m` is

.. math:: \sigma_q^2 = \bigl(\sigma(r)\, 10^{s\,\epsilon}\bigr)^2 + e^2,\qquad \epsilon\sim N(0,1)

with :math:`\sigma(r)` the card's law, log-linear between its points, at the reference magnitude :math:`r` (the
channel's own, or that of ``noise.reference``), :math:`s` the scatter of quoted errors among objects of one magnitude,
and :math:`e` a systematic term some catalogues have already added (drawn per object and survey, often zero). The true
deviation has :math:`\sigma_q^2` with :math:`\max(e, \mathrm{floor})` in the place of :math:`e`: a floor the catalogue
does not quote is learned, not written into anyone's table.
"""

from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from sbi_da.errors import ConfigError
from sbi_da.surveys.imaging import Imaging

__all__ = ["Channel", "Noise", "Survey"]


class _Card(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Noise(_Card):
    """Quoted error as a function of a reference magnitude.

    Attributes:
        points: pairs (reference magnitude, error in the channel's unit), magnitudes rising; a single error
            means constant noise.
        reference: name of the channel of the same survey whose magnitude sets the error; the channel itself if None.
        scatter: standard deviation, in dex, of quoted errors at one magnitude.
        floor: systematic error the quoted one lacks, in the channel's unit.
        added: whether a simulation adds noise of this law. Not where what the simulator sends is noisy already; the error is then quoted
            only.
    """

    points: tuple[tuple[float, float], ...] | float
    reference: str | None = None
    scatter: float = Field(0.1, ge=0)
    floor: float = Field(0.0, ge=0)
    added: bool = True

    @model_validator(mode="after")
    def _check(self) -> "Noise":
        if isinstance(self.points, tuple):
            magnitudes = [p[0] for p in self.points]
            if len(magnitudes) < 2 or any(b <= a for a, b in zip(magnitudes, magnitudes[1:], strict=False)):
                raise ValueError("noise.points needs two or more points with rising magnitudes")
            if any(p[1] <= 0 for p in self.points):
                raise ValueError("noise.points needs positive errors")
        elif self.points <= 0:
            raise ValueError("noise.points must be positive")
        return self

    def sigma(self, reference: np.ndarray) -> np.ndarray:
        """Median quoted error at ``reference`` magnitude; beyond the faintest point the last slope goes on for 1 mag.

        No further: noise is constant in flux there, and a growing error in magnitudes would scatter what is far
        too faint above the detection limit.
        """
        if not isinstance(self.points, tuple):
            return np.full(np.shape(reference), self.points)
        magnitude, error = np.array(self.points).T
        log_error = np.log10(error)
        slope = (log_error[-1] - log_error[-2]) / (magnitude[-1] - magnitude[-2])
        inside = np.interp(reference, magnitude, log_error)
        beyond = np.clip(np.nan_to_num(reference - magnitude[-1]), 0.0, 1.0)
        return 10 ** (inside + slope * beyond)


class Channel(_Card):
    """One scalar a survey measures.

    Attributes:
        name: short name, unique within the survey.
        kind: ``magnitude`` (has passband, depth, saturation), ``parallax`` or ``scalar``.
        unit: astropy unit string of the values the estimator sees (``mag``, ``mas``).
        column: column in the survey's public table.
        error_column: its error; alternatives are tried in order, as are those of ``column``.
        aliases: other spellings of ``column`` met in the wild.
        error_aliases: other spellings of ``error_column``.
        system: magnitude system, ``Vega`` or ``AB``.
        band: passband key a simulator knows; None lets it interpolate at ``wavelength``.
        wavelength: pivot wavelength in micron.
        zero_point: added to the simulated magnitude (survey minus passband system), mag.
        noise: error law.
        depth: faintest magnitude detected (probability one half), the median over the sky.
        depth_scatter: standard deviation of the depth among objects, mag.
        saturation: brightest magnitude recorded.
        limit: what a table shows for a non-detection: ``absent`` (a null), or ``no_error`` (value is the limit, its
            error is null).
        missing_values: numbers that mean null in the public table (for example -999).
        valid: values outside this range are not measurements (unit of the channel).
    """

    name: str
    kind: Literal["magnitude", "parallax", "scalar"] = "magnitude"
    unit: str = "mag"
    column: str
    error_column: str
    aliases: tuple[str, ...] = ()
    error_aliases: tuple[str, ...] = ()
    system: Literal["Vega", "AB"] | None = None
    band: str | None = None
    wavelength: float | None = Field(None, gt=0)
    zero_point: float = 0.0
    noise: Noise
    depth: float | None = None
    depth_scatter: float = Field(0.25, ge=0)
    saturation: float | None = None
    limit: Literal["absent", "no_error"] = "absent"
    missing_values: tuple[float, ...] = ()
    valid: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _check(self) -> "Channel":
        if self.kind == "magnitude":
            missing = [k for k in ("system", "wavelength", "depth") if getattr(self, k) is None]
            if missing:
                raise ValueError(f"channel {self.name!r} is a magnitude and needs {', '.join(missing)}")
        return self


class Survey(_Card):
    """A survey: its name, its channels, its images, and where its numbers come from; channels, images, or both."""

    name: str
    title: str
    reference: str
    id_columns: tuple[str, ...] = ()
    channels: tuple[Channel, ...] = ()
    image: Imaging | None = None

    @model_validator(mode="after")
    def _check(self) -> "Survey":
        if not self.channels and self.image is None:
            raise ValueError("a survey needs channels, an image, or both")
        names = [c.name for c in self.channels]
        if len(set(names)) != len(names):
            raise ValueError("channel names must be unique")
        for channel in self.channels:
            if channel.noise.reference is not None and channel.noise.reference not in names:
                raise ValueError(f"noise.reference of {channel.name!r} names no channel of this survey")
        return self

    @classmethod
    def from_card(cls, content: Any, source: str = "card") -> "Survey":
        """Validate the content of a card.

        Raises:
            ConfigError: naming the key and what was expected, on one line.
        """
        if not isinstance(content, dict):
            raise ConfigError(f"{source}: a survey card is a mapping with name, title, reference and channels")
        try:
            return cls.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ConfigError(f"{source}: {where or 'card'}: {first['msg']}") from error

    @property
    def channel_names(self) -> list[str]:
        """Names of the channels, in order."""
        return [c.name for c in self.channels]
