r"""What a galaxy is made of: smooth components, painted structures and knots, as rows that say which object they belong to.

A smooth component is a Sérsic profile of unit half-light radius carried to the sky by a matrix (columns in arcsec): rotation,
inclination and size in one. A disc of finite thickness is a thin inclined one blurred along its minor axis by the vertical
profile :math:`\mathrm{sech}^2(z/z_0)` seen at inclination i, exact for profiles that separate in (R, z). Fluxes are shares of the
object's flux in r.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
from scipy.special import gammainc, gammaincinv

__all__ = ["Anatomy", "Knots", "Smooth", "Structure", "disc_size", "join", "oblate", "plane", "vertical"]


@dataclass(frozen=True)
class Rows:
    """Rows of components.

    Attributes:
        object: index of the galaxy, shape ``(row,)``.
        share: of its flux in r, negative for what dust takes away.
        colour: g - r, mag.
        centre: position on the sky relative to the stamp's centre, arcsec, shape ``(row, 2)``.
    """

    object: np.ndarray
    share: np.ndarray
    colour: np.ndarray
    centre: np.ndarray


@dataclass(frozen=True)
class Smooth(Rows):
    """Sérsic profiles.

    Attributes:
        matrix: from the plane in half-light radii to the sky in arcsec, ``(row, 2, 2)``.
        vertical: scale height seen on the sky, arcsec along the minor axis, ``(row, 2)``.
        index: Sérsic index.
    """

    matrix: np.ndarray
    vertical: np.ndarray
    index: np.ndarray


@dataclass(frozen=True)
class Structure(Rows):
    """Painted light in a disc: arms, tails, shells, patches. Lengths in units of the disc's scale length.

    Attributes:
        matrix: from the plane to the sky in arcsec.
        vertical: as for :class:`Smooth`.
        arms: their number; tails are a single arm.
        winding: cotangent of the pitch angle, with the sense of rotation.
        phase: position angle of the first arm at unit radius, rad.
        sharpness: concentration of an arm in angle (of a von Mises law).
        contrast: how much of the light the arms shape, from 0 (none) to 1 (all).
        asymmetry: relative strength of the first arm over its opposite.
        scale: e-folding radius.
        inner: radius within which the light fades out.
        outer: radius beyond which it does.
        lopsided: strength of the dipole ``(row, 2)``.
        texture: standard deviation of the logarithm of the patchiness.
        wobble: irregularity of the arms, rad.
        shells: 1 for shells in place of all this.
        waves: wave vector x, y and phase of the plane waves the patchiness is made of, ``(row, 3, wave)``.
    """

    matrix: np.ndarray
    vertical: np.ndarray
    arms: np.ndarray
    winding: np.ndarray
    phase: np.ndarray
    sharpness: np.ndarray
    contrast: np.ndarray
    asymmetry: np.ndarray
    scale: np.ndarray
    inner: np.ndarray
    outer: np.ndarray
    lopsided: np.ndarray
    texture: np.ndarray
    wobble: np.ndarray
    shells: np.ndarray
    waves: np.ndarray


@dataclass(frozen=True)
class Knots(Rows):
    """Star-forming regions: round Gaussians of standard deviation ``sigma`` [arcsec]."""

    sigma: np.ndarray


R = TypeVar("R", bound=Rows)


def join(parts: Sequence[R]) -> R:
    """All rows, in the order of the objects; those without light are left out."""
    whole = {f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(parts[0])}
    kept = np.flatnonzero(whole["share"] != 0)
    order = kept[np.argsort(whole["object"][kept], kind="stable")]
    return replace(parts[0], **{name: column[order] for name, column in whole.items()})


@dataclass(frozen=True)
class Anatomy:
    """The components of a set of galaxies."""

    smooth: Smooth
    structure: Structure
    knots: Knots

    @property
    def rows(self) -> tuple[Smooth, Structure, Knots]:
        """The three kinds of components."""
        return self.smooth, self.structure, self.knots


def plane(angle: np.ndarray, flattening: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Matrices ``(n, 2, 2)`` that flatten a plane, scale it to ``size`` [arcsec] and turn it by ``angle`` [rad]."""
    c, s = np.cos(angle), np.sin(angle)
    q = np.broadcast_to(flattening, c.shape)
    turned = np.stack([np.stack([c, -s * q], -1), np.stack([s, c * q], -1)], -2)
    return turned * np.broadcast_to(size, c.shape)[:, None, None]


def vertical(angle: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Vectors ``(n, 2)`` of length ``height`` along the minor axis."""
    return np.stack([-np.sin(angle) * height, np.cos(angle) * height], -1)


def oblate(cos_i: np.ndarray, thickness: np.ndarray) -> np.ndarray:
    """Axis ratio on the sky of an oblate spheroid of intrinsic axis ratio ``thickness``."""
    return np.sqrt(cos_i**2 + thickness**2 * (1 - cos_i**2))


def disc_size(bulge_to_total: np.ndarray, index: np.ndarray, ratio: np.ndarray) -> np.ndarray:
    """Half-light radius of the disc over that of the whole, seen face-on.

    Args:
        bulge_to_total: share of the bulge.
        index: its Sérsic index.
        ratio: half-light radius of the bulge over that of the disc.
    """
    steep, flat = gammaincinv(2 * index, 0.5), gammaincinv(2.0, 0.5)
    low, high = np.full(np.shape(index), 0.5), np.maximum(2.0, 2.0 / ratio)
    for _ in range(40):
        x = np.sqrt(low * high)
        bulge, disc = gammainc(2 * index, steep * (1 / (ratio * x)) ** (1 / index)), gammainc(2.0, flat / x)
        within = bulge_to_total * bulge + (1 - bulge_to_total) * disc
        low, high = np.where(within > 0.5, x, low), np.where(within > 0.5, high, x)
    return np.sqrt(low * high)
