"""How a universe's galaxies look, and the prior that goes with it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from sbi_da.distributions import ByClass, Categorical, Isotropic, Law, LogUniform, Normal, distribution_from_dict
from sbi_da.errors import SbiDaError, UnknownNameError
from sbi_da.prior import Limits, Prior

__all__ = ["FRACTIONS", "Population", "make_prior"]

FRACTIONS = {"elliptical": 0.22, "irregular": 0.06, "spiral": 0.72, "merger": 0.10}
"""Default shares; rescaled to sum to one over the classes in use."""

BULGE = {
    "elliptical": (0.88, 0.10, 0.6, 1.0), "irregular": (0.02, 0.04, 0.0, 0.15), "spiral": (0.15, 0.18, 0.0, 0.75),
    "merger": (0.4, 0.2, 0.1, 0.9),
}
INDEX = {
    "elliptical": (4.0, 1.0, 2.0, 6.0), "irregular": (0.9, 0.25, 0.5, 1.6), "spiral": (2.2, 0.9, 0.8, 4.5),
    "merger": (2.8, 0.9, 1.0, 5.0),
}
"""Mean, standard deviation, lowest and highest value by class."""

BRIGHTNESS = {
    "elliptical": (18.5, 21.0), "irregular": (20.2, 22.8), "spiral": (19.2, 21.9), "merger": (19.2, 21.6),
}
"""Mean surface brightness in r within the half-light radius, mag/arcsec2: the range met in r < 17.8 samples (Shen et al. 2003,
MNRAS 343, 978)."""


class Population(BaseModel):
    """What distinguishes one universe of galaxies from another.

    Attributes:
        clumpiness: strength of star-forming knots and of patchiness; 0 for none, 1 for nearby galaxies.
        arm_contrast: light in spiral arms, relative to nearby spirals.
        bar_fraction: of spirals.
        pitch: mean pitch angle of spiral arms, degrees.
        colour_offset: added to g - r of all components, mag.
        size_scale: factor on the angular sizes the prior allows at a magnitude.
        dust: strength of dust lanes and of reddening with inclination.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    clumpiness: float = Field(1.0, ge=0, le=3)
    arm_contrast: float = Field(1.0, ge=0, le=2)
    bar_fraction: float = Field(0.35, ge=0, le=1)
    pitch: float = Field(19.0, ge=8, le=40)
    colour_offset: float = Field(0.0, ge=-0.3, le=0.3)
    size_scale: float = Field(1.0, ge=0.2, le=5)
    dust: float = Field(1.0, ge=0, le=3)


def make_prior(
    classes: Sequence[str], fractions: Sequence[float], size_scale: float, given: Mapping[str, Mapping[str, Any]]
) -> Prior:
    """Prior over morphology, magnitude, size, bulge share, Sérsic index and inclination.

    Sizes are log-uniform between limits of mean surface brightness that depend on class and magnitude.

    Args:
        classes: names, in the order of their codes.
        fractions: their probabilities.
        size_scale: factor on sizes.
        given: laws that replace default ones, by parameter. A size law replaces the limits too.

    Raises:
        SbiDaError: a parameter there is not, or a law that reaches where no galaxy can be drawn.
    """

    def normal(table: Mapping[str, tuple[float, float, float, float]]) -> ByClass:
        rows = [table[c] for c in classes]
        return ByClass(laws=tuple(Normal(mean=m, sd=sd, low=low, high=high) for m, sd, low, high in rows))

    laws: dict[str, Law] = {
        "morphology": Categorical(probabilities=tuple(fractions), names=tuple(classes)),
        "magnitude": Normal(mean=16.6, sd=0.9, low=14.5, high=17.8),
    }
    known = [*laws, "half_light_radius", "bulge_to_total", "sersic_n", "inclination"]
    for name in given:
        if name not in known or name == "morphology":
            hint = "in the galaxies simulator's prior; classes and fractions are options of their own"
            raise UnknownNameError("parameter", name, known[1:], hint)
    replaced = {name: distribution_from_dict(law, f"prior.{name}") for name, law in given.items()}
    laws["magnitude"] = replaced.get("magnitude", laws["magnitude"])
    limits = _sizes(classes, laws["magnitude"].bounds, size_scale)
    low, high = float(np.exp(limits.low.min())), float(np.exp(limits.high.max()))
    laws["half_light_radius"] = LogUniform(low=low, high=high)
    laws["bulge_to_total"], laws["sersic_n"], laws["inclination"] = normal(BULGE), normal(INDEX), Isotropic()
    laws |= replaced
    for name, (lowest, highest) in BOUNDS.items():
        low, high = laws[name].bounds
        if low < lowest or high > highest:
            raise SbiDaError(f"prior.{name}: support {low:g} to {high:g} must lie within {lowest:g} to {highest:g}")
    return Prior(laws, {} if "half_light_radius" in replaced else {"half_light_radius": limits})


BOUNDS = {"half_light_radius": (0.01, 1e4), "bulge_to_total": (0.0, 1.0), "sersic_n": (0.5, 6.0), "inclination": (0.0, 90.0)}


def _sizes(classes: Sequence[str], magnitudes: tuple[float, float], scale: float) -> Limits:
    m = np.array(magnitudes)
    # Mean surface brightness of half the flux within pi R^2.
    bright, faint = np.array([BRIGHTNESS[c] for c in classes]).T[..., None]
    log_size = [0.2 * np.log(10) * (mu - m) - 0.5 * np.log(2 * np.pi) + np.log(scale) for mu in (bright, faint)]
    return Limits(("morphology", "magnitude"), (np.arange(len(classes), dtype=float), m), log_size[0], log_size[1], log=True)
