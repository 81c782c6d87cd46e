r"""Stars as surveys see them.

A star of given age, metallicity and initial mass has the Teff, log g and luminosity of its isochrone; an atmosphere
turns these into absolute magnitudes; dust and distance into apparent ones:

.. math:: m_b = M_b(T_\mathrm{eff}, \log g, [Fe/H], L) + A_b(A_V, T_\mathrm{eff})
          + 5\log_{10}\frac{d}{10\,\mathrm{pc}} + \text{nuisances}
"""

import copy
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from sbi_da.distributions import Law, distribution_from_dict
from sbi_da.errors import SbiDaError, UnknownNameError
from sbi_da.prior import Prior
from sbi_da.simulators import Parameter, Simulator
from sbi_da.surveys.card import Channel

from .extinction import Extinction
from .isochrones import Isochrones
from .nuisances import Disc, Jitter, companion_masses, draw_disc
from .photometry import Atmosphere, Mixture

__all__ = ["Stars", "StarsSky"]

T_SUN = 5772.0
"""Nominal solar Teff [K] (IAU 2015 B3)."""
UNITS = {"log_age": "dex(yr)", "feh": "dex", "mass": "Msun", "av": "mag", "distance": "pc"}
DESCRIPTIONS = {
    "log_age": "log10 of the age in years", "feh": "[Fe/H]", "mass": "initial mass",
    "av": "extinction A_V towards the star", "distance": "distance from the Sun",
}
LABELS = {
    "log_age": r"$\log_{10}(t/\mathrm{yr})$", "feh": "[Fe/H]", "mass": r"$M_\mathrm{ini}/M_\odot$", "av": "$A_V$",
    "distance": "$d$/pc",
}


