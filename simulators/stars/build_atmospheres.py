r"""Bolometric corrections of five families of atmospheres on one set of axes.

MIST tabulates :math:`BC` (:math:`M = M_\mathrm{bol} - BC`). astroARIADNE tabulates the mean surface flux F in a passband;
then

.. math:: M = -2.5\log_{10}\frac{F\,(R/10\,\mathrm{pc})^2}{F_0},\qquad
          M_\mathrm{bol} = 4.74 - 2.5\log_{10}\frac{4\pi R^2\sigma T^4}{L_\odot}

with :math:`L_\odot = 3.828\times10^{33}` erg/s (IAU 2015 B2, B3); R cancels in :math:`BC = M_\mathrm{bol} - M`. What is
interpolated and extended is the difference :math:`\Delta = BC - BC_\mathrm{MIST}` in the like band: linear in log Teff,
log g and [Fe/H], and beyond a grid's own range its value at the nearest edge.
"""

from pathlib import Path

import h5py
import numpy as np
from scipy.interpolate import RegularGridInterpolator

from .bands import BANDS
from .checks import GridError, check_rows

__all__ = ["AXES", "CITATIONS", "ariadne_corrections", "mist_corrections", "mist_table"]

TEFF = np.array([
    2300, 2400, 2500, 2600, 2700, 2800, 2900, 3000, 3100, 3200, 3350, 3500, 3625, 3750, 3875, 4000, 4125, 4250, 4500,
    4750, 5000, 5250, 5500, 5750, 6000, 6250, 6500, 6750, 7000, 7250, 7500, 7750, 8000, 8250, 8500, 8750, 9000, 9250,
    9500, 9750, 10000, 10500, 11000, 12000, 13000, 14000, 15000, 16000, 17000, 18000, 19000, 20000, 22500, 25000,
    30000, 35000, 40000, 45000, 50000, 60000, 80000, 100000, 150000, 200000, 300000,
], dtype=float)
AXES = {
    "feh": np.array([-2.5, -2.0, -1.5, -1.0, -0.75, -0.5, -0.25, 0.0, 0.25, 0.5]),
    "logg": np.arange(-1.0, 6.6, 0.5),
    "log_teff": np.log10(TEFF),
}
CITATIONS = {
    "mist_bc": "MIST bolometric corrections (C3K atmospheres): Choi et al. 2016, ApJ 823, 102; astroLACHESIS",
    "bt_settl": "BT-Settl: Allard, Homeier & Freytag 2012, RSPTA 370, 2765; astroARIADNE",
    "phoenix": "PHOENIX v2: Husser et al. 2013, A&A 553, A6; astroARIADNE",
    "kurucz": "ATLAS9: Kurucz 1993, CD-ROM 13; astroARIADNE",
    "ck04": "ATLAS9 ODFNEW: Castelli & Kurucz 2004, arXiv:astro-ph/0405087; astroARIADNE",
}
FILES = {"bt_settl": "BT_Settl", "phoenix": "Phoenixv2", "kurucz": "Kurucz", "ck04": "CK04"}
VEGA = (9550.0, 3.95, -0.5)
"""Teff [K], log g, [Fe/H] of a model of Vega (Castelli & Kurucz 1994); anchors bands without a published zero point."""
_Tables = dict[str, np.ndarray]


def mist_table(path: Path) -> tuple[dict[str, np.ndarray], _Tables]:
    """All MIST corrections: axes (``feh``, ``log_teff``, ``logg``, ``av``) and one array over them per band."""
    axes: dict[str, np.ndarray] = {}
    tables: _Tables = {}
    with h5py.File(path, "r") as file:
        for group in file.values():
            data = group["data"][()].astype(float)
            data = data[:, np.lexsort((data[0, :, 3], data[0, :, 1], data[0, :, 0]))]
            teff, logg, av = (np.unique(data[0, :, k]) for k in (0, 1, 3))
            axes = {"feh": group["feh_values"][()], "log_teff": np.log10(teff), "logg": logg, "av": av}
            shape = tuple(len(a) for a in axes.values())
            for k, name in enumerate(group["band_names"][()]):
                tables[name.decode()] = data[:, :, 5 + k].reshape(shape)
    return axes, tables


def mist_corrections(axes: dict[str, np.ndarray], tables: _Tables, folder: Path) -> _Tables:
    """MIST corrections on :data:`AXES` for every MIST band, and IRAC; below 2500 K continued as BT-Settl goes.

    Args:
        axes: of ``tables``, see :func:`mist_table`.
        tables: MIST corrections.
        folder: astroARIADNE's ``model_grids``.
    """
    at = _grid(AXES)
    points = np.stack([at[0], np.maximum(at[2], axes["log_teff"][0]), at[1]], -1)
    result = {
        name: RegularGridInterpolator((axes["feh"], axes["log_teff"], axes["logg"]), table[..., 0])(points)
        for name, table in tables.items()
    }
    settl = {name: _onto(*pair) for name, pair in _ariadne(folder, "bt_settl").items()}
    for name, band in BANDS.items():
        solar = settl[name][7, 12]  # log g 5, [Fe/H] 0: cool dwarfs
        drop = solar - np.interp(np.log10(2500.0), AXES["log_teff"], solar)
        drop = np.where(AXES["log_teff"] < np.log10(2500.0), drop, 0.0)
        if band.mist:
            for target in {band.mist, band.mist_like or band.mist}:
                result[target] = result[target] + drop
        if not band.mist:
            like = next(n for n, b in BANDS.items() if b.mist == band.mist_like)
            result[name] = result[band.mist_like] + settl[name] - settl[like]
    return result


