"""What outlier detectors learn from, and the SDSS galaxies an adapted estimator finds strangest.

``python -m benchmarks.strangest_picture RUN DATA``, where RUN is ``seed_0/default_0_aligned`` among the runs of
``benchmarks.galaxies_real``.
"""

import sys
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.galaxies_real import THICKNESS, real, simulated
from sbi_da.blending import Blending, blended
from sbi_da.estimator import Estimator
from sbi_da.plots.galaxies import gallery_figure
from sbi_da.restaging import Restaging, restage

SHOWN = 10
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "strangest.png"


def main(run: Path, data: Path) -> None:
    """Draw; real galaxies are of any class, for labels are sealed."""
    estimator = Estimator.load(run)
    camera, how = estimator.layout.cameras["sdss_images"], Restaging(copies=1, thickness=THICKNESS)
    source, parts = simulated(data / "eagle_skirt.npz"), real(data / "gz1_sdss_dev.npz")
    seen = parts[0].images("sdss_images")
    rng = np.random.default_rng(5)
    chosen = np.sort(rng.choice(len(source), 300, replace=False))
    codes, images = source.parameters["morphology"].astype(int)[chosen], source.images("sdss_images").take(chosen)
    mixed = partial(blended, how=Blending(), rng=np.random.default_rng(6))
    rows = []
    for label, change in (("EAGLE,\nrestaged", None), ("laid over\nanother, bent", mixed)):
        shown, _ = restage(images, codes, seen, camera, how, np.random.default_rng(7), change)
        rows.append((label, shown.pixels[:SHOWN], [""] * SHOWN))
    observed = estimator.layout.read(parts[1])
    score = estimator.anomaly(observed, estimator.encode(observed, real=True))
    order = np.argsort(-score)
    middle = len(order) // 2
    for label, best in (("SDSS,\nstrangest", order[: 2 * SHOWN]), ("SDSS,\nmedian score", order[middle : middle + SHOWN])):
        for start in range(0, len(best), SHOWN):
            some = best[start : start + SHOWN]
            pixels = np.stack([parts[1].images("sdss_images").pixels[int(i)] for i in some])
            rows.append((label if not start else "", pixels, [f"{score[i]:.2f}" for i in some]))
    figure = gallery_figure([(label, np.moveaxis(pixels, 1, -1) / 255, captions) for label, pixels, captions in rows])
    figure.savefig(PICTURE, dpi=64)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
