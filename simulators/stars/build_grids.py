"""Write the grids the stars simulator ships, from the public packages that hold their sources.

Run from a checkout, with ``pip install 'sbi-da[grids]' lachesis-grids==0.0.9 astroLACHESIS==1.0.9 astroARIADNE==1.5.2``
or with the folders of these packages, unpacked, as arguments::

    python -m sbi_da.simulators.stars.build_grids --lachesis-grids DIR --astrolachesis DIR --astroariadne DIR
"""

import argparse
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units
from dust_extinction.parameter_averages import CCM89

from .bands import BANDS
from .build_atmospheres import AXES, CITATIONS, ariadne_corrections, mist_corrections, mist_table, vega_anchors
from .build_isochrones import SETS, build_isochrones
from .checks import GRIDS, check_atmosphere, check_isochrones

__all__ = ["build"]

STEP = 0.0005
"""Quantisation of bolometric corrections [mag], coarser only where a band's range needs it."""
EXTINCTION_TEFF = np.array([
    3000, 3250, 3500, 3750, 4000, 4500, 5000, 5500, 6000, 6500, 7000, 8000, 9000, 10000, 12000, 15000, 18000, 20000,
    25000, 30000,
], dtype=float)
EXTINCTION_AV = np.array([0.0, 0.5, 1.0, 2.0, 4.0, 6.0])
GAIA_VEGAMAG = 0.014
"""Magnitude of Vega in the Gaia system: AB - VEGAMAG of G is 25.8010 - 25.6874 = 0.1136 (Riello et al. 2021, table 3) where
Vega itself gives 0.1275 (zero point 3228.75 Jy). The sources put Vega at zero; the same is added to BP and RP (colour zero)."""


def build(lachesis_grids: Path, astrolachesis: Path, astroariadne: Path) -> None:
    """Build, check and write all grids.

    Args:
        lachesis_grids: folder of the package ``lachesis_grids`` (holds ``grids/*.h5``).
        astrolachesis: folder of ``lachesis`` (holds ``Datafiles/BC_tables``).
        astroariadne: folder of ``astroARIADNE`` (holds ``Datafiles/model_grids``).
    """
    GRIDS.mkdir(exist_ok=True)
    for name in SETS:
        content = build_isochrones(name, lachesis_grids / "grids")
        check_isochrones(content, name)
        _write(f"isochrones_{name}", content)
    models = astroariadne / "Datafiles" / "model_grids"
    axes, tables = mist_table(astrolachesis / "Datafiles" / "BC_tables" / "bc_tables.h5")
    _write("extinction", effective_wavelengths(axes, tables))
    mist = mist_corrections(axes, tables, models)
    anchors = vega_anchors(models, mist)
    for name in CITATIONS:
        shifts: dict[str, float] = {}
        if name == "mist_bc":
            corrections = {key: mist[band.mist or key] for key, band in BANDS.items()}
        else:
            corrections, shifts = ariadne_corrections(models, name, mist, anchors)
        content = _pack(corrections, anchors, CITATIONS[name])
        print(name, {k: round(v, 3) for k, v in check_atmosphere(content, name).items()}, "removed", shifts)
        _write(f"atmosphere_{name}", content)
    print(f"{sum(p.stat().st_size for p in GRIDS.glob('*.npz')) / 1e6:.1f} MB")


def _write(name: str, content: dict[str, np.ndarray]) -> None:
    arrays: Any = content
    np.savez_compressed(GRIDS / f"{name}.npz", **arrays)


