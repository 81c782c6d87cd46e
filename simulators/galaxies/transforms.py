r"""Fourier transforms of round profiles, by GalSim (Rowe et al. 2015, Astronomy and Computing 10, 121).

A Sérsic profile of index n lies between its neighbours in a list of indices, all of unit half-light radius: their weighted mean has
the same half-light radius and flux, and differs from the true profile by less than the list's steps. Profiles of index above
1.7 are cut at 12 half-light radii, beyond which 3 % of the light of an uncut de Vaucouleurs profile lies. Tables are even in
:math:`\ln k`.
"""

import importlib
from functools import lru_cache
from types import ModuleType

import numpy as np

from sbi_da.errors import SbiDaError

__all__ = ["require_galsim", "round_psf", "sersic"]

INDICES = np.array([0.5, 0.57, 0.65, 0.75, 0.87, 1.0, 1.15, 1.35, 1.6, 1.9, 2.2, 2.6, 3.0, 3.5, 4.0, 4.6, 5.3, 6.0])
CUT_ABOVE, CUT = 1.7, 12.0
LOG_K = np.linspace(np.log(1e-3), np.log(4e3), 1400)


def require_galsim() -> ModuleType:
    """The ``galsim`` package.

    Raises:
        SbiDaError: it is not installed.
    """
    try:
        return importlib.import_module("galsim")
    except ImportError as error:
        raise SbiDaError("images of the galaxies simulator are drawn with GalSim: pip install 'sbi-da[galaxies]'") from error


@lru_cache(maxsize=1)
def _table() -> np.ndarray:
    galsim = require_galsim()
    accuracy = galsim.GSParams(kvalue_accuracy=1e-5)
    rows = []
    for n in INDICES:
        profile = galsim.Sersic(float(n), half_light_radius=1.0, trunc=CUT if n > CUT_ABOVE else 0.0, gsparams=accuracy)
        rows.append([profile.kValue(k, 0.0).real for k in np.exp(LOG_K)])
    return np.array(rows, np.float32)


def _look_up(table: np.ndarray, k_squared: np.ndarray) -> np.ndarray:
    step = LOG_K[1] - LOG_K[0]
    place = np.log(k_squared + np.float32(1e-6))
    place -= np.float32(2 * LOG_K[0])
    place *= np.float32(0.5 / step)
    np.clip(place, 0, len(LOG_K) - 1.001, out=place)
    left = place.astype(np.int32)
    place -= left
    return table[left] + np.diff(table, append=table[-1:])[left] * place


def sersic(index: float, k_squared: np.ndarray) -> np.ndarray:
    """Transform at squared wave numbers (in units of the inverse half-light radius) of a profile of unit flux."""
    table = _table()
    where = float(np.interp(index, INDICES, np.arange(len(INDICES))))
    left = min(int(where), len(INDICES) - 2)
    return _look_up(table[left] + np.float32(where - left) * (table[left + 1] - table[left]), k_squared)


@lru_cache(maxsize=8)
def _psf_table(kind: str, beta: float) -> np.ndarray:
    galsim = require_galsim()
    profile = galsim.Moffat(beta, fwhm=1.0) if kind == "moffat" else galsim.Gaussian(fwhm=1.0)
    return np.array([profile.kValue(k, 0.0).real for k in np.exp(LOG_K)], np.float32)


def round_psf(kind: str, beta: float, k_squared: np.ndarray) -> np.ndarray:
    """Transform of a PSF of unit flux at squared wave numbers (in units of the inverse FWHM)."""
    return _look_up(_psf_table(kind, beta), k_squared)
