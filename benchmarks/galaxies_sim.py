"""Galaxies of one simulated survey to those of another, where everything is known: three classes, or with mergers in the target only.

A: galaxies 22/6/72 (elliptical, irregular, spiral) seen by SDSS. B: 14/8/78, clumpier, bluer, larger, with weaker arms and more bars,
under worse seeing, in noisier images of smaller pixels. With ``--unknown`` 15 % of B are mergers, which A does not have; with
``--unknown-irregular`` A has ellipticals and spirals alone, and 15 % of B are irregulars.
"""

import sys

import numpy as np

from benchmarks.galaxies import Problem, main
from sbi_da.records import Records
from sbi_da.simulation import simulate
from sbi_da.simulators import get_simulator
from sbi_da.surveys import Survey, get_survey

SOURCE, ADAPT, TEST = 4000, 2500, 4000
CLASSES = ("elliptical", "irregular", "spiral")
FRACTIONS = {"": [0.14, 0.08, 0.78], "merger": [0.12, 0.07, 0.66, 0.15], "irregular": [0.12, 0.73, 0.15]}
"""Of the target's classes, by the one that the source does not have, which comes last."""


def other_camera(survey: Survey) -> Survey:
    """The survey with worse seeing, other pixels and other noise."""
    camera = survey.image
    assert camera is not None
    bands = tuple(
        band.model_copy(update={"psf_fwhm": 1.5 * band.psf_fwhm, "noise": 2.5 * band.noise, "zero_point": band.zero_point + shift})
        for band, shift in zip(camera.bands, (0.25, 0.0, -0.2), strict=True)
    )
    return survey.model_copy(update={"image": camera.model_copy(update={"bands": bands, "pixel_scale": 0.33})})


def target(records: Records) -> Records:
    """Simulated records as a real survey's: labels sealed."""
    real = records.sealed()
    real.tree.attrs["domain"] = "real"
    return real


def make(seed: int, unknown: str = "") -> Problem:
    """Source and target of a seed; ``unknown``: a class of the target's that is none of the source's."""
    survey, known = get_survey("sdss_images"), tuple(c for c in CLASSES if c != unknown)
    shares = [{"elliptical": 0.22, "irregular": 0.06, "spiral": 0.72}[c] for c in known]
    a = get_simulator("galaxies", classes=list(known), fractions=[share / sum(shares) for share in shares])
    classes, fractions = [*known, unknown] if unknown else list(known), FRACTIONS[unknown]
    b = get_simulator(
        "galaxies", classes=classes, fractions=fractions,
        population={"clumpiness": 2.2, "arm_contrast": 0.5, "bar_fraction": 0.5, "colour_offset": -0.12, "size_scale": 1.25, "dust": 1.6},
    )
    source = simulate(a, [survey], SOURCE, 1000 + seed)
    real = target(simulate(b, [other_camera(survey)], ADAPT + TEST, 2000 + seed))
    order = np.arange(len(real))
    return Problem(source, real.isel(order < ADAPT), real.isel(order >= ADAPT), known, "sdss_images")


if __name__ == "__main__":
    variants = {"--unknown": ("galaxies_sim_unknown", "merger"), "--unknown-irregular": ("galaxies_sim_unknown_irregular", "irregular")}
    name, strange = next((variants[flag] for flag in sys.argv if flag in variants), ("galaxies_sim", ""))
    main(name, lambda seed: make(seed, strange), __doc__ or "", [word for word in sys.argv[1:] if word not in variants])
