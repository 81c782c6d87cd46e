"""Simulated EAGLE galaxies (SKIRT, face-on, noise-free) to real SDSS galaxies: spheroids and discs.

Source labels are physical: spheroid for a disc share of the mass below 0.35 (and, where it is known, less than 0.4 of the kinetic
energy in co-rotation), disc above 0.55 (and more than 0.4), galaxies between left out, redshifts below 1.1; all snapshots of a galaxy
stay together. Real ones are Galaxy Zoo 1's: elliptical; spiral or edge-on. Of these 60 % adapt, 20 % are set aside, 20 % test, the same
for every seed.
"""

import sys
from pathlib import Path

import numpy as np

from benchmarks.galaxies import Problem, main
from sbi_da.records import Images, Records
from sbi_da.records.image_sets import read_stack
from sbi_da.surveys import get_survey

CLASSES = ("spheroid", "disc")
SHARES = (0.6, 0.8)
THICKNESS = "[0.6, 0.2]"


def simulated(path: Path) -> Records:
    """Labelled EAGLE galaxies."""
    content = np.load(path, allow_pickle=False)
    share, rotation = content["disc_to_total"], np.nan_to_num(content["kappa"], nan=np.nan)
    spheroid = (share < 0.35) & ~(rotation > 0.4)
    disc = (share > 0.55) & ~(rotation < 0.4)
    kept = (spheroid | disc) & (content["z"] < 1.1)
    pixels = np.ascontiguousarray(content["images"][kept].transpose(0, 3, 1, 2))
    shape = pixels.shape[:2]
    image = Images(("i", "r", "g"), pixels, np.full(shape, np.nan), np.ones(shape, np.uint8))
    return Records.build(
        {}, np.arange(len(pixels)), {"morphology": disc[kept].astype(float)}, {"group": content["group"][kept].astype(str)},
        {"domain": "simulated", "classes_morphology": list(CLASSES)}, {"sdss_images": image},
    )


def real(path: Path) -> tuple[Records, Records]:
    """Galaxies to adapt to and to test on, labels sealed; those of uncertain class are left out."""
    records = read_stack(
        path, get_survey("sdss_images"), labels="label", id_column="objid",
        classes={"spheroid": ["elliptical"], "disc": ["spiral_cw", "spiral_acw", "edge"]},
    )
    known = np.isfinite(records.opened().parameters["morphology"])
    order = np.random.default_rng(20).permutation(np.flatnonzero(known))
    first, second = (int(share * len(order)) for share in SHARES)
    return records.isel(np.sort(order[:first])), records.isel(np.sort(order[second:]))


def make(folder: Path) -> Problem:
    """Source and target."""
    adapt, test = real(folder / "gz1_sdss_dev.npz")
    match = (f"alignment.classes.restage.thickness={THICKNESS}",)
    return Problem(simulated(folder / "eagle_skirt.npz"), adapt, test, CLASSES, "sdss_images", "eagle", match)


if __name__ == "__main__":
    data = Path(sys.argv.pop(1))
    main("galaxies_real", lambda seed: make(data), __doc__ or "")
