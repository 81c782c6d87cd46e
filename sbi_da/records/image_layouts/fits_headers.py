r"""What the header of a FITS image says of its pixels: their flux and their size.

A count :math:`c` of a header's zero point :math:`z` is the flux :math:`c\,10^{0.4 (z_0 - z)}` in units of the survey's
own :math:`z_0`. Units of flux density have :math:`z = 8.90 - 2.5 \log_{10} (u / \mathrm{Jy})` in AB magnitudes.
"""

import math
from typing import Any

from sbi_da.surveys.imaging import ImageBand

__all__ = ["flux_unit", "pixel_scale"]

ZERO_POINTS = ("MAGZERO", "MAGZPT", "ZEROPT", "ZEROPNT", "PHOTZP", "MAGZP", "ZP")
NANOMAGGIES = ("nanomaggy", "nanomaggies", "nmgy", "nmaggy")
JANSKY = 8.90


def flux_unit(header: Any, band: ImageBand, scale: float) -> float | None:
    """The survey's units of flux in one unit of the image; None if the header does not say.

    Args:
        header: with a zero point (``MAGZERO`` and the like, or ``MAGZERO_<BAND>`` in a cube) or ``BUNIT``.
        band: of the survey.
        scale: of the pixels, arcsec, for units of surface brightness.
    """
    for key in ZERO_POINTS:
        for spelt in (f"{key}_{band.name.upper()}", key):
            zero = header.get(spelt)
            if isinstance(zero, int | float):
                return 10 ** (0.4 * (band.zero_point - zero))
    unit = str(header.get("BUNIT", "")).strip()
    if unit.lower() in NANOMAGGIES:
        return 10 ** (0.4 * (band.zero_point - 22.5))
    if unit:
        from astropy import units

        try:
            parsed = units.Unit(unit)
        except ValueError:  # counts, under whatever name
            return None
        for quantity in (1 * parsed, 1 * parsed * (scale * units.arcsec) ** 2):
            if quantity.unit.is_equivalent(units.Jy):
                return 10 ** (0.4 * (band.zero_point - JANSKY)) * float(quantity.to_value(units.Jy))
    return None


def pixel_scale(header: Any) -> float:
    """Size of a pixel on the sky, arcsec; zero if the header does not say."""
    if "CTYPE1" not in header:
        return 0.0
    a, b, c, d = (header.get(f"CD{k}", 0.0) for k in ("1_1", "1_2", "2_1", "2_2"))
    return 3600 * (math.sqrt(abs(a * d - b * c)) or abs(header.get("CDELT1", 0.0)))
