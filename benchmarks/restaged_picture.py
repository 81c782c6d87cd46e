"""EAGLE galaxies as published, as SDSS would have shown them, and galaxies that it did: ``python -m benchmarks.restaged_picture DATA``."""

import sys
from pathlib import Path

import numpy as np

from benchmarks.galaxies_real import CLASSES, THICKNESS, real, simulated
from sbi_da.plots.galaxies import gallery_figure
from sbi_da.restaging import Restaging, restage
from sbi_da.surveys import get_survey

SHOWN = 10
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "restaged.png"


def main(data: Path) -> None:
    """Draw; which galaxies are shown is left to chance, and real ones are of any class, for labels are sealed."""
    rng = np.random.default_rng(4)
    source, (target, _) = simulated(data / "eagle_skirt.npz"), real(data / "gz1_sdss_dev.npz")
    camera = get_survey("sdss_images").image
    assert camera is not None
    codes = source.parameters["morphology"].astype(int)
    images = source.images("sdss_images")
    seen = target.images("sdss_images")
    rows = []
    for code, name in enumerate(CLASSES):
        chosen = images.take(np.sort(rng.choice(np.flatnonzero(codes == code), SHOWN, replace=False)))
        how = Restaging(copies=1, thickness=THICKNESS)
        staged, _ = restage(chosen, np.full(SHOWN, code), seen, camera, how, rng)
        rows += [(f"{name},\nEAGLE", _shown(chosen.pixels[:])), ("the same,\nrestaged", _shown(staged.pixels[:]))]
    some = seen.take(np.sort(rng.choice(len(seen), SHOWN, replace=False)))
    rows.append(("SDSS,\nunlabelled", _shown(some.pixels[:])))
    figure = gallery_figure([(label, pictures, [""] * len(pictures)) for label, pictures in rows])
    figure.savefig(PICTURE, dpi=64)


def _shown(pixels: np.ndarray) -> np.ndarray:
    return np.moveaxis(pixels, 1, -1) / 255


if __name__ == "__main__":
    main(Path(sys.argv[1]))
