"""A detector of what no simulation shows: taught by synthetic outliers (Hendrycks et al. 2019, arXiv 1812.04606).

Distances to known objects (:mod:`sbi_da.normality`) treat all directions alike; what alignment made equal, or noise hides, they miss. The
commonest strangers among galaxies are no new kind but two at once: mergers, pairs, chance alignments. They can be made: simulated
galaxies laid over each other (:mod:`sbi_da.blending`), seen as the target's survey would show them (:mod:`sbi_da.restaging`). A small
network of its own learns to tell them from single ones seen in the same way, so that only what is in the image can tell; no real object is
learned from, but for the flux, size, colour, sky and noise that are borrowed.
"""

import warnings
from functools import partial

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from sbi_da.augmentation import Augmentation
from sbi_da.blending import blended
from sbi_da.class_alignment_config import OutlierExposure
from sbi_da.config import TrainingConfig
from sbi_da.errors import SbiDaError
from sbi_da.estimator import FITTED, Estimator
from sbi_da.fitting import fit
from sbi_da.layout import Observations
from sbi_da.records import Images
from sbi_da.restaging import Restaging, restage
from sbi_da.sources import Examples, Source, StoredSource
from sbi_da.training import StreamModule, TrainingModule
from sbi_da.views import alone, blendedness, whole

__all__ = ["expose"]

EPOCH = 2**31 + 8
FEWEST = 50
"""Objects with images in all bands that it takes, simulated and real."""
JUDGED = 500
"""Held-out galaxies, at most, that judge."""
AUGMENTATION = Augmentation(rotate="any", zoom=(0.8, 1.25), shift=1.5, psf=(0.0, 0.5), brightness=0.1, colour=0.15, grey=0.2)


def expose(
    estimator: Estimator, source: Source, held_out: Examples, real: Observations, how: OutlierExposure, staging: Restaging, seed: int,
    progress: bool = False,
) -> dict[str, float | None]:
    """Give an estimator detectors, one for each survey with images; nothing else of it changes.

    Args:
        estimator: whose detectors they are to be; earlier ones go.
        source: simulated objects to learn from.
        held_out: others that judge.
        real: unlabelled objects of the target.
        how: size of the training, and what outliers are like.
        staging: how images are made to look like the target's.
        seed: of everything random.
        progress: show a progress bar.

    Returns:
        Of each survey, the area under the ROC curve on images of the held-out objects; None where there are none. A survey of which
        simulated or real objects have too few images gets no detector, with a warning.

    Raises:
        SbiDaError: no survey has images, or the training diverged.
    """
    if not estimator.layout.cameras:
        raise SbiDaError("alignment.classes.outliers looks at images, and no survey of this estimator has any: leave it out")
    some = source.examples(how.simulations, EPOCH)
    parts = (some, held_out.take(np.arange(min(JUDGED, len(held_out)))))
    ready = []
    for name in estimator.layout.cameras:
        counts = [len(whole(x.images[name])) for x in (some.observed, real)]
        if min(counts) >= FEWEST:
            ready.append(name)
            continue
        warnings.warn(
            f"no outlier detector for {name}: {counts[0]} simulated and {counts[1]} real objects have images in all its bands, at least "
            f"{FEWEST} are needed", stacklevel=2,
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        estimator.detect(ready)
    found: dict[str, float | None] = {}
    for k, name in enumerate(ready):
        detector, chance = estimator.detector(name), np.random.SeedSequence([seed, 8, k])
        learned, judged = (_shown(detector, name, each, real.images[name], how, staging, chance) for each in parts)
        _train(detector, learned, how, seed + k, progress)
        scores = blendedness(detector, judged.observed.images[name]) if len(judged) else np.zeros(0)
        found[name] = float(roc_auc_score(judged.z[:, 0], scores)) if len(judged) else None
    return found


def _shown(
    detector: Estimator, name: str, examples: Examples, target: Images, how: OutlierExposure, staging: Restaging,
    chance: np.random.SeedSequence,
) -> Examples:
    """Single galaxies, code 0, and pairs, code 1, of those that have images in all bands; none where these are fewer than two."""
    rows = whole(examples.observed.images[name])
    images, codes = examples.observed.images[name].take(rows), examples.z[rows, 0].astype(int)
    once, camera = staging.model_copy(update={"copies": 1}), detector.layout.cameras[name]
    # The same chance for both: seeing, noise and borrowed brightness are alike, the galaxies alone differ.
    seeds = chance.spawn(2)
    mixed = partial(blended, how=how.blending, rng=np.random.default_rng(seeds[1]))
    shown = [
        restage(images, codes, target, camera, once, np.random.default_rng(seeds[0]), change)[0] for change in (None, mixed)
    ] if len(rows) > 1 else [images.take(slice(0, 0))] * 2
    pixels, states = (np.concatenate([getattr(x, what)[:] for x in shown]) for what in ("pixels", "state"))
    joined = Images(images.bands, pixels, np.full(states.shape, np.nan), states)
    return Examples(alone(detector, name, joined), np.repeat([0.0, 1.0], [len(x) for x in shown])[:, None], np.zeros(len(joined)))


def _train(detector: Estimator, learned: Examples, how: OutlierExposure, seed: int, progress: bool) -> None:
    source = StoredSource(learned, seed)
    detector.fit(source.examples(min(len(learned), FITTED), 0).observed)
    training = TrainingConfig(
        epochs=how.epochs, steps_per_epoch=how.steps_per_epoch, batch=how.batch, learning_rate=how.learning_rate, optimiser="adamw",
        weight_decay=0.01, warmup=60, gradient_clip=5.0, augmentation=AUGMENTATION,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = TrainingModule(detector.train(), training, weighted=False)
        fit(module, StreamModule(source, source, training, seed), training, None, progress)
    detector.eval()
    if not all(torch.isfinite(p).all() for p in detector.parameters()):
        raise SbiDaError("the training of the outlier detector diverged: lower alignment.classes.outliers.learning_rate")
