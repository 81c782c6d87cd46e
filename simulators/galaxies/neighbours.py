"""Stars and small galaxies that happen to lie in the field of a galaxy."""

from dataclasses import dataclass, replace

import numpy as np

from .components import Anatomy, Knots, join

__all__ = ["Neighbours", "draw_neighbours"]

FIELD = 60.0
"""Side [arcsec] of the square around each object in which neighbours are drawn; fields beyond it have none at their rim."""
BRIGHT, FAINT, SLOPE = 14.5, 21.5, 0.28
"""Magnitudes in r between which counts rise as 10^(SLOPE m), as those of stars at high latitude do."""


@dataclass(frozen=True)
class Neighbours:
    """Round sources: points, or Gaussians for small galaxies.

    Attributes:
        object: index of the galaxy in whose field it lies, shape ``(neighbour,)``.
        place: position relative to that galaxy, arcsec, ``(neighbour, 2)``.
        magnitude: in r.
        colour: g - r.
        sigma: size, arcsec; 0 for a star.
    """

    object: np.ndarray
    place: np.ndarray
    magnitude: np.ndarray
    colour: np.ndarray
    sigma: np.ndarray

    def added_to(self, anatomy: Anatomy, magnitude: np.ndarray, width: float) -> Anatomy:
        """The galaxies with their neighbours as further knots.

        Args:
            anatomy: components of the galaxies.
            magnitude: of the galaxies.
            width: side of the stamp, arcsec; what lies farther out than 2 arcsec beyond its edge is left out.
        """
        near = (np.abs(self.place) < 0.5 * width + 2).all(1)
        if not near.any():
            return anatomy
        share = 10 ** (-0.4 * (self.magnitude - magnitude[self.object]))
        more = Knots(self.object[near], share[near], self.colour[near], self.place[near], self.sigma[near])
        return replace(anatomy, knots=join([anatomy.knots, more]))


def draw_neighbours(n: int, density: float, rng: np.random.Generator) -> Neighbours:
    """Neighbours of ``n`` galaxies, ``density`` per square arcmin on average."""
    count = rng.poisson(density * (FIELD / 60) ** 2, n)
    total = int(count.sum())
    steep = SLOPE * np.log(10)
    magnitude = BRIGHT + np.log1p(rng.random(total) * np.expm1(steep * (FAINT - BRIGHT))) / steep
    star = rng.random(total) < 0.65
    colour = np.where(star, rng.uniform(0.2, 1.3, total), rng.normal(0.6, 0.25, total))
    sigma = np.where(star, 0.0, 10 ** rng.normal(-0.2, 0.15, total))
    place = rng.uniform(-0.5 * FIELD, 0.5 * FIELD, (total, 2))
    return Neighbours(np.repeat(np.arange(n), count), place, magnitude, colour, sigma)
