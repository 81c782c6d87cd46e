r"""Isochrones on a common axis of equivalent evolutionary points (EEP), from the HDF5 files of ``lachesis-grids``.

A slice (one age and metallicity) is a curve in EEP :math:`e`. Slices start and end at different points, so each is
continued: below its first point along the first slope, above its last by copies of the last point. What is stored is

.. math:: D(e) = \ln m_\mathrm{hi} - \ln m(e) \ge 0,

strictly falling with :math:`e`. Near the tip of an isochrone giants differ in mass by parts in a million; as a float32
deficit from the tip these differences keep their relative precision, as a float32 mass they would not.
"""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

__all__ = ["SETS", "IsochroneSet", "build_isochrones"]

TEFF_MIN = 2300.0
"""Rows cooler than this [K] are dropped: no atmosphere grid reaches there."""
TINY = 1e-9
"""Step of ln m where an isochrone is continued or does not rise."""
QUANTITIES = ("log_teff", "log_g", "log_l")
COLUMNS = {"log_teff": "log_Teff", "log_g": "log_g", "log_l": "log_L"}


@dataclass(frozen=True)
class IsochroneSet:
    """What to take from one file.

    Attributes:
        file: name of the file in ``lachesis_grids/grids``.
        last_eep: last evolutionary point kept.
        log_age: smallest and largest log10 age [yr].
        feh: smallest and largest [Fe/H].
        citation: who made the models.
    """

    file: str
    last_eep: int
    log_age: tuple[float, float]
    feh: tuple[float, float]
    citation: str


SETS = {
    # 808 is the start of the thermally pulsing AGB; white dwarfs come later.
    "mist": IsochroneSet(
        "mist_v2.5_vvcrit0.4.h5", 808, (5.7, 10.3), (-2.5, 0.5),
        "MIST v2.5, v/vcrit = 0.4: Dotter 2016, ApJS 222, 8; Choi et al. 2016, ApJ 823, 102",
    ),
    # 605 is the RGB tip and 707 the end of the part of core He burning that isochrones of all ages above 10 Myr share.
    "parsec": IsochroneSet(
        "parsec_v1.25.h5", 707, (6.0, 10.25), (-2.0, 0.5),
        "PARSEC v1.2S/2.5: Bressan et al. 2012, MNRAS 427, 127; Chen et al. 2014, MNRAS 444, 2525",
    ),
    "bhac15": IsochroneSet("bhac15.h5", -1, (5.69, 10.0), (0.0, 0.0), "BHAC15: Baraffe et al. 2015, A&A 577, A42"),
}


def build_isochrones(name: str, folder: Path) -> dict[str, np.ndarray]:
    """Arrays of the isochrone set ``name``.

    Args:
        name: key of :data:`SETS`.
        folder: ``lachesis_grids/grids``.

    Returns:
        ``log_age``, ``feh``, ``deficit`` (feh, age, EEP; float32), int16 ``log_teff``, ``log_g``, ``log_l`` with
        ``*_code`` (offset, scale, smallest and largest value among real points), ``ln_m_lo`` and ``ln_m_hi``
        (feh, age), ``first`` and ``last`` index of real points, ``citation``.
    """
    spec = SETS[name]
    feh, log_age, slices = _read(folder / spec.file, spec)
    by_mass = spec.last_eep < 0
    if by_mass:
        masses = np.unique(np.concatenate([np.round(np.exp(s["ln_m"]), 4) for s in slices.ravel()]))
        for s in slices.ravel():
            s["eep"] = np.searchsorted(masses, np.round(np.exp(s["ln_m"]), 4)).astype(float)
    start = int(min(s["eep"][0] for s in slices.ravel()))
    end = int(max(s["eep"][-1] for s in slices.ravel()))
    shape = (len(feh), len(log_age))
    tables = {key: np.empty((*shape, end - start + 1)) for key in ("deficit", *QUANTITIES)}
    nodes = {key: np.empty(shape) for key in ("ln_m_lo", "ln_m_hi", "first", "last")}
    limits = {
        key: (min(s[key].min() for s in slices.ravel()), max(s[key].max() for s in slices.ravel()))
        for key in QUANTITIES
    }
    for index in np.ndindex(shape):
        curve = slices[index]
        axis = np.arange(start, end + 1, dtype=float)
        nodes["first"][index], nodes["last"][index] = curve["eep"][0] - start, curve["eep"][-1] - start
        ln_m = _continued(axis, curve["eep"], curve["ln_m"])
        nodes["ln_m_lo"][index], nodes["ln_m_hi"][index] = curve["ln_m"][0], curve["ln_m"][-1]
        tables["deficit"][index] = _falling(curve["ln_m"][-1] - ln_m)
        for key in QUANTITIES:
            tables[key][index] = np.clip(_continued(axis, curve["eep"], curve[key]), *limits[key])
    if len(feh) == 1:  # solar only: a narrow band around it
        feh = np.array([-0.05, 0.05])
        tables = {k: np.repeat(v, 2, axis=0) for k, v in tables.items()}
        nodes = {k: np.repeat(v, 2, axis=0) for k, v in nodes.items()}
    content: dict[str, np.ndarray] = {"feh": feh, "log_age": log_age, "citation": np.array(spec.citation)}
    # The deficit at the first and last real point, after rounding, is the limit the prior uses.
    content["deficit"] = tables["deficit"].astype(np.float32)
    for key in QUANTITIES:
        low, high = limits[key]
        scale = (high - low) / 65534
        content[key] = np.round((tables[key] - low) / scale - 32767).astype(np.int16)
        content[f"{key}_code"] = np.array([low + 32767 * scale, scale, low, high])
    content["ln_m_lo"], content["ln_m_hi"] = nodes["ln_m_lo"], nodes["ln_m_hi"]
    content["first"], content["last"] = nodes["first"].astype(np.int16), nodes["last"].astype(np.int16)
    return content


