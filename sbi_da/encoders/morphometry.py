r"""What astronomers measure of a galaxy's image: size, flattening, concentration, colours, asymmetry, sky; a batch at a time, in torch.

Pixels brighter than the sky by two standard deviations (of an image smoothed by one pixel) and connected to the centre are the galaxy.
Its centre and shape are moments weighted by :math:`\sqrt{f}`, so that the outskirts count; radii are elliptical and hold 20, 50 and 80 %
of its flux (concentration :math:`\log_{10} r_{80}/r_{20}`, as of Kent 1985; asymmetry after Conselice 2003, ApJS 147, 1). Logarithms
throughout; nothing here is trained.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["NAMES", "measure", "summary_count"]

NAMES = ("log_flux", "log_radius", "axis_ratio", "concentration", "asymmetry", "surface_brightness", "sky", "noise", "area", "peak")
"""Of the mean over bands; then follow the logarithms of the fluxes of all bands relative to that of the middle one."""
CONNECTED = 20
"""Steps of growth from the centre, of two pixels each."""
RINGS = 128
"""Of the growth curve."""


def summary_count(bands: int) -> int:
    """Number of summaries of images in so many bands."""
    return len(NAMES) + bands - 1


def measure(flux: Tensor) -> Tensor:
    """Measure.

    Args:
        flux: linear, shape ``(object, band, y, x)``.

    Returns:
        Shape ``(object, summary)``: :data:`NAMES`, then colours. Finite whatever the image; where nothing stands out at the centre, of
        the pixels about it.
    """
    with torch.no_grad():
        return _measured(flux.float())


def _measured(flux: Tensor) -> Tensor:
    n, bands, height, width = flux.shape
    mean = flux.mean(1)
    border = _border(mean)
    sky = border.median(1).values
    noise = 1.4826 * (border - sky[:, None]).abs().median(1).values
    noise = noise.clamp_min(1e-6 * mean.abs().amax((1, 2)).clamp_min(1e-12))
    mask = _connected(_smooth(mean) > (sky + 2 * noise)[:, None, None])
    light = torch.where(mask, (mean - sky[:, None, None]).clamp_min(0), 0.0).flatten(1)
    total = light.sum(1).clamp_min(1e-12)
    lines = [torch.arange(side, device=flux.device) - (side - 1) / 2 for side in (height, width)]
    y, x = torch.meshgrid(*lines, indexing="ij")
    x, y = x.flatten()[None], y.flatten()[None]
    dx, dy = x - (light * x).sum(1, keepdim=True) / total[:, None], y - (light * y).sum(1, keepdim=True) / total[:, None]
    weight = light.sqrt()
    norm = weight.sum(1).clamp_min(1e-12)
    xx, yy, xy = ((weight * a * b).sum(1) / norm for a, b in ((dx, dx), (dy, dy), (dx, dy)))
    half = torch.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    major, minor = ((xx + yy) / 2 + half).clamp_min(1e-3), ((xx + yy) / 2 - half).clamp_min(1e-3)
    ratio = (minor / major).sqrt().clamp(0.05, 1.0)
    angle = 0.5 * torch.atan2(2 * xy, xx - yy)[:, None]
    along, across = dx * angle.cos() + dy * angle.sin(), dy * angle.cos() - dx * angle.sin()
    radius = torch.sqrt(along**2 * ratio[:, None] + across**2 / ratio[:, None])
    step = math.hypot(height, width) / RINGS
    ring = (radius / step).long().clamp_max(RINGS - 1)
    grown = torch.zeros(n, RINGS, dtype=light.dtype, device=light.device).scatter_add_(1, ring, light).cumsum(1) / total[:, None]
    r20, r50, r80 = (_radius(grown, share) * step for share in (0.2, 0.5, 0.8))
    turned = _smooth((mean - mean.flip((1, 2))).abs()).flatten(1)
    asymmetry = (turned * mask.flatten(1)).sum(1) / (2 * total)
    within = (radius < r50[:, None]) & mask.flatten(1)
    brightness = (light * within).sum(1) / within.sum(1).clamp_min(1)
    scale = total / mask.flatten(1).sum(1).clamp_min(1)
    inside = mask[:, None].expand(-1, bands, -1, -1)
    low = _border(flux).median(-1).values[..., None, None]
    each = torch.where(inside, (flux - low).clamp_min(0), 0.0).sum((2, 3)).clamp_min(1e-6 * total[:, None])
    colours = (each / each[:, bands // 2, None]).log()
    kept = [k for k in range(bands) if k != bands // 2]
    found = torch.stack(
        [
            total.log10(), r50.clamp_min(0.3).log10(), ratio, (r80.clamp_min(0.5) / r20.clamp_min(0.2)).log10(), asymmetry.clamp_max(2.0),
            brightness.clamp_min(1e-12).log10(), torch.asinh(sky / noise.clamp_min(1e-12) / 10), (noise / scale).clamp_min(1e-6).log10(),
            mask.flatten(1).float().mean(1), (mean.amax((1, 2)) / scale.clamp_min(1e-12)).clamp_min(1e-3).log10(),
        ],
        dim=1,
    )
    return torch.nan_to_num(torch.cat([found, colours[:, kept].clamp(-3, 3)], 1), nan=0.0, posinf=0.0, neginf=0.0)


def _border(images: Tensor) -> Tensor:
    """Pixels within five of the edge, those in the corners twice; shape ``(..., pixel)``."""
    sides = (images[..., :5, :], images[..., -5:, :], images[..., :5], images[..., -5:])
    return torch.cat([side.flatten(-2) for side in sides], -1)


def _smooth(images: Tensor, sigma: float = 1.0) -> Tensor:
    """Images ``(object, y, x)`` convolved with a Gaussian."""
    reach = math.ceil(3 * sigma)
    line = torch.exp(-0.5 * (torch.arange(-reach, reach + 1, dtype=images.dtype, device=images.device) / sigma) ** 2)
    line = line / line.sum()
    padded = functional.pad(images[:, None], (reach, reach, reach, reach), mode="replicate")
    return functional.conv2d(functional.conv2d(padded, line.view(1, 1, 1, -1)), line.view(1, 1, -1, 1))[:, 0]


def _radius(grown: Tensor, share: float) -> Tensor:
    """Where a growth curve ``(object, ring)`` reaches a share, in rings, linear within them; shape ``(object,)``."""
    reached = (grown < share).sum(1, keepdim=True).clamp_max(grown.shape[1] - 1)
    above = grown.gather(1, reached)
    below = torch.where(reached > 0, grown.gather(1, (reached - 1).clamp_min(0)), 0.0)
    return (reached + ((share - below) / (above - below).clamp_min(1e-9)).clamp(0, 1))[:, 0]


def _connected(bright: Tensor) -> Tensor:
    """The part of a mask ``(object, y, x)`` that hangs together with the centre, which is always in; followed in blocks of 2x2 pixels."""
    height, width = bright.shape[1:]
    seed = torch.zeros_like(bright)
    seed[:, height // 2 - 2 : height // 2 + 2, width // 2 - 2 : width // 2 + 2] = True
    allowed = functional.max_pool2d((bright | seed).float()[:, None], 2, ceil_mode=True)
    part = functional.max_pool2d(seed.float()[:, None], 2, ceil_mode=True)
    for _ in range(CONNECTED):
        part = functional.max_pool2d(part, 3, stride=1, padding=1) * allowed
    whole = functional.interpolate(part, scale_factor=2.0, mode="nearest")[:, 0, :height, :width] > 0
    return whole & (bright | seed)
