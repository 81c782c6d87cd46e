r"""Transformed copies of images.

What leaves the class of a galaxy as it is: a turn, a mirror image, a shift, another distance, worse seeing, a shallower
exposure. All are drawn for each object and applied to the whole batch at once. A Gaussian of standard deviation
:math:`\sigma` pixels multiplies the Fourier transform at frequency :math:`f` by :math:`e^{-2\pi^2\sigma^2 f^2}`.

Everything random comes from one :class:`torch.Generator`: the same state and images give the same result.
"""

import math
from collections.abc import Callable
from typing import Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.fft import next_fast_len
from torch import Tensor
from torch.nn import functional

from sbi_da.errors import SbiDaError

__all__ = ["Augmentation", "augment"]

REACH = 4.71
"""Standard deviations of a Gaussian that are added at an edge: two full widths at half maximum."""
Range = tuple[float, float]


class Augmentation(BaseModel):
    """How images are transformed at random.

    Attributes:
        rotate: ``quarter``: by multiples of 90 degrees, exactly; ``any``: by any angle, pixels interpolated; ``none``.
        flip: half of the objects are mirrored.
        zoom: range of the magnification.
        shift: largest shift along each axis, pixels.
        psf: range of the standard deviation of a Gaussian the images are convolved with, pixels.
        noise: range of the standard deviation of noise added to each pixel, in the pixels' unit.
        brightness: standard deviation of the logarithm of a factor on all bands.
        colour: standard deviation of the logarithm of a factor on each band.
        grey: share of the objects that show the mean over bands in all of them.
        hide: share of the objects in which a square of a fifth of the side, anywhere, is blank.
        crop: pixels on a side of the central part that is kept; all if None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rotate: Literal["none", "quarter", "any"] = "quarter"
    flip: bool = True
    zoom: Range = (1.0, 1.0)
    shift: float = Field(0.0, ge=0)
    psf: Range = (0.0, 0.0)
    noise: Range = (0.0, 0.0)
    brightness: float = Field(0.0, ge=0)
    colour: float = Field(0.0, ge=0)
    grey: float = Field(0.0, ge=0, le=1)
    hide: float = Field(0.0, ge=0, le=1)
    crop: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _check(self) -> "Augmentation":
        for name, least in (("zoom", 0.25), ("psf", 0.0), ("noise", 0.0)):
            low, high = getattr(self, name)
            if not least <= low <= high:
                raise ValueError(f"{name} needs a range from at least {least:g} upwards, not [{low:g}, {high:g}]")
        return self

    @property
    def interpolates(self) -> bool:
        """Whether pixels of the result lie between those of the images."""
        return self.rotate == "any" or self.zoom != (1.0, 1.0) or self.shift > 0


def augment(images: Tensor, how: Augmentation, generator: torch.Generator, present: Tensor | None = None) -> Tensor:
    """A transformed copy of each image.

    Beyond its edge an image goes on as its last pixels do: black corners would tell a turned image from others, and a
    mirror image would show the galaxy twice.

    Args:
        images: shape ``(object, band, y, x)``, floating point.
        how: what is drawn.
        generator: of all that is drawn.
        present: bands that are there, boolean of shape ``(object, band)``; the others are left as they are.

    Returns:
        Shape ``(object, band, y, x)``, smaller where ``how.crop`` says so.

    Raises:
        SbiDaError: images that are not square are to be turned, or smaller than the crop.
    """
    n, bands, height, width = images.shape
    if how.rotate != "none" and height != width:
        raise SbiDaError(f"images of {height} x {width} pixels cannot be turned: crop them to squares or set rotate: none")
    if how.crop is not None and how.crop > min(height, width):
        raise SbiDaError(f"images of {height} x {width} pixels cannot be cropped to {how.crop}: choose a smaller crop")
    given = images
    if how.rotate == "quarter":
        turns = torch.randint(4, (n,), generator=generator, device=generator.device).to(images.device)
        images = _by_group(images, turns, lambda x, k: torch.rot90(x, k, (2, 3)))
    if how.flip:
        flipped = (_uniform(n, (0.0, 1.0), generator, images) < 0.5).long()
        images = _by_group(images, flipped, lambda x, k: x.flip(3) if k else x)
    if how.interpolates:
        images = _resample(images, how, generator)
    if how.psf[1] > 0:
        images = _blurred(images, _uniform(n, how.psf, generator, images))
    if how.brightness > 0 or how.colour > 0:
        log = how.brightness * _normal((n, 1), generator, images) + how.colour * _normal((n, bands), generator, images)
        images = images * log.exp()[..., None, None]
    if how.grey > 0:
        chosen = _uniform(n, (0.0, 1.0), generator, images) < how.grey
        images = torch.where(chosen[:, None, None, None], _grey(images, present), images)
    if how.noise[1] > 0:
        sigma = _uniform(n, how.noise, generator, images)
        images = images + sigma[:, None, None, None] * _normal(images.shape, generator, images)
    if how.hide > 0:
        chosen = _uniform(n, (0.0, 1.0), generator, images) < how.hide
        images = torch.where((chosen[:, None, None] & _square(images, generator))[:, None], 0.0, images)
    if present is not None:
        images = torch.where(present[..., None, None], images, given)
    if how.crop is not None:
        top, left = (height - how.crop) // 2, (width - how.crop) // 2
        images = images[..., top : top + how.crop, left : left + how.crop]
    return images


def _grey(images: Tensor, present: Tensor | None) -> Tensor:
    """The mean over the bands that are there, in every band."""
    if present is None:
        return images.mean(1, keepdim=True).expand_as(images)
    there = present.to(images.dtype)[..., None, None]
    return ((images * there).sum(1, keepdim=True) / there.sum(1, keepdim=True).clamp_min(1)).expand_as(images)


def _square(images: Tensor, generator: torch.Generator) -> Tensor:
    """A square somewhere in each image, boolean of shape ``(object, y, x)``."""
    n, _, height, width = images.shape
    side = max(1, min(height, width) // 5)
    inside = []
    for length in (height, width):
        start = (_uniform(n, (0.0, 1.0), generator, images) * (length - side + 1)).floor()[:, None]
        line = torch.arange(length, device=images.device)[None]
        inside.append((line >= start) & (line < start + side))
    return inside[0][:, :, None] & inside[1][:, None, :]


def _by_group(images: Tensor, group: Tensor, transform: Callable[[Tensor, int], Tensor]) -> Tensor:
    result = torch.empty_like(images)
    for k in group.unique().tolist():
        chosen = group == k
        result[chosen] = transform(images[chosen], k)
    return result


def _resample(images: Tensor, how: Augmentation, generator: torch.Generator) -> Tensor:
    n, _, height, width = images.shape
    angle = _uniform(n, (0.0, 2 * math.pi if how.rotate == "any" else 0.0), generator, images)
    zoom = _uniform(n, (math.log(how.zoom[0]), math.log(how.zoom[1])), generator, images).exp()
    shift = [_uniform(n, (-how.shift, how.shift), generator, images) * 2 / size for size in (width, height)]
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    aspect = height / width  # the grid's coordinates run from -1 to 1 along either axis
    rows = [torch.stack([cos, -sin * aspect, shift[0]], 1), torch.stack([sin / aspect, cos, shift[1]], 1)]
    grid = functional.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _blurred(images: Tensor, sigma: Tensor) -> Tensor:
    """Images convolved with Gaussians of ``sigma`` pixels, one per object; what lies beyond an edge is a reflection."""
    height, width = images.shape[-2:]
    y, x = (_margin(side, REACH * float(sigma.max())) for side in (height, width))
    padded = functional.pad(images, (x, x, y, y), mode="reflect")
    size = [height + 2 * y, width + 2 * x]
    rows, columns = torch.fft.fftfreq(size[0], dtype=images.dtype), torch.fft.rfftfreq(size[1], dtype=images.dtype)
    square = (rows[:, None] ** 2 + columns**2).to(images.device)
    transfer = torch.exp(-2 * (math.pi * sigma[:, None, None, None]) ** 2 * square)
    result = torch.fft.irfft2(torch.fft.rfft2(padded) * transfer, s=size)
    return result[..., y : y + height, x : x + width]


def _margin(side: int, reach: float) -> int:
    """Pixels to add at either end: as far as the profile reaches, and to a length whose Fourier transform is quick."""
    least = min(side - 1, math.ceil(reach) + 1)
    return next((m for m in range(least, side) if next_fast_len(side + 2 * m, real=True) == side + 2 * m), least)


def _uniform(n: int, bounds: Range, generator: torch.Generator, like: Tensor) -> Tensor:
    draw = torch.rand(n, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)
    return bounds[0] + (bounds[1] - bounds[0]) * draw


def _normal(shape: tuple[int, ...] | torch.Size, generator: torch.Generator, like: Tensor) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)
