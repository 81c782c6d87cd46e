r"""Simulated galaxies put on the stage of a survey: as bright, as large, as coloured, as blurred and as noisy as its images are.

Simulations come noise-free, face-on, without seeing, at distances of their own. What unlabelled images of the target tell without knowing
any class (the joint distribution of fluxes, sizes, colours, skies and noise) is given to simulated galaxies by physical operations: each
takes the flux, size, sky and noise of a target object drawn at random; a disc is tilted, isotropically; colours follow the target's,
correlated by rank with the galaxy's own, :math:`w = \Phi(\rho\,\Phi^{-1}(u) + \sqrt{1 - \rho^2}\,\epsilon)`; then come a point-spread
function, correlated noise, the sky, and the composite. Whatever differs between the classes in shape and structure is left as it is.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from scipy.special import ndtr, ndtri
from torch import Tensor
from torch.nn import functional

from sbi_da.alignment.mmd import Energy
from sbi_da.encoders.morphometry import NAMES, measure
from sbi_da.errors import SbiDaError
from sbi_da.records import ABSENT, OBSERVED, Images
from sbi_da.surveys import Imaging
from sbi_da.surveys.display import compose, decompose, to_bytes

__all__ = ["Restaging", "restage"]

FLUX, RADIUS, SKY, NOISE = (NAMES.index(name) for name in ("log_flux", "log_radius", "sky", "noise"))
CHUNK = 128
SEEING = (1.0, 1.6, 2.4, 3.4, 4.6)
"""What is tried [pixels]."""
TRIED = 300
REFERENCE = 5000
"""Target objects, at most, that are measured."""
TOLD = [NAMES.index(name) for name in ("concentration", "peak", "surface_brightness", "area")]
OVERSAMPLING = 2


class Restaging(BaseModel):
    """How simulated images are restaged.

    Attributes:
        copies: of every simulated object.
        tilt: simulated galaxies are seen face-on and are tilted.
        thickness: axis ratio of each class seen edge-on, in the order of the classes; one for all if it is a single number.
        colour: rank correlation of a galaxy's colour with the colour it is given; None leaves colours as they are.
        seeing: median full width at half maximum of the point-spread function that is added [pixels]; None: of a few that with which
            restaged images measure most like the target's (energy distance of concentration, peak, brightness and area).
        seeing_scatter: of its natural logarithm.
        neighbours: mean number of other sources in an image.
        noise: simulated images get the target's sky and noise.
    """

    model_config = ConfigDict(extra="forbid")
    copies: int = Field(4, ge=1)
    tilt: bool = True
    thickness: tuple[float, ...] | float = 0.25
    colour: float | None = Field(0.5, ge=0, le=1)
    seeing: float | None = Field(None, gt=0)
    seeing_scatter: float = Field(0.3, ge=0)
    neighbours: float = Field(1.2, ge=0)
    noise: bool = True


def linear(images: Images, camera: Imaging) -> Tensor:
    """Fluxes of images as a tensor ``(object, band, y, x)``, whatever they are shown as."""
    pixels = torch.from_numpy(np.array(images.pixels[:]))
    pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
    return pixels if camera.display is None else decompose(pixels, camera.display)


def restage(
    source: Images, codes: np.ndarray, target: Images, camera: Imaging, how: Restaging, rng: np.random.Generator,
    change: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Images, np.ndarray]:
    """Simulated images as the target's survey would show them.

    Args:
        source: simulated images in the survey's bands and size.
        codes: their classes, shape ``(object,)``.
        target: unlabelled images of the survey.
        camera: of the survey.
        how: what is done.
        rng: source of chance.
        change: what is done first to the fluxes of the galaxies, freed from their sky, shape ``(object, band, y, x)``, once the seeing
            has been found without it; None: nothing.

    Returns:
        ``copies`` images of every object, and the position of each in ``source``.
    """
    whole = np.flatnonzero((target.state == OBSERVED).all(1))
    if len(whole) > REFERENCE:
        whole = np.sort(rng.choice(whole, REFERENCE, replace=False))
    shown = linear(target.take(whole), camera)
    shown = shown[torch.isfinite(shown).all(-1).all(-1).all(-1)]
    if not len(shown):
        raise SbiDaError("restaging needs target objects that have images in all bands, and there are none")
    reference, texture = torch.cat([measure(part) for part in shown.split(CHUNK)]).numpy(), _Texture.of(shown)
    flux = linear(source, camera)
    there = torch.from_numpy(source.state == OBSERVED) & torch.isfinite(flux).all(-1).all(-1)
    complete = np.flatnonzero(there.all(1).numpy())
    if not len(complete):
        raise SbiDaError("restaging needs simulated objects that have images in all bands, and there are none")
    flux = _isolated(torch.where(there[..., None, None], flux, 0.0))
    own = torch.cat([measure(part) for part in flux.split(CHUNK)]).numpy()
    rows = np.tile(np.arange(len(flux)), how.copies)
    thickness = np.atleast_1d(how.thickness)[codes if np.ndim(how.thickness) else np.zeros(len(codes), int)]
    if how.seeing is None:
        best = _best_seeing(flux[complete], own[complete], thickness[complete], reference, texture, camera, how, rng)
        how = how.model_copy(update={"seeing": best})
    if change is not None:
        flux = change(flux)
        own = torch.cat([measure(part) for part in flux.split(CHUNK)]).numpy()
    made = []
    for part in np.array_split(rows, max(1, len(rows) // CHUNK)):
        drawn = reference[rng.integers(len(reference), size=len(part))]
        image = _staged(flux[part], own[part], thickness[part], drawn, reference, own[complete], texture, camera, how, rng)
        made.append(image if camera.display is None else to_bytes(compose(image, camera.display)))
    pixels = np.concatenate(made)
    shape = (len(rows), len(camera.bands))
    return Images(camera.band_names, pixels, np.full(shape, np.nan), np.where(there, source.state, ABSENT)[rows]), rows


@dataclass(frozen=True)
class _Texture:
    """Noise and sky of the bands relative to those of their mean, shape ``(band,)`` each, and how the noise of two bands is correlated.

    In colour composites it nearly is one and the same: they are made from smoothed or jointly scaled images.
    """

    amplitude: np.ndarray
    level: np.ndarray
    correlation: float

    @classmethod
    def of(cls, flux: Tensor) -> "_Texture":
        """Of a corner of each image, by medians over images."""
        side = max(4, flux.shape[-1] // 5)
        corner = flux[:, :, :side, :side].flatten(2)
        mean = corner.mean(1, keepdim=True)
        low, low_mean = corner.median(2).values, mean.median(2).values
        rest, rest_mean = corner - corner.mean(2, keepdim=True), mean - mean.mean(2, keepdim=True)
        spread, spread_mean = rest.std(2).clamp_min(1e-12), rest_mean.std(2).clamp_min(1e-12)
        bands = flux.shape[1]
        pairs = [(rest[:, a] * rest[:, b]).mean(1) / (spread[:, a] * spread[:, b]) for a in range(bands) for b in range(a)]
        correlation = float(torch.stack(pairs).median()) if pairs else 1.0
        return cls(
            (spread / spread_mean).median(0).values.numpy(), (low / low_mean.clamp_min(1e-12)).median(0).values.clamp(0, 3).numpy(),
            min(max(correlation, 0.0), 1.0),
        )


def _best_seeing(
    flux: Tensor, own: np.ndarray, thickness: np.ndarray, reference: np.ndarray, texture: _Texture, camera: Imaging, how: Restaging,
    rng: np.random.Generator,
) -> float:
    """The seeing with which a sample of restaged images is measured most like the target."""
    rows = rng.permutation(len(flux))[:TRIED]
    target = reference[rng.permutation(len(reference))[:TRIED]][:, TOLD]
    middle, scale = np.median(target, 0), target.std(0).clip(1e-6)
    found, distance = [], Energy()
    for seeing in SEEING:
        trial = how.model_copy(update={"seeing": seeing})
        drawn = reference[rng.integers(len(reference), size=len(rows))]
        image = torch.from_numpy(_staged(flux[rows], own[rows], thickness[rows], drawn, reference, own, texture, camera, trial, rng))
        if camera.display is not None:
            image = decompose(compose(image, camera.display), camera.display)
        made = measure(image).numpy()[:, TOLD]
        found.append(float(distance(*(torch.from_numpy((x - middle) / scale).double() for x in (made, target)))))
    return SEEING[int(np.argmin(found))]


def _isolated(flux: Tensor) -> Tensor:
    """Galaxies without the sky about them, fading out towards the edge as a survey's sky subtraction makes them."""
    size = flux.shape[-1]
    line = torch.arange(size) - (size - 1) / 2
    radius = torch.hypot(line[:, None], line[None])
    ring = (radius > 0.44 * size) & (radius < 0.5 * size)
    fade = ((0.49 * size - radius) / (0.09 * size)).clamp(0, 1)
    sky = flux[:, :, ring].median(-1).values[..., None, None]
    return (flux - sky).clamp_min(0) * (fade * fade * (3 - 2 * fade))


