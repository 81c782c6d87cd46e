"""What is seen of objects beside their classes: the network's context, what is measured of their images, what detectors say of these."""

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from sbi_da.encoders.images import ImageTokens
from sbi_da.encoders.morphometry import summary_count
from sbi_da.layout import Observations
from sbi_da.measured import measurements, pictures
from sbi_da.records import ABSENT, OBSERVED, Images
from sbi_da.turned import turned_log_probabilities

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
    if images.pixels.dtype == np.uint8:
        return seen
    parts = [rows[np.isfinite(images.take(rows).pixels[:]).all((1, 2, 3))] for rows in np.array_split(seen, -(-len(seen) // CHUNK) or 1)]
    return np.concatenate(parts)


def blendedness(detector: "Estimator", images: Images) -> np.ndarray:
    """Logarithm of the odds that images show two galaxies, as a detector sees it, shape ``(object,)``; NaN without all bands."""
    found, there = np.full(len(images), np.nan), whole(images)
    log_p = turned_log_probabilities(detector, alone(detector, detector.surveys[0], images.take(there)))
    found[there] = log_p[:, 1] - log_p[:, 0]
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
