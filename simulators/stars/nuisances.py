r"""What photometry shows besides the star asked about: a companion, a disc, the calibration.

Companion: unresolved, with mass ratio uniform in [0.1, 1] and the primary's age, metallicity, distance and extinction;
one below the isochrones' smallest mass adds no light. Disc: present with probability
:math:`0.8\,e^{-t/2.5\,\mathrm{Myr}}` (Mamajek 2009, AIP Conf. 1158, 3); it adds

.. math:: \frac{F_\mathrm{disc}}{F_\star} = r\left(\frac{\lambda}{2.2\,\mu\mathrm{m}}\right)^p
          \cdot\mathrm{clip}\left(\frac{\lambda/\mu\mathrm{m} - 1.2}{0.8}, 0, 1\right)

with r log-uniform in [0.03, 1] and p uniform in [1.4, 3]: a broad law, not a disc model.
Calibration: a normal magnitude offset per object and passband. All are drawn once per object, so surveys share them.
"""

import zlib
from dataclasses import dataclass

import numpy as np

__all__ = ["Disc", "Jitter", "companion_masses", "draw_disc"]

MASS_RATIO = (0.1, 1.0)
DISC_FRACTION, DISC_LIFETIME = 0.8, 2.5e6
DISC_RATIO, DISC_SLOPE = (0.03, 1.0), (1.4, 3.0)


def companion_masses(mass: np.ndarray, floor: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    """Companion masses [Msun], shape ``(star,)``; NaN where there is none or it is too small to shine.

    Args:
        mass: primaries' initial masses [Msun].
        floor: smallest initial mass of the isochrones there [Msun].
        fraction: probability of a companion.
        rng: source of randomness; the same number of draws whatever ``fraction``.
    """
    present = rng.random(len(mass)) < fraction
    second = mass * rng.uniform(*MASS_RATIO, len(mass))
    return np.where(present & (second >= floor), second, np.nan)


@dataclass(frozen=True)
class Disc:
    """Circumstellar discs: flux ratio at 2.2 micron (0: no disc) and slope, each of shape ``(star,)``."""

    ratio: np.ndarray
    slope: np.ndarray

    def brightening(self, wavelength: float) -> np.ndarray:
        """Magnitudes the disc adds at ``wavelength`` [micron], at most zero, shape ``(star,)``."""
        taper = float(np.clip((wavelength - 1.2) / 0.8, 0.0, 1.0))
        if taper == 0.0:
            return np.zeros(len(self.ratio), np.float32)
        excess = np.zeros(len(self.ratio), np.float32)
        on = np.flatnonzero(self.ratio)
        excess[on] = -2.5 * np.log10(1 + taper * self.ratio[on] * (wavelength / 2.2) ** self.slope[on])
        return excess


def draw_disc(log_age: np.ndarray, rng: np.random.Generator, enabled: bool = True) -> Disc:
    """Discs of stars of ``log_age`` [dex of yr]; none when not ``enabled`` (draws are made all the same)."""
    present = rng.random(len(log_age)) < DISC_FRACTION * np.exp(-(10**log_age) / DISC_LIFETIME)
    ratio = np.exp(rng.uniform(np.log(DISC_RATIO[0]), np.log(DISC_RATIO[1]), len(log_age)))
    slope = rng.uniform(*DISC_SLOPE, len(log_age))
    return Disc(np.where(present & enabled, ratio, 0.0), slope)


@dataclass(frozen=True)
class Jitter:
    """Calibration offsets: normal, standard deviation ``sd`` [mag], by object and passband, whatever the order of calls."""

    sd: float
    seed: int
    stars: int

    def offset(self, band: str) -> np.ndarray:
        """Offsets [mag] in ``band``, shape ``(star,)``."""
        if self.sd == 0:
            return np.zeros(self.stars, np.float32)
        rng = np.random.default_rng([self.seed, zlib.crc32(band.encode())])
        return np.float32(self.sd) * rng.standard_normal(self.stars, dtype=np.float32)
