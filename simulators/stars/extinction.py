r"""Interstellar extinction in a passband, as a function of the star's temperature and of the amount of dust.

A passband's effective wavelength :math:`\lambda_b(T_\mathrm{eff}, A_V)` moves redwards for cooler stars and more dust.
It is tabulated from synthetic photometry (where CCM89 with R_V = 3.1 equals :math:`A_b/A_V`); any law k then gives

.. math:: A_b = A_V\, k\bigl(\lambda_b(T_\mathrm{eff}, A_V); R_V\bigr).

Laws are those of ``dust_extinction`` (Gordon 2024, JOSS 9, 7023). One that ends short of a wavelength is continued by
G23 (Gordon et al. 2023, ApJ 950, 86), scaled to meet it at its end.
"""

from collections.abc import Callable

import numpy as np
from astropy import units
from dust_extinction import parameter_averages

from sbi_da.errors import SbiDaError, UnknownNameError
from sbi_da.prior import cell

from .checks import read_grid

__all__ = ["LAWS", "Extinction", "curve"]

LAWS = ("CCM89", "F04", "F19", "F99", "G23", "M14", "O94")


def curve(law: str, r_v: float) -> Callable[[np.ndarray], np.ndarray]:
    """A(wavelength) / A_V of ``law`` at ``r_v``, wavelengths in micron between 0.0912 and 32.

    Raises:
        UnknownNameError: no such law.
        SbiDaError: the law does not hold at ``r_v``.
    """
    if law not in LAWS:
        raise UnknownNameError("extinction law", law, list(LAWS))
    cls = getattr(parameter_averages, law)
    low, high = cls.Rv_range
    if not low <= r_v <= high:
        raise SbiDaError(f"extinction law {law} holds for r_v from {low} to {high}, not {r_v}")
    own = cls(Rv=r_v)
    shared = parameter_averages.G23
    beyond = shared(Rv=float(np.clip(r_v, *shared.Rv_range)))
    ends = 1 / cls.x_range[1] * (1 + 1e-9), 1 / cls.x_range[0] * (1 - 1e-9)

    def k(wavelength: np.ndarray) -> np.ndarray:
        at = np.atleast_1d(np.asarray(wavelength, float))
        if np.any((at < 0.0912) | (at > 32)):
            raise SbiDaError("extinction is known from 0.0912 to 32 micron")
        inside = np.clip(at, *ends)
        value = np.asarray(own(inside * units.micron))
        if law == "G23":
            return value
        return value * np.asarray(beyond(at * units.micron)) / np.asarray(beyond(inside * units.micron))

    return k


class Extinction:
    """Extinction in passbands by one law.

    Args:
        law: one of :data:`LAWS`.
        r_v: ratio of total to selective extinction.
    """

    def __init__(self, law: str, r_v: float) -> None:
        grid = read_grid("extinction")
        self.law = curve(law, r_v)
        self._log_teff = grid["log_teff"]
        self._av = grid["av"]
        ratio = self.law(grid["wavelength"].ravel().astype(float)).reshape(grid["wavelength"].shape)
        self._tables = {str(b): r.astype(np.float32) for b, r in zip(grid["bands"], ratio, strict=True)}

    def place(self, log_teff: np.ndarray, av: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Locate stars in the table: flat indices and weights of four corners; the edge holds beyond."""
        corners: list[tuple[np.ndarray, np.ndarray]] = []
        i, u = cell(np.asarray(log_teff), self._log_teff)
        j, v = cell(np.asarray(av), self._av)
        width = len(self._av)
        for a, wa in ((0, 1 - u), (1, u)):
            for b, wb in ((0, 1 - v), (1, v)):
                corners.append(((i + a) * width + j + b, (wa * wb * av).astype(np.float32)))
        return corners

    def band(self, band: str, place: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """Extinction [mag] in ``band``, shape ``(star,)``, float32."""
        table = self._tables[band].ravel()
        total = np.zeros(len(place[0][0]), np.float32)
        for corner, weight in place:
            total += weight * table.take(corner)
        return total

    def at(self, wavelength: float) -> float:
        """A / A_V at one wavelength [micron]."""
        return float(self.law(np.array([wavelength]))[0])
