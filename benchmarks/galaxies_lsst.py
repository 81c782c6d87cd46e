"""The same kind of galaxies at ten-year and at one-year depth (the first experiment of DeepAstroUDA), mergers unknown to the simulations.

Source: ellipticals, irregulars and spirals as LSST sees them after ten years. Target: others of the same population after one year, a
tenth of them mergers, which are no class of the source.
"""

import numpy as np

from benchmarks.galaxies import Problem, main
from benchmarks.galaxies_sim import CLASSES, target
from sbi_da.simulation import simulate
from sbi_da.simulators import get_simulator
from sbi_da.surveys import get_survey

SOURCE, ADAPT, TEST = 3000, 2000, 3000
FAINT = {"magnitude": {"kind": "uniform", "low": 19.0, "high": 21.5}}


def make(seed: int) -> Problem:
    """Source and target of a seed."""
    deep, shallow = get_survey("lsst_mock"), get_survey("lsst_mock_year1").model_copy(update={"name": "lsst_mock"})
    known = get_simulator("galaxies", classes=list(CLASSES), fractions=[0.25, 0.15, 0.60], prior=FAINT)
    every = get_simulator("galaxies", classes=[*CLASSES, "merger"], fractions=[0.225, 0.135, 0.54, 0.1], prior=FAINT)
    source = simulate(known, [deep], SOURCE, 3000 + seed)
    real = target(simulate(every, [shallow], ADAPT + TEST, 4000 + seed))
    order = np.arange(len(real))
    return Problem(source, real.isel(order < ADAPT), real.isel(order >= ADAPT), CLASSES, "lsst_mock")


if __name__ == "__main__":
    main("galaxies_lsst", make, __doc__ or "")
