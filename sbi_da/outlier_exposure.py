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
from sbi_da.estimator import Estimator
from sbi_da.fitting import fit
from sbi_da.layout import Observations
from sbi_da.records import OBSERVED, Images
from sbi_da.restaging import Restaging, restage
from sbi_da.sources import Examples, Source, StoredSource
from sbi_da.training import StreamModule, TrainingModule
from sbi_da.views import alone, blendedness

__all__ = ["expose"]

EPOCH = 2**31 + 8
FEWEST = 50
"""Objects with images in all bands that it takes, simulated and real."""
JUDGED = 0.1
"""Share of the images that judge."""
AUGMENTATION = Augmentation(rotate="any", zoom=(0.8, 1.25), shift=1.5, psf=(0.0, 0.5), brightness=0.1, colour=0.15, grey=0.2)


def expose(
    estimator: Estimator, source: Source, real: Observations, how: OutlierExposure, staging: Restaging, seed: int, progress: bool = False
) -> dict[str, float]:
    """Give an estimator detectors, one for each survey with images; nothing else of it changes.

    Args:
        estimator: whose detectors they are to be; earlier ones go.
        source: simulated objects.
        real: unlabelled objects of the target.
        how: size of the training, and what outliers are like.
        staging: how images are made to look like the target's.
        seed: of everything random.
        progress: show a progress bar.

    Returns:
        Of each survey, the area under the ROC curve on held-out images. A survey of which simulated or real objects have too few images
        gets no detector, with a warning.
    """
    some = source.examples(how.simulations, EPOCH)
    ready = []
    for name in estimator.layout.cameras:
        whole, known = (np.flatnonzero((x.images[name].state == OBSERVED).all(1)) for x in (some.observed, real))
        if min(len(whole), len(known)) < FEWEST:
            warnings.warn(
                f"no outlier detector for {name}: {len(whole)} simulated and {len(known)} real objects have images in all its bands, "
                f"at least {FEWEST} are needed", stacklevel=2,
            )
            continue
        ready.append((name, whole))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        estimator.detect([name for name, _ in ready])
    kept: dict[str, float] = {}
    for k, (name, whole) in enumerate(ready):
        chance = np.random.SeedSequence([seed, 8, k]).spawn(2)
        codes, once = some.z[whole, 0].astype(int), staging.model_copy(update={"copies": 1})
        image, target, camera = some.observed.images[name].take(whole), real.images[name], estimator.layout.cameras[name]
        mixed = partial(blended, how=how.blending, rng=np.random.default_rng(chance[1]))
        # The same chance for both: seeing, noise and borrowed brightness are alike, the galaxies alone differ.
        single, pair = (restage(image, codes, target, camera, once, np.random.default_rng(chance[0]), mix)[0] for mix in (None, mixed))
        kept[name] = _trained(estimator, name, single, pair, how, seed + k, progress)
    return kept


def _trained(estimator: Estimator, name: str, single: Images, pair: Images, how: OutlierExposure, seed: int, progress: bool) -> float:
    """Train one detector; returns how well it tells held-out images apart."""
    detector = estimator.detector(name)
    held = int(JUDGED * len(single))
    learned, judged = (_examples(detector, name, single.take(rows), pair.take(rows)) for rows in (slice(held, None), slice(0, held)))
    detector.fit(StoredSource(learned, seed).examples(len(learned), 0).observed)
    training = TrainingConfig(
        epochs=how.epochs, steps_per_epoch=how.steps_per_epoch, batch=how.batch, learning_rate=how.learning_rate, optimiser="adamw",
        weight_decay=0.01, warmup=60, gradient_clip=5.0, augmentation=AUGMENTATION,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = TrainingModule(detector.train(), training, weighted=False)
        fit(module, StreamModule(StoredSource(learned, seed), StoredSource(judged, seed), training, seed), training, None, progress)
    detector.eval()
    if not all(torch.isfinite(p).all() for p in detector.parameters()):
        raise SbiDaError("the training of the outlier detector diverged: lower alignment.classes.outliers.learning_rate")
    return float(roc_auc_score(judged.z[:, 0], blendedness(detector, judged.observed.images[name])))


def _examples(detector: Estimator, name: str, single: Images, pair: Images) -> Examples:
    """Single galaxies, code 0, and pairs, code 1."""
    pixels, states = (np.concatenate([getattr(x, what) for x in (single, pair)]) for what in ("pixels", "state"))
    images = Images(single.bands, pixels, np.full(states.shape, np.nan), states)
    codes = np.repeat([0.0, 1.0], [len(single), len(pair)])
    return Examples(alone(detector, name, images), codes[:, None], np.zeros(len(codes)))
