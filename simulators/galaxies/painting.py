r"""Arms, tails, shells and patches, painted in the plane of a disc.

With polar coordinates (r, φ) in scale lengths, an arm follows the logarithmic spiral
:math:`\psi = \varphi - \cot p\,\ln r - \varphi_0 = 0`, and the light is

.. math:: e^{-r/s}\,\bigl[1 - c + c\,e^{\kappa(\cos m\psi - 1)}(1 + a\cos\psi)\bigr]\; e^{\sigma G}\,(1 + \vec l\cdot\vec r/(1+r))

faded within an inner and beyond an outer radius. G is a Gaussian random field of unit variance, a sum of plane waves, and also bends
the arms. Plane waves are products of a function of x and one of y, so G costs one matrix product.
"""

import numpy as np

from .components import Structure

__all__ = ["REACH", "norm", "paint"]

REACH = 6.5
"""Radius in scale lengths within which all the light of a structure lies, but for a thousandth."""
NORM = np.linspace(-REACH, REACH, 72, dtype=np.float32)
"""Grid in the plane on which the flux of a painted structure is summed, the same for all surveys."""
SHELLS = (1.4, 2.1, 2.9, 3.8)
IDENTITY = np.eye(2)


def paint(structure: Structure, row: int, x: np.ndarray, y: np.ndarray, to_plane: np.ndarray | None = None) -> np.ndarray:
    """Surface brightness on the grid ``(y, x)`` [arcsec from the stamp's centre], not normalised, float32.

    Args:
        structure: the structures.
        row: which one.
        x: coordinates of the columns.
        y: coordinates of the rows.
        to_plane: matrix to the plane in place of the structure's own; the grid is then relative to the structure.
    """
    if to_plane is None:
        to_plane = np.linalg.inv(structure.matrix[row])
        x, y = x - structure.centre[row, 0], y - structure.centre[row, 1]
    to_plane = to_plane.astype(np.float32)
    x, y = x.astype(np.float32), y.astype(np.float32)
    u = to_plane[0, 0] * x + (to_plane[0, 1] * y)[:, None]
    v = to_plane[1, 0] * x + (to_plane[1, 1] * y)[:, None]
    r = np.sqrt(u * u + v * v + np.float32(1e-6))
    if structure.shells[row]:
        return _shells(u / r, r)
    names = ("arms", "winding", "phase", "sharpness", "contrast", "asymmetry", "scale", "inner", "outer", "texture", "wobble")
    arms, winding, phase, kappa, contrast, asymmetry, scale, inner, outer, texture, wobble = (
        np.float32(getattr(structure, n)[row]) for n in names
    )
    field = _field(structure.waves[row], to_plane, x, y) if texture or wobble else np.float32(0.0)
    exponent = texture * field - r / scale
    light = np.exp(exponent)
    if contrast:
        psi = np.arctan2(v, u) - winding * np.log(r) - phase + wobble * field
        arm = np.exp(kappa * (np.cos(arms * psi) - 1))
        if asymmetry:
            arm *= 1 + asymmetry * np.cos(psi)
        light *= (1 - contrast) + contrast * arm
    if inner:
        light /= 1 + np.exp((inner - r) * np.float32(8))
    light /= 1 + np.exp(np.minimum((r - outer) * np.float32(4), 60))
    lopsided = structure.lopsided[row]
    if lopsided.any():
        light *= np.maximum(1 + (np.float32(lopsided[0]) * u + np.float32(lopsided[1]) * v) / (1 + r), 0)
    return light


def norm(structure: Structure, row: int) -> float:
    """Integral of a structure's surface brightness over the sky, in units of :func:`paint` times arcsec squared."""
    cell = float(NORM[1] - NORM[0]) ** 2
    return float(paint(structure, row, NORM, NORM, IDENTITY).sum()) * cell * abs(float(np.linalg.det(structure.matrix[row])))


def _field(waves: np.ndarray, to_plane: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    k = (to_plane.T @ waves[:2]).astype(np.float32)
    along_x = np.exp(1j * (k[0][:, None] * x)).astype(np.complex64)
    along_y = np.exp(1j * (k[1][:, None] * y + waves[2].astype(np.float32)[:, None])).astype(np.complex64)
    # Real part of the product, in real arithmetic.
    left = np.concatenate([along_y.real, -along_y.imag])
    right = np.concatenate([along_x.real, along_x.imag])
    return np.float32(np.sqrt(2 / waves.shape[1])) * (left.T @ right)


def _shells(cosine: np.ndarray, r: np.ndarray) -> np.ndarray:
    light = 0.15 * np.exp(-r)
    for k, edge in enumerate(SHELLS):
        wedge = np.maximum(cosine if k % 2 else -cosine, 0) ** 2
        rim = np.exp(np.minimum(r - edge, 0) / np.float32(0.35)) / (1 + np.exp(np.minimum((r - edge) * np.float32(30), 60)))
        light += wedge * rim * np.float32(0.5**k)
    return light.astype(np.float32)
