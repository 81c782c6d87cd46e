"""One-dimensional laws a prior is built from.

Each knows its density (up to truncation), the probability of an interval without cancellation in either tail, and the
inverse of that probability from below or from above. All arrays broadcast; all values are in the parameter's unit.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator
from scipy.optimize.elementwise import find_root
from scipy.special import gammainc, gammaincc, gammainccinv, gammaincinv, logsumexp, ndtri
from scipy.stats import norm

from sbi_da.errors import ConfigError

__all__ = [
    "AnyDistribution", "BrokenPowerLaw", "Distribution", "DustLayer", "Exponential", "Law", "LogOfUniform", "LogUniform", "Mixture",
    "Normal", "Tabulated", "Uniform", "VolumeDensity", "distribution_from_dict",
]

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


class _Interval(Law):
    low: float
    high: float

    @model_validator(mode="after")
    def _rising(self) -> "_Interval":
        if not self.high > self.low:
            raise ValueError("high must be larger than low")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Support."""
        return self.low, self.high


class _Bounded(_Interval, Distribution):
    """Between ``low`` and ``high``, whatever else holds."""


class Uniform(_Bounded):
    """Constant density."""

    kind: Literal["uniform"] = "uniform"

    def log_density(self, x: Array) -> Array:
        return np.zeros(np.shape(x))

    def mass(self, a: Array, b: Array) -> Array:
        return np.maximum(np.subtract(b, a), 0.0)

    def quantile(self, low: Array, high: Array, below: Array, above: Array) -> Array:
        return np.where(below < above, low + below, high - above)


class LogUniform(_Bounded):
    """Density proportional to 1/x."""

    kind: Literal["log_uniform"] = "log_uniform"
    low: float = Field(gt=0)

    def log_density(self, x: Array) -> Array:
        return -np.log(x)

    def mass(self, a: Array, b: Array) -> Array:
        return np.maximum(np.log(np.divide(np.maximum(b, 1e-300), a)), 0.0)

    def quantile(self, low: Array, high: Array, below: Array, above: Array) -> Array:
        return np.where(below < above, low * np.exp(below), high * np.exp(-above))


class LogOfUniform(_Bounded):
    """Base-10 logarithm of a uniform quantity: log age under a constant star-formation rate."""

    kind: Literal["log_of_uniform"] = "log_of_uniform"

    def log_density(self, x: Array) -> Array:
        return np.log(np.log(10.0)) + np.log(10.0) * (np.asarray(x) - self.high)

    def mass(self, a: Array, b: Array) -> Array:
        width = np.maximum(np.subtract(b, a), 0.0)
        return 10 ** (np.asarray(b) - self.high) * -np.expm1(-np.log(10.0) * width)

    def quantile(self, low: Array, high: Array, below: Array, above: Array) -> Array:
        left, right = 10 ** (np.asarray(low) - self.high), 10 ** (np.asarray(high) - self.high)
        return self.high + np.log10(np.where(below < above, left + below, right - above))


class Normal(_Bounded):
    """Normal law truncated to ``[low, high]``."""

    kind: Literal["normal"] = "normal"
    mean: float
    sd: float = Field(gt=0)

    def log_density(self, x: Array) -> Array:
        return norm.logpdf(x, self.mean, self.sd)

    def mass(self, a: Array, b: Array) -> Array:
        u, v = (np.asarray(a) - self.mean) / self.sd, (np.asarray(b) - self.mean) / self.sd
        direct = np.where(u > 0, norm.sf(u) - norm.sf(v), norm.cdf(v) - norm.cdf(u))
        return np.maximum(direct, 0.0)

    def quantile(self, low: Array, high: Array, below: Array, above: Array) -> Array:
        u, v = (np.asarray(low) - self.mean) / self.sd, (np.asarray(high) - self.mean) / self.sd
        left = norm.cdf(u) + below
        right = norm.sf(v) + above
        with np.errstate(divide="ignore"):
            return self.mean + self.sd * np.where(left < right, ndtri(left), -ndtri(right))


