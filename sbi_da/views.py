"""What is seen of objects beside their classes: the network's context, what is measured of their images, what detectors say of these."""

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from sbi_da.encoders.images import ImageTokens
from sbi_da.encoders.morphometry import summary_count
from sbi_da.layout import Observations
from sbi_da.measured import measurements, pictures
from sbi_da.records import ABSENT, OBSERVED, Images

if TYPE_CHECKING:
    from sbi_da.estimator import Estimator

__all__ = ["alone", "blendedness", "measured", "views", "whole"]

CHUNK = 256


def measured(tokens: ImageTokens, name: str, observed: Observations) -> np.ndarray:
    """Summaries of the images of a survey, shape ``(object, summary)``; rows of NaN where there is no image."""
    parts = [np.zeros((0, summary_count(len(tokens.get_buffer(f"center_{name}")))))]
    for start in range(0, len(observed), CHUNK):
        pixels, seen = pictures(measurements(observed, slice(start, start + CHUNK)))[name]
        told = tokens.summaries(name, pixels, seen).double().numpy()
        parts.append(np.where(seen.any(1).numpy()[:, None], told, np.nan))
    return np.concatenate(parts)


def alone(detector: "Estimator", name: str, images: Images) -> Observations:
    """Objects of which nothing but images of one survey is there."""
    shape = (len(images), len(detector.layout.channels))
    return Observations(np.full(shape, np.nan), np.full(shape, np.nan), np.full(shape, ABSENT, np.uint8), {name: images})


def whole(images: Images) -> np.ndarray:
    """Positions of objects all of whose bands are there and finite."""
    seen = np.flatnonzero((images.state == OBSERVED).all(1))
    parts = [rows[np.isfinite(images.take(rows).pixels[:]).all((1, 2, 3))] for rows in np.array_split(seen, -(-len(seen) // CHUNK) or 1)]
    return np.concatenate(parts)


def blendedness(detector: "Estimator", images: Images) -> np.ndarray:
    """Logarithm of the odds that images show two galaxies, as a detector sees it, shape ``(object,)``; NaN without all bands.

    The mean over the images turned by 0, 90, 180 and 270 degrees.
    """
    found, (name,) = np.full(len(images), np.nan), detector.surveys
    there = whole(images)
    for rows in np.array_split(there, -(-len(there) // CHUNK) or 1):
        some, odds = images.take(rows), np.zeros(len(rows))
        for turn in range(4):
            turned = np.ascontiguousarray(np.rot90(np.asarray(some.pixels[:]), turn, (2, 3)))
            context = detector.encode(alone(detector, name, Images(some.bands, turned, some.error, some.state)))
            odds += np.subtract(*detector.classify(context, rows).log_probabilities.T[::-1]) / 4
        found[rows] = odds
    return found


def views(estimator: "Estimator", observed: Observations, context: Tensor) -> dict[str, np.ndarray]:
    """What :class:`~sbi_da.normality.Normality` looks at.

    Args:
        estimator: that sees them.
        observed: the objects.
        context: theirs, shape ``(object, context)``.

    Returns:
        Features by name, shape ``(object, width)``: contexts, and of each survey with images what is measured of these; and scores, shape
        ``(object,)``, of each detector. NaN where there is no image.
    """
    found = {"context": context.double().numpy()}
    if estimator.images is not None:
        found |= {name: measured(estimator.images, name, observed) for name in estimator.images.encoders}
    return found | {f"blended {name}": blendedness(estimator.detector(name), observed.images[name]) for name in estimator.detectors}
