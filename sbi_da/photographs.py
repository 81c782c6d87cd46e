r"""What a survey's camera records of a sky: noise-free images with the noise of sky and source, shown the way the survey shows them.

A pixel of true flux :math:`f` gets Gaussian noise of variance :math:`\sigma^2 + \max(f, 0) / g`, with :math:`\sigma` the sky noise of the
object's exposure and :math:`g` the gain in electrons per unit of flux.
"""

import numpy as np

from sbi_da.errors import SbiDaError
from sbi_da.records import OBSERVED, Images
from sbi_da.simulators import PhotographedSky, Sky
from sbi_da.surveys import Survey
from sbi_da.surveys.display import compose, to_bytes

__all__ = ["noise_free", "photograph", "record_images"]

CHUNK = 512
"""Objects that get their noise at a time."""


def noise_free(survey: Survey, sky: Sky, rng: np.random.Generator) -> np.ndarray:
    """Fluxes through the survey's optics, shape ``(object, band, y, x)``, float32.

    Raises:
        SbiDaError: a sky without images, or one whose images are not finite or of another shape.
    """
    camera = survey.image
    if camera is None or not isinstance(sky, PhotographedSky):
        raise SbiDaError(f"{survey.name} takes images, and the simulator's objects have none: choose other surveys or another simulator")
    flux = sky.image(survey, rng)
    if flux.shape[1:] != (len(camera.bands), camera.size, camera.size) or not np.isfinite(flux).all():
        raise SbiDaError(f"the simulator sends {survey.name} images of shape {flux.shape[1:]}, or some that are not finite")
    return flux


def record_images(survey: Survey, flux: np.ndarray, rng: np.random.Generator) -> Images:
    """Images with noise; of a survey with a display, bytes of its colour composites.

    Args:
        survey: with images.
        flux: from :func:`noise_free`.
        rng: source of noise.
    """
    camera = survey.image
    if camera is None:
        raise SbiDaError(f"{survey.name} takes no images")
    n, bands = flux.shape[:2]
    law = np.array([(band.noise, band.noise_scatter) for band in camera.bands])
    sigma = law[:, 0] * 10 ** (law[:, 1] * rng.standard_normal((n, 1)))
    gain = np.array([band.gain or np.inf for band in camera.bands], np.float32)[:, None, None]
    pixels = np.empty(flux.shape, np.float32 if camera.display is None else np.uint8)
    for start in range(0, n, CHUNK):
        rows = slice(start, start + CHUNK)
        variance = sigma[rows, :, None, None].astype(np.float32) ** 2 + np.maximum(flux[rows], 0) / gain
        noisy = flux[rows] + np.sqrt(variance) * rng.standard_normal(flux[rows].shape, np.float32)
        pixels[rows] = noisy if camera.display is None else to_bytes(compose(noisy, camera.display))
    error = sigma if camera.display is None else np.full((n, bands), np.nan)
    return Images(camera.band_names, pixels, error, np.full((n, bands), OBSERVED, np.uint8))


def photograph(survey: Survey, sky: Sky, rng: np.random.Generator) -> Images:
    """Images of a sky by a survey."""
    return record_images(survey, noise_free(survey, sky, rng), rng)