def _staged(
    flux: Tensor, own: np.ndarray, thickness: np.ndarray, drawn: np.ndarray, reference: np.ndarray, everyone: np.ndarray, texture: _Texture,
    camera: Imaging, how: Restaging, rng: np.random.Generator,
) -> np.ndarray:
    n, bands, size = flux.shape[:3]
    middle = bands // 2
    tint = np.zeros((n, bands))
    if how.colour is not None:
        colours = _colours(own, reference, everyone, how.colour, rng)
        tint[:, [k for k in range(bands) if k != middle]] = colours - own[:, len(NAMES) :]
    flux = flux * _tensor(np.exp(tint))[..., None, None]
    width = (how.seeing or SEEING[0]) * np.exp(how.seeing_scatter * rng.standard_normal(n))
    wanted = np.sqrt(np.maximum(10 ** (2 * drawn[:, RADIUS]) - (0.5 * width) ** 2, (0.25 * 10 ** drawn[:, RADIUS]) ** 2))
    zoom = np.clip(wanted / 10 ** own[:, RADIUS], 0.35, 4.0)
    cosine = rng.uniform(size=n) if how.tilt else np.ones(n)
    ratio = np.sqrt(cosine**2 + thickness**2 * (1 - cosine**2))
    major = zoom / ratio**0.25
    grid = _grid(major, major * ratio, rng, n)
    flux = _blurred(flux, _tensor(np.clip(0.35 / (major * ratio), 0, 3) * 0.7))
    fine = functional.grid_sample(
        flux, functional.affine_grid(grid, [n, bands, OVERSAMPLING * size, OVERSAMPLING * size], align_corners=False),
        align_corners=False, padding_mode="zeros",
    )
    total = fine.mean(1).sum((1, 2)).clamp_min(1e-9) / OVERSAMPLING**2
    fine = fine * _tensor(10 ** drawn[:, FLUX])[:, None, None, None] / total[:, None, None, None]
    fine = fine + _neighbours(n, bands, size, drawn, how, rng)
    image = functional.avg_pool2d(_seen(fine, _tensor(width * OVERSAMPLING), camera), OVERSAMPLING)
    if not how.noise:
        return image.numpy()
    per_pixel = 10 ** drawn[:, FLUX] / np.maximum(drawn[:, NAMES.index("area")] * size**2, 1)
    sigma = 10 ** drawn[:, NOISE] * per_pixel
    noise = _blurred(_tensor(rng.standard_normal((n, 1 + bands, size, size))), _tensor(0.26 * width))
    noise = noise / noise.std((2, 3), keepdim=True)
    shared = math.sqrt(texture.correlation) * noise[:, :1] + math.sqrt(1 - texture.correlation) * noise[:, 1:]
    sky = np.sinh(drawn[:, SKY]) * 10 * sigma
    level = _tensor(texture.level)[:, None, None] * _tensor(sky)[:, None, None, None]
    return (image + shared * _tensor(texture.amplitude)[:, None, None] * _tensor(sigma)[:, None, None, None] + level).numpy()


