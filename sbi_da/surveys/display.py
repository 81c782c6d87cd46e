r"""Colour composites and the fluxes behind them.

After Lupton et al. (2004, PASP 116, 133): of the bands :math:`b_j` (times the display's scales) and their mean
:math:`I`,

.. math:: c_j = b_j\, f(I) / I,\qquad f(I) = \operatorname{asinh}(Q\, I / s) / Q

with the softening :math:`Q` and the stretch :math:`s`; where a colour exceeds 1, all three are divided by the largest,
which keeps the hue. Negative colours, and pixels with :math:`I \le 0`, are black. As the mean of the colours is
:math:`f(I)`, a composite has the fluxes :math:`b_j = c_j\, I / f(I)` with :math:`I = \sinh(Q \bar c)\, s / Q`: those of
the pixel where nothing was clipped, else the faintest that give the same colours.

Arrays of numpy and tensors of torch are treated alike.
"""

from typing import Any, TypeVar

import numpy as np
import torch

from sbi_da.surveys.imaging import Display

__all__ = ["compose", "decompose", "to_bytes"]

Array = TypeVar("Array", np.ndarray, torch.Tensor)
TINY = 1e-30


def compose(flux: Array, display: Display) -> Array:
    """Colours from 0 to 1 of fluxes, both of shape ``(..., band, y, x)`` with the bands red, green, blue."""
    xp: Any = torch if isinstance(flux, torch.Tensor) else np
    scaled = flux * _scales(flux, display)
    mean = xp.clip(scaled.mean(-3), 0.0, None)[..., None, :, :]
    level = xp.arcsinh(mean * (display.softening / display.stretch)) / display.softening
    colour = xp.clip(scaled * (level / (mean + TINY)), 0.0, None)
    return colour / xp.clip(xp.amax(colour, -3), 1.0, None)[..., None, :, :]


def decompose(colour: Array, display: Display) -> Array:
    """Fluxes that :func:`compose` turns into these colours: from 0 to 1, or bytes; shape ``(..., band, y, x)``."""
    xp: Any = torch if isinstance(colour, torch.Tensor) else np
    if colour.dtype in (np.dtype("u1"), torch.uint8):
        colour = colour / xp.asarray(255.0, dtype=xp.float32)
    level = colour.mean(-3)[..., None, :, :]
    mean = xp.sinh(level * display.softening) * (display.stretch / display.softening)
    return colour * (mean / (level + TINY)) / _scales(colour, display)


def to_bytes(colour: np.ndarray) -> np.ndarray:
    """Colours from 0 to 1 as the nearest bytes."""
    return np.clip(np.rint(colour * 255.0), 0, 255).astype(np.uint8)


def _scales(like: Array, display: Display) -> Any:
    scales = display.scales or (1.0, 1.0, 1.0)
    if isinstance(like, torch.Tensor):
        return torch.tensor(scales, dtype=like.dtype if like.is_floating_point() else torch.float32, device=like.device)[:, None, None]
    return np.asarray(scales, like.dtype if like.dtype.kind == "f" else np.float32)[:, None, None]
