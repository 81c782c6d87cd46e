r"""Spectral energy distributions of stellar populations: a family with one parameter, the colour :math:`g-r`.

Three populations (old, intermediate, young) are given as :math:`m_\lambda - m_r` (AB) at the pivot wavelengths of common passbands.
A population of another :math:`g-r` lies on the straight line through the two nearest, continued beyond the reddest and bluest;
between wavelengths the interpolation is linear in :math:`\ln\lambda`. The numbers are rounded colours of nearby ellipticals,
Sb discs and late-type irregulars (Fukugita, Shimasaku & Ichikawa 1995, PASP 107, 945; Brown et al. 2014, ApJS 212, 18), good to
0.1 mag between g and Ks and to a few tenths outside.
"""

import numpy as np

from sbi_da.errors import SbiDaError
from sbi_da.surveys.card import Channel

__all__ = ["COLOUR_RANGE", "channel_magnitude", "relative_flux"]

COLOUR_RANGE = (-0.3, 1.3)
"""Colours g - r [mag] the family is used for; others are moved to the nearer end."""

WAVELENGTH = np.array([0.1528, 0.231, 0.3551, 0.4686, 0.6166, 0.748, 0.893, 1.03, 1.24, 1.65, 2.16, 3.37, 4.62])
NODES = np.array([0.20, 0.50, 0.80])
CURVES = np.array([
    [1.10, 0.90, 1.10, 0.20, 0.0, -0.08, -0.12, -0.15, -0.25, -0.35, -0.10, 0.50, 0.95],
    [2.90, 2.20, 1.75, 0.50, 0.0, -0.27, -0.45, -0.55, -0.75, -0.95, -0.75, -0.10, 0.45],
    [6.50, 5.00, 2.55, 0.80, 0.0, -0.39, -0.68, -0.85, -1.10, -1.40, -1.20, -0.55, 0.10],
])

VEGA_WAVELENGTH = np.array([0.361, 0.4405, 0.5513, 0.64, 0.806, 1.24, 1.65, 2.16, 3.37, 4.62])
VEGA = np.array([0.79, -0.09, 0.02, 0.21, 0.45, 0.91, 1.39, 1.85, 2.70, 3.34])
"""AB minus Vega magnitude (Blanton & Roweis 2007, AJ 133, 734; Jarrett et al. 2011, ApJ 735, 112)."""


def relative_flux(colour: np.ndarray, wavelength: float) -> np.ndarray:
    """Flux density (per unit frequency) at ``wavelength`` over that in SDSS r, for populations of ``colour`` g - r.

    Raises:
        SbiDaError: a wavelength [micron] the family does not reach.
    """
    if not 0.9 * WAVELENGTH[0] <= wavelength <= 1.1 * WAVELENGTH[-1]:
        raise SbiDaError(
            f"galaxies: wavelength {wavelength:g} micron lies outside {WAVELENGTH[0]:g} to {WAVELENGTH[-1]:g}, where colours are known"
        )
    young, middle, old = (np.interp(np.log(wavelength), np.log(WAVELENGTH), curve) for curve in CURVES)
    c = np.clip(colour, *COLOUR_RANGE)
    blue = middle + (c - NODES[1]) / (NODES[0] - NODES[1]) * (young - middle)
    red = middle + (c - NODES[1]) / (NODES[2] - NODES[1]) * (old - middle)
    return 10 ** (-0.4 * np.where(c < NODES[1], blue, red))


def channel_magnitude(magnitude: np.ndarray, flux: np.ndarray, channel: Channel) -> np.ndarray:
    """Magnitude in ``channel``'s system of galaxies of AB magnitude ``magnitude`` in r and relative flux ``flux``."""
    m = magnitude - 2.5 * np.log10(flux) + channel.zero_point
    if channel.system == "Vega":
        m = m - np.interp(np.log(float(channel.wavelength or 0.0)), np.log(VEGA_WAVELENGTH), VEGA)
    return m