def _colours(own: np.ndarray, reference: np.ndarray, everyone: np.ndarray, rho: float, rng: np.random.Generator) -> np.ndarray:
    """Colours of target objects of nearby rank in redness, all bands of one object together; shape ``(object, band - 1)``."""
    first = len(NAMES)

    def redness(x: np.ndarray) -> np.ndarray:
        return x[:, first] - x[:, -1] if x.shape[1] > first + 1 else x[:, first]

    order, sorted_own = np.argsort(redness(reference)), np.sort(redness(everyone))
    rank = (np.searchsorted(sorted_own, redness(own)) + 0.5) / (len(sorted_own) + 1)
    moved = ndtr(rho * ndtri(rank) + math.sqrt(1 - rho**2) * rng.standard_normal(len(own)))
    return reference[order[np.clip((moved * len(order)).astype(int), 0, len(order) - 1)], first:]


def _grid(major: np.ndarray, minor: np.ndarray, rng: np.random.Generator, n: int) -> Tensor:
    """Maps from pixels of the result to those of the source: turned at random, tilted, turned again, shifted by half a pixel."""

    def turn(angle: np.ndarray) -> np.ndarray:
        return np.stack([np.stack([np.cos(angle), -np.sin(angle)], -1), np.stack([np.sin(angle), np.cos(angle)], -1)], -2)

    first, second = turn(rng.uniform(0, 2 * np.pi, n)), turn(rng.uniform(0, 2 * np.pi, n))
    stretch = np.stack([1 / major, rng.choice([-1, 1], n) / minor], -1)
    matrix = first @ (stretch[:, :, None] * second)
    shift = rng.normal(0, 0.4, (n, 2, 1)) / 32
    return _tensor(np.concatenate([matrix, -matrix @ shift], -1))