def effective_wavelengths(axes: dict[str, np.ndarray], tables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Wavelength [micron] at which CCM89 (R_V = 3.1) equals A_band / A_V of MIST (log g 4, [Fe/H] 0).

    Where that is not one wavelength (GALEX NUV, in the 2175 A bump) or the curve ends (beyond 3 micron), the pivot.
    """
    grid = np.geomspace(0.26, 3.2, 4000)
    curve = CCM89(Rv=3.1)(1 / (grid * units.micron))
    solar, logg = int(np.argmin(np.abs(axes["feh"]))), int(np.argmin(np.abs(axes["logg"] - 4)))
    result = np.empty((len(BANDS), len(EXTINCTION_TEFF), len(EXTINCTION_AV)))
    for b, band in enumerate(BANDS.values()):
        result[b] = band.wavelength
        if not 0.3 < band.wavelength < 2.5:
            continue
        table = tables[band.mist][solar, :, logg]
        for j, av in enumerate(EXTINCTION_AV):
            at = float(max(av, 0.2))  # the limit of little extinction, above rounding
            k = int(np.argmin(np.abs(axes["av"] - at)))
            at = float(axes["av"][k])
            if not np.isclose(axes["av"], max(av, 0.2)).any():
                ratio = _between(axes["av"], table, max(av, 0.2))
            else:
                ratio = (table[:, 0] - table[:, k]) / at
            ratio = np.interp(np.log10(EXTINCTION_TEFF), axes["log_teff"], ratio)
            result[b, :, j] = np.interp(-ratio, -curve, grid)
    ratio = result / np.array([b.wavelength for b in BANDS.values()])[:, None, None]
    if far := [name for name, r in zip(BANDS, ratio, strict=True) if np.max(np.abs(np.log(r))) > 0.5]:
        raise ValueError(f"effective wavelengths lie far from the pivot in {', '.join(far)}")
    return {
        "bands": np.array(list(BANDS)), "log_teff": np.log10(EXTINCTION_TEFF), "av": EXTINCTION_AV,
        "wavelength": result.astype(np.float32), "citation": np.array("CCM89 as applied in the MIST tables"),
    }


def _between(av: np.ndarray, table: np.ndarray, at: float) -> np.ndarray:
    k = int(np.searchsorted(av, at)) - 1
    ratios = [(table[:, 0] - table[:, i]) / av[i] for i in (k, k + 1)]
    return ratios[0] + (ratios[1] - ratios[0]) * (at - av[k]) / (av[k + 1] - av[k])


def _pack(corrections: dict[str, np.ndarray], anchors: dict[str, float], citation: str) -> dict[str, np.ndarray]:
    codes, packed, zero = [], [], []
    for key, band in BANDS.items():
        vega = GAIA_VEGAMAG if key.startswith("Gaia_") else 0.0
        table = corrections[key] - vega
        middle, half = (table.max() + table.min()) / 2, (table.max() - table.min()) / 2
        scale = max(STEP, half / 32000)
        packed.append(np.round((table - middle) / scale).astype(np.int16))
        codes.append((middle, scale))
        flux = (band.zero_point or 10 ** (0.4 * anchors[key])) * 10 ** (0.4 * vega)  # erg/s/cm2/A
        zero.append(3631.0 if band.system == "AB" else flux * (band.wavelength * 1e4) ** 2 / 2.99792458e18 * 1e23)
    return {
        **AXES, "bands": np.array(list(BANDS)), "bc": np.stack(packed), "bc_code": np.array(codes),
        "system": np.array([b.system for b in BANDS.values()]),
        "wavelength": np.array([b.wavelength for b in BANDS.values()]), "zero_point_jy": np.array(zero),
        "citation": np.array(citation),
    }


def _folder(given: Path | None, package: str) -> Path:
    if given is not None:
        return given
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit(f"package {package!r} is not installed: install it or name its folder, see --help")
    return Path(next(iter(spec.submodule_search_locations)))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for option in ("lachesis-grids", "astrolachesis", "astroariadne"):
        parser.add_argument(f"--{option}", type=Path, help="folder of the package")
    given = parser.parse_args()
    build(
        _folder(given.lachesis_grids, "lachesis_grids"), _folder(given.astrolachesis, "lachesis"),
        _folder(given.astroariadne, "astroARIADNE"),
    )


if __name__ == "__main__":
    main()
