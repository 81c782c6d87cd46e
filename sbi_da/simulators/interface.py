"""What a simulator is: a prior over parameters, quantities derived from them, and the noise-free signal they send."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from sbi_da.prior import Prior
from sbi_da.surveys.card import Channel, Survey

__all__ = ["Parameter", "PhotographedSky", "Simulator", "Sky"]


@dataclass(frozen=True)
class Parameter:
    """A physical quantity an estimator can infer.

    Attributes:
        name: identifier used in configs, tables and results.
        unit: astropy unit string; empty for a pure number or a logarithm.
        description: one line, with the convention where there is one.
        bounds: smallest and largest value, in ``unit``.
        label: for figures (matplotlib mathtext).
        classes: names of the classes, where its values are their codes; empty for a number.
    """

    name: str
    unit: str
    description: str
    bounds: tuple[float, float]
    label: str = ""
    classes: tuple[str, ...] = ()


class Sky(Protocol):
    """The noise-free signal of a set of objects, before any instrument.

    A sky that can be photographed has, besides, ``image(survey, rng)``: see :class:`PhotographedSky`.
    """

    def signal(self, channel: Channel) -> np.ndarray:
        """True value of ``channel`` for each object, in the channel's unit, shape ``(object,)``; float64."""
        ...


@runtime_checkable
class PhotographedSky(Protocol):
    """A sky of extended objects."""

    def image(self, survey: Survey, rng: np.random.Generator) -> np.ndarray:
        """Noise-free images through the point-spread function and pixels of ``survey``.

        Returns:
            Fluxes in the unit of each band's zero point, shape ``(object, band, y, x)``, float32.
        """
        ...


class Simulator(ABC):
    """Base of all simulators. The typed ``__init__`` of a subclass is its configuration schema."""

    parameters: tuple[Parameter, ...]
    """What the prior is over."""
    derived: tuple[Parameter, ...] = ()
    """What follows from them, by ``derive``."""

    @property
    @abstractmethod
    def prior(self) -> Prior:
        """Joint prior over ``parameters``."""

    @abstractmethod
    def at(self, theta: Mapping[str, np.ndarray], rng: np.random.Generator) -> Sky:
        """What the sky sends for ``theta`` (each of shape ``(object,)``); ``rng`` draws the nuisances."""

    def derive(self, theta: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Derived quantities of ``theta``, each of shape ``(object,)``."""
        return {}

    def without_offsets(self) -> "Simulator":
        """The same simulator without those of its nuisances that :meth:`offset_sd` describes; itself where there are none."""
        return self

    def offset_sd(self, channel: Channel) -> float:
        """Standard deviation, in the channel's unit, of an offset of its signal that is normal and independent of all else.

        A likelihood adds its square to the variance and draws the other nuisances from :meth:`without_offsets`.
        """
        return 0.0

    def surveys(self) -> tuple[Survey, ...]:
        """Surveys a simulator brings along (toys do); a config's ``surveys`` replaces them."""
        return ()

    def parameter(self, name: str) -> Parameter:
        """The parameter or derived quantity called ``name``."""
        from sbi_da.errors import UnknownNameError

        for parameter in (*self.parameters, *self.derived):
            if parameter.name == name:
                return parameter
        raise UnknownNameError("parameter", name, [p.name for p in (*self.parameters, *self.derived)])
