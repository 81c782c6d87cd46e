r"""Resolved galaxies of several classes.

Class, magnitude, size, bulge share, Sérsic index and inclination are parameters; everything else a galaxy needs to look like one is drawn
when the sky is made. Each component has a spectral energy distribution of its own, so colour gradients follow from what shines where.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from sbi_da.errors import SbiDaError, UnknownNameError
from sbi_da.prior import Prior
from sbi_da.simulators import Parameter, Simulator

from .anatomy import Parts, elliptical, irregular, nothing, spiral
from .components import Anatomy, Knots, Smooth, Structure, join
from .mergers import merger
from .neighbours import draw_neighbours
from .population import FRACTIONS, Population, make_prior
from .sky import GalaxySky

__all__ = ["Galaxies"]

Builder = Callable[[Mapping[str, np.ndarray], np.random.Generator, Population], Parts]
BUILDERS: dict[str, Builder] = {"elliptical": elliptical, "irregular": irregular, "spiral": spiral, "merger": merger}
CENTRING = 0.15
"""Standard deviation [arcsec] of a galaxy's position in its stamp."""

DESCRIPTIONS: dict[str, tuple[str, str, str]] = {
    "morphology": ("", "class code, in the order of the option classes", "class"),
    "magnitude": ("mag", "total magnitude in SDSS r, AB", "$r$"),
    "half_light_radius": ("arcsec", "semi-major axis of the ellipse that holds half of the light", r"$R_\mathrm{e}$/arcsec"),
    "bulge_to_total": ("", "share of the spheroid in the light in r", r"$B/T$"),
    "sersic_n": ("", "Sersic index of the spheroid; of the smooth disc for irregulars", "$n$"),
    "inclination": ("deg", "angle between line of sight and axis of the disc; 0 is face-on", r"$i$/deg"),
}
Class = Literal["elliptical", "irregular", "spiral", "merger"]


class Galaxies(Simulator):
    """Ellipticals, irregulars, spirals and mergers, in images and photometry.

    Args:
        classes: which there are; their order is that of the codes.
        fractions: their probabilities; by default 0.22, 0.06, 0.72 and 0.10, rescaled to the classes in use.
        population: what the galaxies of this universe look like.
        prior: laws that replace default ones, by parameter: ``{"magnitude": {"kind": "uniform", "low": 18, "high": 20}}``.
        neighbours: mean number of other sources per square arcmin.
    """

    def __init__(
        self,
        classes: Annotated[tuple[Class, ...], Field(min_length=1)] = ("elliptical", "irregular", "spiral"),
        fractions: tuple[Annotated[float, Field(gt=0, le=1)], ...] | None = None,
        population: Population | None = None,
        prior: dict[str, dict[str, Any]] | None = None,
        neighbours: Annotated[float, Field(ge=0, le=100)] = 3.0,
    ) -> None:
        if len(set(classes)) != len(classes):
            raise SbiDaError(f"classes must differ, not {', '.join(classes)}")
        self.classes: tuple[str, ...] = tuple(classes)
        if fractions is None:
            total = sum(FRACTIONS[c] for c in classes)
            fractions = tuple(FRACTIONS[c] / total for c in classes)
        if len(fractions) != len(classes) or abs(sum(fractions) - 1) > 1e-6:
            raise SbiDaError(
                f"fractions must be {len(classes)} positive numbers that sum to 1, one for each of {', '.join(classes)}"
            )
        self.population = population or Population()
        self.neighbours = neighbours
        self._prior = make_prior(classes, [f / sum(fractions) for f in fractions], self.population.size_scale, prior or {})
        bounds = {n: self._prior.bounds(n) for n in self._prior.names} | {"morphology": (0.0, max(len(classes) - 1.0, 1e-9))}
        self.parameters = tuple(
            Parameter(n, *DESCRIPTIONS[n][:2], bounds[n], DESCRIPTIONS[n][2], self.classes if n == "morphology" else ())
            for n in self._prior.names
        )
        low, high = (float(_brightness(bounds["magnitude"][k], bounds["half_light_radius"][k])) for k in (0, 1))
        self.derived = (
            Parameter("surface_brightness", "mag", "mean within the half-light radius seen face-on, per square arcsec, in r",
                      (low, high), r"$\mu_\mathrm{e}$"),
        )

    @property
    def prior(self) -> Prior:  # noqa: D102
        return self._prior

    def derive(self, theta: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Mean surface brightness within the half-light radius [mag per square arcsec]."""
        return {"surface_brightness": _brightness(np.asarray(theta["magnitude"]), np.asarray(theta["half_light_radius"]))}

    def at(self, theta: Mapping[str, np.ndarray], rng: np.random.Generator) -> GalaxySky:
        """The sky with these galaxies: ``rng`` draws all that surveys must agree on.

        Raises:
            SbiDaError: a parameter missing, or outside the prior's support.
        """
        inside = self._supported(theta)
        n = len(inside["magnitude"])
        code = np.round(inside["morphology"]).astype(int)
        shift = CENTRING * rng.standard_normal((n, 2))
        parts: Parts = list(nothing())
        for k, name in enumerate(self.classes):
            mine = np.flatnonzero(code == k)
            own = {p: v[mine] for p, v in inside.items()}
            for part in BUILDERS[name](own, rng, self.population):
                objects = mine[part.object]
                parts.append(replace(part, object=objects, centre=part.centre + shift[objects]))
        anatomy = Anatomy(
            join([p for p in parts if isinstance(p, Smooth)]),
            join([p for p in parts if isinstance(p, Structure)]),
            join([p for p in parts if isinstance(p, Knots)]),
        )
        return GalaxySky(inside, anatomy, draw_neighbours(n, self.neighbours, rng))

    def _supported(self, theta: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        for name in self._prior.names:
            if name not in theta:
                raise UnknownNameError("parameter", name, sorted(theta), "theta needs every parameter of the prior")
        columns = np.broadcast_arrays(*(np.atleast_1d(np.asarray(theta[n], float)) for n in self._prior.names))
        inside = dict(zip(self._prior.names, columns, strict=True))
        for parameter in self.parameters:
            value, (low, high) = inside[parameter.name], parameter.bounds
            slack = 1e-9 * (abs(low) + abs(high))
            good = (value >= low - slack) & (value <= high + slack)
            if parameter.name == "morphology":
                good &= value == np.round(value)
            if not good.all():
                k = int(np.argmin(good))
                raise SbiDaError(
                    f"{parameter.name}: {int((~good).sum())} of {len(value)} values lie outside the prior's support, first object {k} "
                    f"with {value[k]:.6g} (allowed: {low:.6g} to {high:.6g} {parameter.unit})"
                )
        return inside


def _brightness(magnitude: Any, radius: Any) -> Any:
    return magnitude + 2.5 * np.log10(2 * np.pi * radius**2)