class Stars(Simulator):
    """Stars along isochrones, through dust, with companions and discs.

    Args:
        isochrones: stellar models; ``bhac15`` covers 0.01 to 1.4 Msun at solar metallicity.
        atmosphere: source of bolometric corrections.
        extinction_law: CCM89, F04, F19, F99, G23, M14 or O94.
        r_v: ratio of total to selective extinction.
        prior: laws that replace default ones, by parameter: ``{"av": {"kind": "uniform", "low": 0, "high": 3}}``.
        companion_fraction: probability of an unresolved companion.
        disc: whether young stars may have an infrared excess.
        zero_point_jitter: standard deviation [mag] of a magnitude offset per object and passband.
    """

    def __init__(
        self,
        isochrones: Literal["mist", "parsec", "bhac15"] = "mist",
        atmosphere: Literal["mist_bc", "bt_settl", "phoenix", "kurucz", "ck04"] = "mist_bc",
        extinction_law: str = "G23",
        r_v: float = 3.1,
        prior: dict[str, dict[str, Any]] | None = None,
        companion_fraction: float = 0.4,
        disc: bool = True,
        zero_point_jitter: float = 0.02,
    ) -> None:
        if not 0 <= companion_fraction <= 1:
            raise SbiDaError(f"companion_fraction is a probability, not {companion_fraction}")
        if not 0 <= zero_point_jitter < 1:
            raise SbiDaError(f"zero_point_jitter must lie in [0, 1) mag, not {zero_point_jitter}")
        self.isochrones = Isochrones(isochrones)
        self.atmosphere = Atmosphere(atmosphere)
        self.extinction = Extinction(extinction_law, r_v)
        self.companion_fraction = companion_fraction
        self.disc = disc
        self.zero_point_jitter = zero_point_jitter
        self._limits = self.isochrones.limits()
        self._prior = Prior(_laws(self.isochrones, prior or {}), {"mass": self._limits})
        self._check_masses()
        self.parameters = tuple(
            Parameter(n, UNITS[n], DESCRIPTIONS[n], self._prior.bounds(n), LABELS[n]) for n in self._prior.names
        )
        bounds = self.isochrones.bounds
        teff = 10 ** bounds["log_teff"][0], 10 ** bounds["log_teff"][1]
        radius = tuple(10 ** (0.5 * bounds["log_l"][k]) * (T_SUN / teff[1 - k]) ** 2 for k in (0, 1))
        self.derived = (
            Parameter("teff", "K", "effective temperature", teff, r"$T_\mathrm{eff}$/K"),
            Parameter("logg", "dex(cm / s2)", "log10 of the surface gravity", bounds["log_g"], r"$\log g$"),
            Parameter("log_l", "dex(Lsun)", "log10 of the luminosity", bounds["log_l"], r"$\log L/L_\odot$"),
            Parameter("radius", "Rsun", "radius", (radius[0], radius[1]), r"$R/R_\odot$"),
        )

    @property
    def prior(self) -> Prior:  # noqa: D102
        return self._prior

    def derive(self, theta: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Teff [K], log g, log L [Lsun] and radius [Rsun] of the star (not its companion).

        Raises:
            SbiDaError: a parameter outside the prior's support.
        """
        inside = self._supported(theta)
        log_teff, logg, log_l = (
            q.astype(float) for q in self.isochrones.interpolate(inside["log_age"], inside["mass"], inside["feh"])
        )
        teff = 10**log_teff
        return {"teff": teff, "logg": logg, "log_l": log_l, "radius": 10 ** (0.5 * log_l) * (T_SUN / teff) ** 2}

    def at(self, theta: Mapping[str, np.ndarray], rng: np.random.Generator) -> "StarsSky":
        """What the sky sends: ``rng`` draws companions, discs and calibration offsets, shared by all channels.

        Raises:
            SbiDaError: a parameter outside the prior's support.
        """
        return StarsSky(self, self._supported(theta), rng)

    def without_offsets(self) -> "Stars":
        """The same stars without zero-point jitter."""
        steady = copy.copy(self)
        steady.zero_point_jitter = 0.0
        return steady

    def offset_sd(self, channel: Channel) -> float:
        """The zero-point jitter of a magnitude [mag]; channels that share a passband are taken to have one each."""
        return self.zero_point_jitter if channel.kind == "magnitude" else 0.0

    def _check_masses(self) -> None:
        low, high = self._prior.laws["mass"].bounds
        for name in ("log_age", "feh"):
            axis = getattr(self.isochrones, name)
            floor, ceiling = self._prior.laws[name].bounds
            if floor < axis[0] - 1e-9 or ceiling > axis[-1] + 1e-9:
                raise SbiDaError(
                    f"prior.{name}: support {floor:g} to {ceiling:g} leaves the range of the {self.isochrones.name} "
                    f"isochrones, {axis[0]:g} to {axis[-1]:g}; set low and high"
                )
        ages, feh = (
            np.unique(np.clip(getattr(self.isochrones, n), *self._prior.laws[n].bounds)) for n in ("log_age", "feh")
        )
        grid = np.meshgrid(ages, feh)
        smallest, largest = self._limits({"log_age": grid[0].ravel(), "feh": grid[1].ravel()})
        if np.any(np.maximum(low, smallest) >= np.minimum(high, largest)):
            raise SbiDaError(
                f"prior.mass: no mass in {low:g} to {high:g} Msun at some age or metallicity; the oldest stars of the "
                f"{self.isochrones.name} isochrones reach {largest.min():.3g} Msun, the lightest weigh up to "
                f"{smallest.max():.3g}"
            )

    def _supported(self, theta: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        for name in self._prior.names:
            if name not in theta:
                raise UnknownNameError("parameter", name, sorted(theta), "theta needs every parameter of the prior")
        inside: dict[str, np.ndarray] = {}
        columns = np.broadcast_arrays(*(np.atleast_1d(np.asarray(theta[n], float)) for n in self._prior.names))
        for (name, law), value in zip(self._prior.laws.items(), columns, strict=True):
            low, high = (np.asarray(b, float) for b in law.bounds)
            if name == "mass":
                smallest, largest = self._limits(inside)
                low, high = np.maximum(low, smallest), np.minimum(high, largest)
            slack = 1e-9 * (np.abs(low) + np.abs(high))
            good = (value >= low - slack) & (value <= high + slack)
            if not good.all():
                k = int(np.argmin(good))
                span = f"{np.broadcast_to(low, value.shape)[k]:.6g} to {np.broadcast_to(high, value.shape)[k]:.6g}"
                raise SbiDaError(
                    f"{name}: {int((~good).sum())} of {len(value)} values lie outside the prior's support, first "
                    f"object {k} with {value[k]:.6g} (allowed there: {span} {UNITS[name]})"
                )
            inside[name] = np.clip(value, low, high)
        return inside


class StarsSky:
    """Noise-free signals of a set of stars; made by :meth:`Stars.at`."""

    def __init__(self, stars: Stars, theta: Mapping[str, np.ndarray], rng: np.random.Generator) -> None:
        self._stars = stars
        self._distance = theta["distance"]
        floor = stars._limits(theta)[0]
        second = companion_masses(theta["mass"], floor, stars.companion_fraction, rng)
        self._paired = np.flatnonzero(np.isfinite(second))
        self._disc: Disc = draw_disc(theta["log_age"], rng, stars.disc)
        self._jitter = Jitter(stars.zero_point_jitter, int(rng.integers(2**62)), len(self._distance))
        self._modulus = (5 * np.log10(self._distance) - 5).astype(np.float32)
        self._av = [theta["av"], theta["av"][self._paired]]
        self._places, self._dust = [], []
        pick: tuple[Any, Any] = (slice(None), self._paired)
        for index, mass, av in zip(pick, (theta["mass"], second[self._paired]), self._av, strict=True):
            feh = theta["feh"][index]
            log_teff, logg, log_l = stars.isochrones.interpolate(theta["log_age"][index], mass, feh)
            self._places.append(stars.atmosphere.place(log_teff, logg, log_l, feh.astype(np.float32)))
            self._dust.append(stars.extinction.place(log_teff, av))
        self._seen: dict[Mixture, np.ndarray] = {}

    def signal(self, channel: Channel) -> np.ndarray:
        """Apparent magnitude in ``channel``'s system, or parallax [mas]; float64, shape ``(star,)``.

        Raises:
            SbiDaError: a channel that is neither, or whose passband cannot be computed.
        """
        if channel.kind == "parallax":
            return 1000.0 / self._distance
        if channel.kind != "magnitude":
            raise SbiDaError(f"channel {channel.name!r}: stars send magnitudes and parallaxes, not scalars")
        mixture = self._stars.atmosphere.mixture(channel)
        if mixture not in self._seen:
            self._seen[mixture] = self._apparent(mixture)
        return self._seen[mixture].astype(float) + channel.zero_point

    def _apparent(self, mixture: Mixture) -> np.ndarray:
        light = self._single(mixture, 0)
        if len(self._paired):
            other = self._single(mixture, 1)
            both = light[self._paired]
            light[self._paired] = both - 2.5 * np.log10(1 + 10 ** (0.4 * (both - other)))
        light += self._modulus
        light += self._disc.brightening(mixture.wavelength)
        light += self._jitter.offset(repr(mixture))
        return light

    def _single(self, mixture: Mixture, which: int) -> np.ndarray:
        stars, place = self._stars, self._places[which]
        if len(mixture.terms) == 1:
            band = mixture.terms[0][0]
            return stars.atmosphere.magnitude(band, place) + stars.extinction.band(band, self._dust[which])
        total = np.full(len(place.bolometric), mixture.constant, np.float32)
        for band, weight in mixture.terms:
            total += np.float32(weight) * stars.atmosphere.magnitude(band, place)
        return total + (stars.extinction.at(mixture.wavelength) * self._av[which]).astype(np.float32)


def _laws(isochrones: Isochrones, given: Mapping[str, Mapping[str, Any]]) -> dict[str, Law]:
    ages, feh = isochrones.log_age, isochrones.feh
    content: dict[str, Mapping[str, Any]] = {
        "log_age": {"kind": "uniform", "low": max(6.0, float(ages[0])), "high": min(10.1, float(ages[-1]))},
        "feh": {"kind": "normal", "mean": -0.2, "sd": 0.5, "low": float(feh[0]), "high": float(feh[-1])},
        "mass": {"kind": "power_law", "low": 0.1, "high": 50.0},
        "distance": {"kind": "volume", "scale": 1350.0, "low": 10.0, "high": 30000.0},
        "av": {"kind": "dust_layer", "high": 10.0},
    }
    for name, law in given.items():
        if name not in content:
            raise UnknownNameError("parameter", name, list(content), "of the stars simulator's prior")
        content[name] = law
    laws = {name: distribution_from_dict(law, f"prior.{name}") for name, law in content.items()}
    for name, lowest, highest in (("av", 0.0, np.inf), ("distance", 1e-3, 1e9)):
        low, high = laws[name].bounds
        if low < lowest or high > highest:
            raise SbiDaError(f"prior.{name}: support {low:g} to {high:g} must start at {lowest:g} {UNITS[name]} or more")
    return laws