def ariadne_corrections(
    folder: Path, name: str, mist: _Tables, anchors: dict[str, float]
) -> tuple[_Tables, dict[str, float]]:
    """Corrections of one astroARIADNE grid on :data:`AXES`.

    Args:
        folder: astroARIADNE's ``model_grids``.
        name: key of :data:`FILES`.
        mist: from :func:`mist_corrections`.
        anchors: magnitudes added to bands without a published zero point, see :func:`vega_anchors`.

    Returns:
        One array (feh, logg, log_teff) per band, and the constants [mag] removed from W3 and W4.
    """
    source = _ariadne(folder, name)
    shifts: dict[str, float] = {}
    delta: _Tables = {}
    for key, band in BANDS.items():
        if key not in source:
            continue
        axes, values = source[key]
        like = mist[band.mist_like or band.mist] if band.mist else mist[key]
        delta[key] = _onto(axes, values - anchors.get(key, 0.0) - _interpolate(like, axes))
    for key in ("WISE_W3", "WISE_W4"):
        if key not in delta:
            delta[key] = delta["WISE_W2"]
            continue
        warm = (AXES["log_teff"] >= np.log10(5000)) & (AXES["log_teff"] <= np.log10(10000))
        colour = (delta[key] - delta["WISE_W2"])[7, 10:12][:, warm]
        if np.std(colour) > 0.02:
            raise GridError(f"{name}: {key} - W2 minus MIST's is not constant (scatter {np.std(colour):.3f} mag)")
        shifts[key] = float(np.mean(colour))
        delta[key] = delta[key] - shifts[key]
    return {key: mist[BANDS[key].mist or key] + delta[key] for key in BANDS}, shifts


def vega_anchors(folder: Path, mist: _Tables) -> dict[str, float]:
    """BC(CK04, unit zero point) - BC(MIST) at the model of Vega, for bands without a published zero point [mag]."""
    axes = {"feh": np.array([VEGA[2]]), "logg": np.array([VEGA[1]]), "log_teff": np.array([np.log10(VEGA[0])])}
    source = _ariadne(folder, "ck04")
    result = {}
    for key, band in BANDS.items():
        if band.zero_point is None:
            own = float(_interpolate(_onto(*source[key]), axes).item())
            result[key] = own - float(_interpolate(mist[band.mist], axes).item())
    return result


def _ariadne(folder: Path, name: str) -> dict[str, tuple[dict[str, np.ndarray], np.ndarray]]:
    """Raw corrections on the grid's own nodes (NaN: no model), per band: (axes, array over feh, logg, log_teff)."""
    path = folder / f"model_grid_{FILES[name]}.dat"
    with path.open() as file:
        columns = file.readline().lstrip("# ").split()
    rows = np.loadtxt(path)
    rows = rows[np.any(rows[:, 3:] > 0, axis=1)]
    check_rows(rows[:, 3:], name)
    axes = {"feh": np.unique(rows[:, 2]), "logg": np.unique(rows[:, 1]), "log_teff": np.log10(np.unique(rows[:, 0]))}
    index = (
        np.searchsorted(axes["feh"], rows[:, 2]), np.searchsorted(axes["logg"], rows[:, 1]),
        np.searchsorted(axes["log_teff"], np.log10(rows[:, 0])),
    )
    sigma, l_sun, pc10 = 5.670374419e-5, 3.828e33, 3.0856775814913673e19
    bolometric = 4.74 - 2.5 * np.log10(4 * np.pi * sigma * pc10**2 / l_sun) - 10 * np.log10(rows[:, 0])
    result = {}
    for key, band in BANDS.items():
        if band.ariadne not in columns:
            continue
        flux = rows[:, columns.index(band.ariadne)] * 1e-4  # per micron to per Angstrom
        with np.errstate(divide="ignore", invalid="ignore"):
            correction = bolometric + 2.5 * np.log10(np.where(flux > 0, flux, np.nan) / (band.zero_point or 1.0))
        table = np.full([len(a) for a in axes.values()], np.nan)
        table[index] = correction
        result[key] = (axes, table)
    return result


def _grid(axes: dict[str, np.ndarray]) -> list[np.ndarray]:
    return list(np.meshgrid(axes["feh"], axes["logg"], axes["log_teff"], indexing="ij"))


def _interpolate(table: np.ndarray, axes: dict[str, np.ndarray]) -> np.ndarray:
    own = (AXES["feh"], AXES["logg"], AXES["log_teff"])
    points = [np.clip(p, a[0], a[-1]) for p, a in zip(_grid(axes), own, strict=True)]
    return RegularGridInterpolator(own, table)(np.stack(points, -1))


def _onto(axes: dict[str, np.ndarray], values: np.ndarray) -> np.ndarray:
    """Fill holes (linear between neighbours, nearest beyond; along Teff, then log g, then [Fe/H]); move to AXES."""
    filled = values
    for k, key in ((2, "log_teff"), (1, "logg"), (0, "feh")):
        filled = np.apply_along_axis(_fill, k, filled, axes[key])
    for k, key in enumerate(("feh", "logg", "log_teff")):
        filled = np.apply_along_axis(_resample, k, filled, axes[key], AXES[key])
    return filled


def _resample(line: np.ndarray, old: np.ndarray, new: np.ndarray) -> np.ndarray:
    return np.interp(new, old, line)


def _fill(line: np.ndarray, axis: np.ndarray) -> np.ndarray:
    good = np.isfinite(line)
    return np.interp(axis, axis[good], line[good]) if good.any() else line