class Exponential(_Bounded):
    """Density proportional to exp(-x / scale)."""

    kind: Literal["exponential"] = "exponential"
    low: float = 0.0
    scale: float = Field(gt=0)

    def log_density(self, x: Array) -> Array:
        return -np.asarray(x) / self.scale - np.log(self.scale)

    def mass(self, a: Array, b: Array) -> Array:
        width = np.maximum(np.subtract(b, a), 0.0)
        return np.exp(-np.asarray(a) / self.scale) * -np.expm1(-width / self.scale)

    def quantile(self, low: Array, high: Array, below: Array, above: Array) -> Array:
        from_below = low - self.scale * np.log1p(-np.minimum(below * np.exp(np.divide(low, self.scale)), 1 - 1e-16))
        from_above = high - self.scale * np.log1p(above * np.exp(np.divide(high, self.scale)))
        return np.where(below < above, from_below, from_above)


class DustLayer(_Interval):
    r"""Extinction that grows with distance: exponential, its scale the mean over directions within a plane dust layer.

    A sightline of Galactic latitude b leaves a layer of half-thickness h after :math:`h/|\sin b|`. With :math:`\sin b`
    uniform, the mean path in it up to distance d is d below h, and :math:`h\,(1 + \ln(d/h))` beyond.

    Attributes:
        low: smallest extinction, mag.
        high: largest extinction, mag.
        density: extinction per length in the layer, mag/kpc (A_V of 1.8 near the Sun: Whittet 2003, Dust in the Galactic
            Environment, 2nd ed.).
        half_thickness: h, pc (125: Marshall et al. 2006, A&A 453, 635).
        distance: name of the parameter that holds the distance in pc.
    """

    kind: Literal["dust_layer"] = "dust_layer"
    low: float = Field(0.0, ge=0)
    high: float = Field(gt=0)
    density: float = Field(1.8, gt=0)
    half_thickness: float = Field(125.0, gt=0)
    distance: str = "distance"

    @property
    def given(self) -> tuple[str, ...]:
        """The distance."""
        return (self.distance,)

    def at(self, theta: Mapping[str, Array]) -> Exponential:
        """The exponential law at these distances."""
        d = np.asarray(theta[self.distance], float)
        path = np.minimum(d, self.half_thickness) + self.half_thickness * np.log(np.maximum(d / self.half_thickness, 1.0))
        values: dict[str, Any] = {"low": self.low, "high": self.high, "scale": self.density * path / 1000.0}
        return Exponential.model_construct(**values)


class VolumeDensity(_Bounded):
    r"""Exponentially decreasing space density, :math:`p(d)\propto d^2 e^{-d/L}` (Bailer-Jones 2015, PASP 127, 994)."""

    kind: Literal["volume"] = "volume"
    low: float = Field(0.0, ge=0)
    scale: float = Field(gt=0)

    def log_density(self, x: Array) -> Array:
        y = np.asarray(x) / self.scale
        with np.errstate(divide="ignore"):
            return 2 * np.log(y) - y - np.log(2 * self.scale)

    def mass(self, a: Array, b: Array) -> Array:
        u, v = np.asarray(a) / self.scale, np.asarray(b) / self.scale
        return np.maximum(np.where(u > 3, gammaincc(3, u) - gammaincc(3, v), gammainc(3, v) - gammainc(3, u)), 0.0)

    def quantile(self, low: Array, high: Array, below: Array, above: Array) -> Array:
        left = gammainc(3, np.asarray(low) / self.scale) + below
        right = gammaincc(3, np.asarray(high) / self.scale) + above
        return self.scale * np.where(left < right, gammaincinv(3, np.minimum(left, 1)), gammainccinv(3, np.minimum(right, 1)))