def _read(path: Path, spec: IsochroneSet) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    with h5py.File(path, "r") as file:
        values, lengths, offsets = (file[key][()] for key in ("values", "lengths", "offsets"))
        ages, fehs = file["age_values"][()], file["feh_values"][()]
        columns = [c.decode() if isinstance(c, bytes) else str(c) for c in file.attrs["columns"]]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    keep_feh = np.flatnonzero((fehs >= spec.feh[0] - 1e-6) & (fehs <= spec.feh[1] + 1e-6))
    keep_age = np.flatnonzero((ages >= spec.log_age[0] - 1e-6) & (ages <= spec.log_age[1] + 1e-6))
    slices = np.empty((len(keep_feh), len(keep_age)), dtype=object)
    for i, f in enumerate(keep_feh):
        for j, a in enumerate(keep_age):
            s = f * len(ages) + a
            rows = values[starts[s] : starts[s + 1]].astype(float)
            if not len(rows):
                raise ValueError(f"{path.name}: no isochrone at [Fe/H] {fehs[f]}, log age {ages[a]}")
            told = rows[:, columns.index("age")]
            if np.nanmax(np.abs(told - ages[a])) > 1e-3:
                raise ValueError(f"{path.name}: slice {s} is not of log age {ages[a]}: the layout has changed")
            eep = float(offsets[s]) + np.arange(len(rows))
            curve = {"eep": eep, "ln_m": np.log(rows[:, columns.index("initial_mass")])}
            curve |= {key: rows[:, columns.index(COLUMNS[key])] for key in QUANTITIES}
            good = np.all([np.isfinite(v) for v in curve.values()], axis=0)
            good &= curve["log_teff"] >= np.log10(TEFF_MIN)
            if spec.last_eep >= 0:
                good &= eep <= spec.last_eep
            slices[i, j] = {key: v[good] for key, v in curve.items()}
    return fehs[keep_feh], ages[keep_age], slices


def _continued(axis: np.ndarray, eep: np.ndarray, value: np.ndarray) -> np.ndarray:
    result = np.interp(axis, eep, value)  # constant above the last point, linear over dropped rows
    reach = min(4, len(eep) - 1)
    slope = (value[reach] - value[0]) / (eep[reach] - eep[0])
    return np.where(axis < eep[0], value[0] + slope * (axis - eep[0]), result)


def _falling(deficit: np.ndarray) -> np.ndarray:
    # From the tip downwards each point lies above the next, by a part in 1e6 so that float32 sees it.
    out = np.maximum(deficit, 0.0)
    for k in range(len(out) - 2, -1, -1):
        out[k] = max(out[k], out[k + 1] * (1 + 1e-6) + TINY)
    return out
