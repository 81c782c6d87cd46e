r"""From the unit a table states to the unit a channel has.

A flux density :math:`f \pm \sigma_f` becomes an AB magnitude with

.. math:: m = -2.5 \log_{10} (f / 3631\,\mathrm{Jy}), \qquad \sigma_m = \frac{2.5}{\ln 10} \frac{\sigma_f}{f},

or, where :math:`f < 3 \sigma_f`, the limit :math:`m(3\sigma_f)` (Oke & Gunn 1983, ApJ 266, 713).
"""

from typing import Any

import numpy as np

from sbi_da.errors import TableError
from sbi_da.surveys.card import Channel

__all__ = ["convert", "parse_unit"]

AB_ZERO_JY = 3631.0
DETECTION = 3.0
SPELLINGS = {
    "magnitude": "mag", "magnitudes": "mag", "mags": "mag", "Mag": "mag", "MAG": "mag", "ABmag": "mag(AB)",
    "AB mag": "mag(AB)", "mag_AB": "mag(AB)", "AB": "mag(AB)", "milliarcsec": "mas", "Angle[mas]": "mas",
    "microarcsec": "uas", "microJy": "uJy", "nanoJy": "nJy", "milliJy": "mJy", "nanomaggies": "nmgy", "maggies": "mgy",
}  # fmt: skip
STATE_IT = "state it with units={column: unit}, on the command line --unit COLUMN=UNIT"
BLANK = {"", "-", "--", "---", "none", "null", "unitless"}


def parse_unit(text: str | None, where: str) -> Any:
    """An astropy unit; None if no unit is stated.

    Raises:
        TableError: astropy knows no such unit.
    """
    if text is None or text.strip().lower() in BLANK:
        return None
    from astropy import units as u

    text = text.strip()
    try:
        return u.Unit(SPELLINGS.get(text, text))
    except (ValueError, TypeError) as error:
        raise TableError(
            f"{where}: unknown unit {text!r}; give one astropy knows (mag, mas, arcsec, uJy, ...), "
            f"or {STATE_IT}"
        ) from error


def _kind(unit: Any, target: Any) -> str:
    """``linear`` if convertible by a factor, ``flux`` for flux densities, ``ab`` for AB magnitudes, else ``other``."""
    from astropy import units as u

    physical = getattr(unit, "physical_unit", None)
    if physical is not None:
        return "ab" if physical == u.AB and target == u.mag else "other"
    if unit.is_equivalent(target):
        return "linear"
    if target == u.mag and (unit.is_equivalent(u.Jy) or unit.is_equivalent(u.mgy)):
        return "flux"
    return "other"


def convert(
    value: np.ndarray, error: np.ndarray, units: tuple[Any, Any], channel: Channel, where: tuple[str, str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Value and error in the channel's unit.

    Args:
        value: shape ``(row,)``; NaN where null.
        error: the same.
        units: of value and error, from :func:`parse_unit`; an error without a unit has that of its value.
        channel: whose unit is wanted.
        where: file and column of value and of error, for messages.

    Returns:
        Value, error and whether the value is a limit, each of shape ``(row,)``.

    Raises:
        TableError: a unit that cannot be converted, with the fix.
    """
    from astropy import units as u

    target = u.Unit(channel.unit)
    detected = np.zeros(len(value), bool)
    of_value, of_error = units
    if of_value is None:
        if of_error is None:
            return value, error, detected
        if _kind(of_error, target) not in ("linear", "ab"):
            raise TableError(
                f"{where[1]}: unit {of_error} while {where[0].split(': ')[-1]} has none; "
                f"{STATE_IT.replace(' it ', ' both ')}"
            )
        of_value = target
    of_error = of_value if of_error is None else of_error
    kinds = _kind(of_value, target), _kind(of_error, target)
    system = f" ({channel.system})" if channel.system else ""
    for kind, unit, place in zip(kinds, (of_value, of_error), where, strict=True):
        if kind == "other":
            raise TableError(f"{place}: unit {unit} cannot be converted to {channel.unit}{system}; convert the column")
        if channel.system == "Vega" and kind in ("flux", "ab"):
            raise TableError(
                f"{place}: unit {unit}, but channel {channel.name!r} is a Vega magnitude; convert the column with the "
                "survey's Vega zero point"
            )
    if "flux" in kinds:
        if kinds != ("flux", "flux"):
            raise TableError(f"{where[1]}: unit {of_error} does not go with the flux unit {of_value} of its value")
        return _magnitude(value * _to_jansky(of_value), error * _to_jansky(of_error), channel)
    factor, factor_error = (
        unit.to(target) if kind == "linear" else 1.0 for kind, unit in zip(kinds, (of_value, of_error), strict=True)
    )
    return value * factor, error * factor_error, detected


def _to_jansky(unit: Any) -> float:
    from astropy import units as u

    if unit.is_equivalent(u.mgy):
        return float(unit.to(u.mgy)) * AB_ZERO_JY
    return float(unit.to(u.Jy))


def _magnitude(flux: np.ndarray, error: np.ndarray, channel: Channel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    limit = flux < DETECTION * error
    shown = np.where(limit, DETECTION * error, flux)
    with np.errstate(invalid="ignore", divide="ignore"):
        value = -2.5 * np.log10(shown / AB_ZERO_JY) + channel.zero_point
        sigma = 2.5 / np.log(10) * error / shown
    return value, sigma, limit
