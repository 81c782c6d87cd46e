"""What a law of a prior must know.

Its density (up to truncation), the probability of an interval without cancellation in either tail, and the inverse of that
probability from below or from above. All arrays broadcast; all values are in the parameter's unit.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, model_validator

__all__ = ["Array", "Bounded", "Distribution", "Interval", "Law"]

Array = Any


class Law(BaseModel):
    """What a prior says of one parameter, given the ones before it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    @abstractmethod
    def bounds(self) -> tuple[float, float]:
        """Support."""

    @property
    def given(self) -> tuple[str, ...]:
        """Names of the earlier parameters it depends on."""
        return ()

    @abstractmethod
    def at(self, theta: Mapping[str, Array]) -> "Distribution":
        """The law where the parameters it depends on have these values."""

    def to_dict(self) -> dict[str, Any]:
        """Plain content."""
        return self.model_dump(mode="json")


class Distribution(Law):
    """Base of the laws that depend on no other parameter. ``low`` and ``high`` bound the support."""

    def at(self, theta: Mapping[str, Array]) -> "Distribution":
        """Itself."""
        return self

    @abstractmethod
    def log_density(self, x: Array) -> Array:
        """Log-density, normalised like :meth:`mass`."""

    @abstractmethod
    def mass(self, a: Array, b: Array) -> Array:
        """Measure of ``[a, b]``; zero where ``b <= a``."""

    @abstractmethod
    def quantile(self, low: Array, high: Array, below: Array, above: Array) -> Array:
        """The x in ``[low, high]`` with ``mass(low, x) == below`` and ``mass(x, high) == above`` (both given)."""


class Interval(Law):
    """A law on ``[low, high]``."""

    low: float
    high: float

    @model_validator(mode="after")
    def _rising(self) -> "Interval":
        if not self.high > self.low:
            raise ValueError("high must be larger than low")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Support."""
        return self.low, self.high


class Bounded(Interval, Distribution):
    """Between ``low`` and ``high``, whatever else holds."""