def _neighbours(n: int, bands: int, size: int, drawn: np.ndarray, how: Restaging, rng: np.random.Generator) -> Tensor:
    """Stars and small galaxies away from the centre, on the fine grid."""
    line = (torch.arange(OVERSAMPLING * size) - (OVERSAMPLING * size - 1) / 2) / OVERSAMPLING
    out = torch.zeros(n, bands, OVERSAMPLING * size, OVERSAMPLING * size)
    for i, count in enumerate(rng.poisson(how.neighbours, n)):
        for _ in range(count):
            x, y = rng.uniform(-size / 2, size / 2, 2)
            if math.hypot(x, y) < 0.14 * size:
                continue
            width = rng.choice([0.3, 0.3, 1.2])
            spot = torch.exp(-((line[:, None] - y) ** 2 + (line[None] - x) ** 2) / (2 * width**2))
            slope = 0.3 + 0.25 * rng.standard_normal()  # most are redder than white, as stars and distant galaxies are
            tint = np.exp(slope * np.linspace(1, -1, bands))
            bright = 10 ** (drawn[i, FLUX] + rng.normal(-1.4, 0.5))
            out[i] += OVERSAMPLING**2 * bright * spot / spot.sum().clamp_min(1e-9) * _tensor(tint / tint.mean())[:, None, None]
    return out


def _blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Images convolved with Gaussians of ``sigma`` pixels, one per object."""
    size = images.shape[-1]
    square = torch.fft.fftfreq(size)[:, None] ** 2 + torch.fft.rfftfreq(size)[None] ** 2
    damping = torch.exp(-2 * math.pi**2 * sigma[:, None, None] ** 2 * square)[:, None]
    return torch.fft.irfft2(torch.fft.rfft2(images) * damping, s=images.shape[-2:])


def _seen(images: Tensor, width: Tensor, camera: Imaging) -> Tensor:
    """Images through a point-spread function of a full width of ``width`` pixels, one per object."""
    size = images.shape[-1]
    line = torch.arange(size) - size // 2
    square = (line[:, None] ** 2 + line[None] ** 2).float()[None]
    if camera.psf == "gaussian":
        kernel = torch.exp(-4 * math.log(2) * square / width[:, None, None] ** 2)
    else:
        scale = width[:, None, None] / (2 * math.sqrt(2 ** (1 / camera.beta) - 1))
        kernel = (1 + square / scale**2) ** -camera.beta
    kernel = kernel / kernel.sum((1, 2), keepdim=True)
    transform = torch.fft.rfft2(torch.fft.ifftshift(kernel, dim=(1, 2)))[:, None]
    return torch.fft.irfft2(torch.fft.rfft2(images) * transform, s=(size, size))


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(array, np.float32))