class BrokenPowerLaw(_Bounded):
    r"""Continuous piecewise power law, :math:`p\propto x^{-\alpha_k}` between ``breaks`` (Kroupa 2001, MNRAS 322, 231).

    Attributes:
        breaks: rising positions where the slope changes.
        slopes: one more slope than breaks.
    """

    kind: Literal["power_law"] = "power_law"
    low: float = Field(gt=0)
    breaks: tuple[float, ...] = (0.08, 0.5)
    slopes: tuple[float, ...] = (0.3, 1.3, 2.3)

    @model_validator(mode="after")
    def _lengths(self) -> "BrokenPowerLaw":
        if len(self.slopes) != len(self.breaks) + 1:
            raise ValueError("slopes needs one entry more than breaks")
        return self

    def _pieces(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        edges = np.array([0.0, *self.breaks, np.inf])
        scale = np.ones(len(self.slopes))
        for k, b in enumerate(self.breaks):
            scale[k + 1] = scale[k] * b ** (self.slopes[k + 1] - self.slopes[k])
        return edges, np.array(self.slopes), scale

    def log_density(self, x: Array) -> Array:
        edges, slopes, scale = self._pieces()
        k = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, len(slopes) - 1)
        return np.log(scale[k]) - slopes[k] * np.log(x)

    def mass(self, a: Array, b: Array) -> Array:
        edges, slopes, scale = self._pieces()
        total: Any = 0.0
        for k, (alpha, c) in enumerate(zip(slopes, scale, strict=True)):
            u = np.clip(a, max(edges[k], 1e-12), edges[k + 1])
            v = np.clip(b, u, max(edges[k + 1], 1e-12))
            total = total + c * _power_integral(u, v, alpha)
        return total

    def quantile(self, low: Array, high: Array, below: Array, above: Array) -> Array:
        up = self._walk(low, below, +1)
        down = self._walk(high, above, -1)
        return np.where(below < above, up, down)

    def _walk(self, start: Array, amount: Array, direction: int) -> np.ndarray:
        edges, slopes, scale = self._pieces()
        position = np.broadcast_to(np.asarray(start, float), np.shape(amount)).copy()
        left = np.broadcast_to(np.asarray(amount, float), position.shape).copy()
        order = range(len(slopes)) if direction > 0 else range(len(slopes) - 1, -1, -1)
        for k in order:
            edge = edges[k + 1] if direction > 0 else edges[k]
            inside = (position < edges[k + 1]) if direction > 0 else (position > edges[k])
            if direction > 0:
                inside &= position >= edges[k]
            lo, hi = (position, np.maximum(edge, position)) if direction > 0 else (np.minimum(edge, position), position)
            with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
                room = scale[k] * _power_integral(np.maximum(lo, 1e-12), hi, slopes[k])
                step = np.minimum(left, room)
                moved = _power_shift(position, direction * step / scale[k], slopes[k])
            full = left >= room
            position = np.where(inside, np.where(full, edge, moved), position)
            left = np.where(inside, left - step, left)
        return position


def _power_integral(u: Array, v: Array, alpha: float) -> Array:
    ratio = np.log(np.divide(v, u))
    beta = 1.0 - alpha
    with np.errstate(over="ignore", invalid="ignore"):
        return ratio if beta == 0 else np.power(u, beta) * np.expm1(beta * ratio) / beta


def _power_shift(x: Array, amount: Array, alpha: float) -> Array:
    beta = 1.0 - alpha
    if beta == 0:
        return x * np.exp(amount)
    return x * np.exp(np.log1p(np.maximum(beta * amount * np.power(x, -beta), -1 + 1e-16)) / beta)


