"""What is seen of objects beside their classes: the network's context, and what is measured of their images."""

import numpy as np
from torch import Tensor

from sbi_da.encoders.images import ImageTokens
from sbi_da.encoders.morphometry import summary_count
from sbi_da.layout import Observations
from sbi_da.measured import measurements, pictures

__all__ = ["measured", "views"]

CHUNK = 256


def measured(tokens: ImageTokens, name: str, observed: Observations) -> np.ndarray:
    """Summaries of the images of a survey, shape ``(object, summary)``; rows of NaN where there is no image."""
    parts = [np.zeros((0, summary_count(len(tokens.get_buffer(f"center_{name}")))))]
    for start in range(0, len(observed), CHUNK):
        pixels, seen = pictures(measurements(observed, slice(start, start + CHUNK)))[name]
        told = tokens.summaries(name, pixels, seen).double().numpy()
        parts.append(np.where(seen.any(1).numpy()[:, None], told, np.nan))
    return np.concatenate(parts)


def views(tokens: ImageTokens | None, observed: Observations, context: Tensor) -> dict[str, np.ndarray]:
    """What :class:`~sbi_da.normality.Normality` looks at: contexts, and of each survey with images what is measured of these.

    Args:
        tokens: of the estimator's surveys with images; None: there are none.
        observed: the objects.
        context: theirs, shape ``(object, context)``.

    Returns:
        By name, shape ``(object, width)``; rows of NaN where there is no image.
    """
    found = {"context": context.double().numpy()}
    return found if tokens is None else found | {name: measured(tokens, name, observed) for name in tokens.encoders}
