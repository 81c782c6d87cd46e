"""Checks every shipped grid must pass: run by ``build_grids`` before writing and by the tests on what is shipped."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sbi_da.errors import SbiDaError

__all__ = ["GRIDS", "GridError", "check_atmosphere", "check_isochrones", "check_rows", "read_grid"]

GRIDS = Path(__file__).parent / "grids"
SUN = (5772.0, 4.438, 0.0)
"""Teff [K], log g, [Fe/H]."""
SUN_G = (4.66, 4.69)
"""Absolute G magnitude of the Sun in any atmosphere; observed 4.67 (Casagrande & VandenBerg 2018, MNRAS 479, L102)."""
RAYLEIGH_JEANS = 0.05
"""Largest |W2-W3| and |W2-W4| [mag, Vega] of dwarfs between 6000 and 10000 K; cooler ones have CO absorption in W2."""


class GridError(SbiDaError):
    """A grid that fails a check."""


def read_grid(name: str) -> dict[str, np.ndarray]:
    """Arrays of ``grids/<name>.npz``."""
    with np.load(GRIDS / f"{name}.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def check_rows(flux: np.ndarray, name: str) -> None:
    """Refuse rows of flux, shape ``(model, band)``, that are zero in every band."""
    if np.any(np.all(flux <= 0, axis=1)):
        raise GridError(f"{name}: some models have no flux in any band")


def correction(grid: Mapping[str, np.ndarray], band: str, teff: float, logg: float, feh: float) -> float:
    """Bolometric correction [mag] of one star, by trilinear interpolation."""
    from scipy.interpolate import RegularGridInterpolator

    k = list(grid["bands"]).index(band)
    table = grid["bc"][k] * grid["bc_code"][k, 1] + grid["bc_code"][k, 0]
    axes = (grid["feh"], grid["logg"], grid["log_teff"])
    return float(RegularGridInterpolator(axes, table)((feh, logg, np.log10(teff))))


def check_atmosphere(grid: Mapping[str, np.ndarray], name: str) -> dict[str, float]:
    """Check an atmosphere file's content.

    Returns:
        ``M_G`` of the Sun and the largest |W2-W3|, |W2-W4| on the Rayleigh-Jeans tail, magnitudes.

    Raises:
        GridError: naming the check that failed.
    """
    if not all(np.all(np.isfinite(grid[k])) for k in ("bc", "bc_code", "feh", "logg", "log_teff", "zero_point_jy")):
        raise GridError(f"{name}: values that are not finite")
    if np.any(np.all(grid["bc"] == 0, axis=(1, 2, 3))):
        raise GridError(f"{name}: a band without content")
    measured = {"M_G": 4.74 - correction(grid, "Gaia_G", *SUN)}
    if not SUN_G[0] <= measured["M_G"] <= SUN_G[1]:
        raise GridError(f"{name}: the Sun has M_G = {measured['M_G']:.3f}, expected {SUN_G[0]} to {SUN_G[1]}")
    for band in ("WISE_W3", "WISE_W4"):
        colours = [
            correction(grid, band, t, 4.5, 0.0) - correction(grid, "WISE_W2", t, 4.5, 0.0)
            for t in (6000, 6500, 7000, 8000, 9000, 10000)
        ]
        measured[band] = float(np.max(np.abs(colours)))
        if measured[band] > RAYLEIGH_JEANS:
            raise GridError(f"{name}: |W2 - {band}| reaches {measured[band]:.3f} mag between 6000 and 10000 K")
    return measured


def check_isochrones(grid: Mapping[str, np.ndarray], name: str) -> None:
    """Check an isochrone file's content.

    Raises:
        GridError: naming the check that failed.
    """
    deficit = grid["deficit"]
    if not (np.all(np.isfinite(deficit)) and np.all(np.diff(deficit, axis=-1) < 0) and np.all(deficit >= 0)):
        raise GridError(f"{name}: mass must rise along every isochrone")
    if not np.all(grid["ln_m_lo"] < grid["ln_m_hi"]):
        raise GridError(f"{name}: an isochrone without masses")
    at_first = np.take_along_axis(deficit, grid["first"][..., None].astype(int), -1)[..., 0]
    if np.max(np.abs(at_first - (grid["ln_m_hi"] - grid["ln_m_lo"]))) > 1e-3:
        raise GridError(f"{name}: mass limits do not belong to the isochrones")
