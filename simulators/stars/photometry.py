r"""Absolute magnitudes from bolometric corrections.

.. math:: M = 4.74 - 2.5\log_{10} L/L_\odot - BC(T_\mathrm{eff}, \log g, [Fe/H])

trilinear in log Teff, log g and [Fe/H]. Only the bands asked for are computed. A channel whose passband is not
tabulated is read off the spectral energy distribution: linear in :math:`\log F_\nu` over :math:`\log\lambda` between the
bands next to it.
"""

from dataclasses import dataclass

import numpy as np

from sbi_da.errors import SbiDaError
from sbi_da.surveys.card import Channel

from .checks import read_grid

__all__ = ["Atmosphere", "Mixture", "Place"]

SED_BANDS = (
    "SDSS_u", "SDSS_g", "SDSS_r", "SDSS_i", "PS1_z", "PS1_y", "2MASS_J", "2MASS_H", "2MASS_Ks", "WISE_W1", "WISE_W2",
    "WISE_W3", "WISE_W4",
)
"""Bands that trace the spectrum for passbands not tabulated, by rising wavelength."""
AB_JY = 3631.0


@dataclass(frozen=True)
class Place:
    """Stars located in the grid: flat indices of eight corners and their weights, each of shape ``(8, star)``."""

    corners: np.ndarray
    weights: np.ndarray
    bolometric: np.ndarray


@dataclass(frozen=True)
class Mixture:
    """A magnitude as a weighted sum of tabulated bands' magnitudes plus a constant."""

    terms: tuple[tuple[str, float], ...]
    constant: float
    wavelength: float


class Atmosphere:
    """One family of atmospheres.

    Args:
        name: ``mist_bc``, ``bt_settl``, ``phoenix``, ``kurucz`` or ``ck04``.

    Attributes:
        bands: tabulated passbands.
        teff: smallest and largest Teff [K].
        citation: whose models.
    """

    def __init__(self, name: str) -> None:
        grid = read_grid(f"atmosphere_{name}")
        self.name = name
        self.bands = [str(b) for b in grid["bands"]]
        self.citation = str(grid["citation"])
        self._axes = tuple(grid[k].astype(np.float32) for k in ("feh", "logg", "log_teff"))
        self.teff = (float(10 ** grid["log_teff"][0]), float(10 ** grid["log_teff"][-1]))
        offset, scale = grid["bc_code"].T[:, :, None]
        flat = grid["bc"].reshape(len(self.bands), -1)
        self._tables = dict(zip(self.bands, (flat * scale + offset).astype(np.float32), strict=True))
        self.system = {b: str(s) for b, s in zip(self.bands, grid["system"], strict=True)}
        self.wavelength = {b: float(w) for b, w in zip(self.bands, grid["wavelength"], strict=True)}
        self.zero_point_jy = {b: float(z) for b, z in zip(self.bands, grid["zero_point_jy"], strict=True)}

    def place(self, log_teff: np.ndarray, logg: np.ndarray, log_l: np.ndarray, feh: np.ndarray) -> Place:
        """Locate stars, shape ``(star,)`` each; log g and [Fe/H] beyond the tabulated range take the edge."""
        corner: list[np.ndarray] = [np.zeros(len(log_teff), np.intp)]
        weight: list[np.ndarray] = [np.ones(len(log_teff), np.float32)]
        for value, axis in zip((feh, logg, log_teff), self._axes, strict=True):
            left = np.clip(np.searchsorted(axis, value, side="right") - 1, 0, len(axis) - 2)
            t = np.clip((value - axis[left]) / (axis[left + 1] - axis[left]), 0, 1).astype(np.float32)
            corner = [c * len(axis) + left + step for c in corner for step in (0, 1)]
            weight = [w * u for w in weight for u in (1 - t, t)]
        bolometric = (4.74 - 2.5 * log_l).astype(np.float32)
        return Place(np.stack(corner), np.stack(weight), bolometric)

    def magnitude(self, band: str, place: Place) -> np.ndarray:
        """Absolute magnitude in ``band``, shape ``(star,)``, float32."""
        table = self._tables[band]
        total = place.bolometric.copy()
        for corner, weight in zip(place.corners, place.weights, strict=True):
            total -= weight * table.take(corner)
        return total

    def mixture(self, channel: Channel) -> Mixture:
        """How to get ``channel``'s magnitude from tabulated bands.

        Raises:
            SbiDaError: the channel's wavelength lies outside the bands, or its magnitude system is not the band's.
        """
        if channel.band is not None and channel.band in self._tables:
            if channel.system != self.system[channel.band]:
                raise SbiDaError(
                    f"channel {channel.name!r}: band {channel.band} is in {self.system[channel.band]} magnitudes, not "
                    f"{channel.system}; set system, and zero_point for the difference"
                )
            return Mixture(((channel.band, 1.0),), 0.0, self.wavelength[channel.band])
        at = channel.wavelength or 0.0
        grid = np.array([self.wavelength[b] for b in SED_BANDS])
        if not grid[0] <= at <= grid[-1]:
            raise SbiDaError(
                f"channel {channel.name!r}: no passband {channel.band!r} and wavelength {at} micron lies outside "
                f"{grid[0]:.3f} to {grid[-1]:.2f}; known passbands are {', '.join(self.bands)}"
            )
        k = int(np.clip(np.searchsorted(grid, at) - 1, 0, len(grid) - 2))
        t = float(np.log(at / grid[k]) / np.log(grid[k + 1] / grid[k]))
        terms = (SED_BANDS[k], 1 - t), (SED_BANDS[k + 1], t)
        constant = sum(u * -2.5 * np.log10(self.zero_point_jy[b] / AB_JY) for b, u in terms)
        if channel.system == "Vega":
            vega = [b for b in sorted(self.bands, key=self.wavelength.__getitem__) if self.system[b] == "Vega"]
            points = [np.log10(self.zero_point_jy[b] / AB_JY) for b in vega]
            constant += 2.5 * float(np.interp(np.log(at), np.log([self.wavelength[b] for b in vega]), points))
        return Mixture(terms, float(constant), at)
