r"""Two simulated galaxies laid over each other and bent, somewhat as mergers and chance alignments show them.

A second galaxy is turned, scaled and moved, and its light added: fluxes, before noise and seeing. Its share of the light, its size and its
distance are drawn; the common centre of light is in the middle. Then a wave of shear bends the pair as tides might,

.. math:: \mathbf x \mapsto \mathbf x + a \sin(k\, \mathbf x \cdot \mathbf n + \varphi)\, \mathbf n_\perp

in half-light radii, which leaves all areas, and so all fluxes, as they are (and moves the centre of light, by 0.15 in the median).
"""

import math

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor
from torch.nn import functional

from sbi_da.encoders.morphometry import NAMES, measure
from sbi_da.errors import SbiDaError

__all__ = ["Blending", "blended"]

RADIUS = NAMES.index("log_radius")
CHUNK = 256
WAVES = (0.5, 1.6)
Range = tuple[float, float]


class Blending(BaseModel):
    """What is drawn of a pair.

    Attributes:
        flux_ratio: of the second galaxy's light to the first's, uniform in the logarithm; a fourth or more makes a merger a major one.
        separation: of the centres, in half-light radii of the first, uniform.
        zoom: of the second galaxy, uniform in the logarithm.
        bend: largest amplitude :math:`a`, which is uniform from 0; :math:`k` is uniform between 0.5 and 1.6, all angles are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    flux_ratio: Range = (0.25, 1.0)
    separation: Range = (0.7, 3.0)
    zoom: Range = (0.6, 1.3)
    bend: float = Field(1.5, ge=0)

    @model_validator(mode="after")
    def _check(self) -> "Blending":
        for name in ("flux_ratio", "separation", "zoom"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} needs a range of positive numbers, not [{low:g}, {high:g}]")
        return self


def blended(flux: Tensor, how: Blending, rng: np.random.Generator) -> Tensor:
    """Every galaxy with another one laid over it, and bent.

    Args:
        flux: galaxies without sky, linear, shape ``(object, band, y, x)``.
        how: what is drawn.
        rng: source of chance.

    Returns:
        Same shape; the bands of each galaxy keep their ratios.

    Raises:
        SbiDaError: fewer than two galaxies.
    """
    n = len(flux)
    if n < 2:
        raise SbiDaError("blending needs two galaxies or more")
    order = rng.permutation(n)
    partner = np.empty(n, int)
    partner[order] = np.roll(order, 1)  # nobody's partner is itself
    ratio, zoom = (np.exp(rng.uniform(math.log(low), math.log(high), n)) for low, high in (how.flux_ratio, how.zoom))
    radius = 10 ** torch.cat([measure(part) for part in flux.split(CHUNK)])[:, RADIUS].double().numpy()
    apart, toward, turn = rng.uniform(*how.separation, n) * radius, rng.uniform(0, 2 * math.pi, n), rng.uniform(0, 2 * math.pi, n)
    direction = np.stack([np.cos(toward), np.sin(toward)], 1) * apart[:, None]
    second = (ratio / (1 + ratio))[:, None]
    made = []
    for rows in np.array_split(np.arange(n), -(-n // CHUNK)):
        first = _moved(flux[rows], -(second * direction)[rows], np.zeros(len(rows)), np.ones(len(rows)))
        other = _moved(flux[partner[rows]], ((1 - second) * direction)[rows], turn[rows], zoom[rows])
        pair = first + other * (_tensor(ratio[rows]) * _light(flux[rows]) / _light(other))[:, None, None, None]
        made.append(_bent(pair, radius[rows], how.bend, rng) if how.bend else pair)
    return torch.cat(made)


def _bent(flux: Tensor, radius: np.ndarray, largest: float, rng: np.random.Generator) -> Tensor:
    """Images sheared by a wave each; ``radius`` in pixels, shape ``(object,)``."""
    n, (height, width) = len(flux), flux.shape[-2:]
    angle, phase = (rng.uniform(0, 2 * math.pi, n)[:, None, None] for _ in range(2))
    amplitude, number = (rng.uniform(*bounds, n)[:, None, None] for bounds in ((0.0, largest), WAVES))
    y, x = np.mgrid[:height, :width] - np.array([(height - 1) / 2, (width - 1) / 2])[:, None, None]
    scale = radius[:, None, None]
    moved = amplitude * scale * np.sin(number * (x * np.cos(angle) + y * np.sin(angle)) / scale + phase)
    grid = np.stack([(x - moved * np.sin(angle)) * 2 / width, (y + moved * np.cos(angle)) * 2 / height], -1)
    return functional.grid_sample(flux, _tensor(grid), mode="bilinear", padding_mode="zeros", align_corners=False)


def _moved(flux: Tensor, shift: np.ndarray, turn: np.ndarray, zoom: np.ndarray) -> Tensor:
    """Images turned, enlarged, and then moved by ``shift`` pixels in x and y; black beyond their edges."""
    height, width = flux.shape[-2:]
    cos, sin = np.cos(turn) / zoom, np.sin(turn) / zoom
    x, y = 2 * shift[:, 0] / width, 2 * shift[:, 1] / height
    aspect = height / width
    rows = [
        np.stack([cos, -sin * aspect, -(cos * x - sin * aspect * y)], 1),
        np.stack([sin / aspect, cos, -(sin / aspect * x + cos * y)], 1),
    ]
    grid = functional.affine_grid(_tensor(np.stack(rows, 1)), list(flux.shape), align_corners=False)
    return functional.grid_sample(flux, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def _light(flux: Tensor) -> Tensor:
    return flux.sum((1, 2, 3)).clamp_min(1e-12)


def _tensor(array: np.ndarray) -> Tensor:
    return torch.from_numpy(np.asarray(array, np.float32))