class Tabulated(Distribution):
    """A law known by draws: its quantiles at evenly spaced normal scores, linear in between.

    Attributes:
        z: rising normal scores.
        x: rising values at these scores.
    """

    kind: Literal["tabulated"] = "tabulated"
    z: tuple[float, ...]
    x: tuple[float, ...]

    @classmethod
    def from_draws(cls, draws: np.ndarray, bounds: tuple[float, float], knots: int = 257) -> "Tabulated":
        """Fit to ``draws``, shape ``(n,)``, with the support widened to ``bounds``."""
        reach = float(-ndtri(0.5 / len(draws)))
        z = np.linspace(-reach, reach, knots)
        x = np.quantile(draws, norm.cdf(z))
        z = np.concatenate([[-8.0], z, [8.0]])
        x = np.concatenate([[bounds[0]], x, [bounds[1]]])
        step = 1e-9 * (bounds[1] - bounds[0])
        x = np.maximum.accumulate(x + step * np.arange(len(x)))
        return cls(z=tuple(z.tolist()), x=tuple(x.tolist()))

    @property
    def bounds(self) -> tuple[float, float]:
        """Support."""
        return self.x[0], self.x[-1]

    def _score(self, x: Array) -> Array:
        return np.interp(x, self.x, self.z)

    def log_density(self, x: Array) -> Array:
        knots, z = np.array(self.x), np.array(self.z)
        k = np.clip(np.searchsorted(knots, x, side="right") - 1, 0, len(knots) - 2)
        slope = (z[k + 1] - z[k]) / (knots[k + 1] - knots[k])
        return norm.logpdf(self._score(x)) + np.log(slope)

    def mass(self, a: Array, b: Array) -> Array:
        u, v = self._score(a), self._score(b)
        return np.maximum(np.where(u > 0, norm.sf(u) - norm.sf(v), norm.cdf(v) - norm.cdf(u)), 0.0)

    def quantile(self, low: Array, high: Array, below: Array, above: Array) -> Array:
        left = norm.cdf(self._score(low)) + below
        right = norm.sf(self._score(high)) + above
        with np.errstate(divide="ignore"):
            z = np.where(left < right, ndtri(left), -ndtri(right))
        return np.interp(z, self.z, self.x)


Component = Annotated[
    Uniform | LogUniform | LogOfUniform | Normal | Exponential | VolumeDensity | BrokenPowerLaw | Tabulated,
    Field(discriminator="kind"),
]


class Mixture(Distribution):
    """A weighted sum of laws with one support, each normalised on it.

    Attributes:
        laws: the components.
        weights: their probabilities; they sum to one.
    """

    kind: Literal["mixture"] = "mixture"
    laws: tuple[Component, ...] = Field(min_length=1)
    weights: tuple[float, ...]

    @model_validator(mode="after")
    def _check(self) -> "Mixture":
        if len(self.weights) != len(self.laws) or min(self.weights) <= 0 or abs(sum(self.weights) - 1) > 1e-9:
            raise ValueError(f"weights must be {len(self.laws)} positive numbers that sum to 1, one per law")
        if len({law.bounds for law in self.laws}) > 1:
            raise ValueError("the laws must have the same low and high")
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Support."""
        return self.laws[0].bounds

    def _shares(self) -> list[tuple[Distribution, float]]:
        return [(law, w / float(law.mass(*self.bounds))) for law, w in zip(self.laws, self.weights, strict=True)]

    def log_density(self, x: Array) -> Array:
        return logsumexp(np.stack([law.log_density(x) + np.log(share) for law, share in self._shares()]), axis=0)

    def mass(self, a: Array, b: Array) -> Array:
        return sum(share * law.mass(a, b) for law, share in self._shares())

    def quantile(self, low: Array, high: Array, below: Array, above: Array) -> Array:
        def excess(x: Array, low: Array, high: Array, below: Array, above: Array) -> Array:
            return np.where(below < above, self.mass(low, x) - below, above - self.mass(x, high))

        given = np.broadcast_arrays(*(np.asarray(v, float) for v in (low, high, below, above)))
        with np.errstate(divide="ignore", invalid="ignore"):
            found = find_root(excess, (given[0], given[1]), args=tuple(given)).x
        ends = np.where(given[2] <= 0, given[0], np.where(given[3] <= 0, given[1], found))
        return np.clip(ends, given[0], given[1])


AnyDistribution = Annotated[
    Uniform | LogUniform | LogOfUniform | Normal | Exponential | DustLayer | VolumeDensity | BrokenPowerLaw | Tabulated | Mixture,
    Field(discriminator="kind"),
]
_ADAPTER: TypeAdapter[Any] = TypeAdapter(AnyDistribution)


def distribution_from_dict(content: Mapping[str, Any], where: str = "prior") -> Law:
    """Build a law from plain content such as ``{kind: normal, mean: 0, sd: 1, low: -3, high: 3}``.

    Raises:
        ConfigError: naming the key that does not fit.
    """
    try:
        return _ADAPTER.validate_python(dict(content))
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in (where, *first["loc"]))
        raise ConfigError(f"{path}: {first['msg']}") from error
