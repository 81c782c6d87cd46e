"""How mergers are put together: two galaxies, their tidal tails and a bridge, or the shells of a dry encounter.

Forms as in Toomre & Toomre (1972, ApJ 178, 623) and Quinn (1984, ApJ 279, 596). The parameters ``half_light_radius``,
``bulge_to_total``, ``sersic_n`` and ``inclination`` are those of the primary; ``magnitude`` is that of the pair.
"""

from collections.abc import Mapping

import numpy as np

from .anatomy import EXPONENTIAL, KNOTS, Parts, knots, patches, smooth
from .components import disc_size, oblate, plane
from .population import Population

__all__ = ["merger"]


def merger(theta: Mapping[str, np.ndarray], rng: np.random.Generator, population: Population) -> Parts:
    """Two nuclei within a few half-light radii of each other, in what they have torn out."""
    n = len(theta["magnitude"])
    radius = theta["half_light_radius"]
    second = rng.uniform(0.22, 0.5, n)
    wet = rng.random(n) < 0.7
    colour = np.where(wet, 0.52, 0.80) + rng.normal(0, 0.06, n) + population.colour_offset
    toward = rng.uniform(0, 2 * np.pi, n)
    apart = radius * rng.uniform(0.9, 2.6, n)
    axis = np.stack([np.cos(toward), np.sin(toward)], -1)
    # The light's centre lies between the nuclei.
    centres = -axis * (second * apart)[:, None], axis * ((1 - second) * apart)[:, None]
    shells = ~wet & (rng.random(n) < 0.6)
    torn = np.where(wet, rng.uniform(0.16, 0.36, n), rng.uniform(0.06, 0.16, n))
    clumps = np.where(wet, np.minimum(population.clumpiness * rng.uniform(0, 0.10, n), 0.2), 0.0)
    bridge = np.where(shells, 0.0, rng.uniform(0.02, 0.06, n))
    bodies = 1 - torn - clumps - bridge
    parts: Parts = []
    for which, centre in enumerate(centres):
        share = second if which else 1 - second
        size = radius * (np.sqrt(second / (1 - second)) * rng.uniform(0.7, 1.1, n) if which else 1.0)
        cos_i = rng.random(n) if which else np.cos(np.radians(theta["inclination"]))
        bulge = np.clip(theta["bulge_to_total"] + (rng.normal(0, 0.15, n) if which else 0.0), 0.05, 0.95)
        index = np.clip(theta["sersic_n"] + (rng.normal(0, 0.5, n) if which else 0.0), 0.8, 6.0)
        ratio = rng.uniform(0.25, 0.5, n)
        disc = size * disc_size(bulge, index, ratio)
        angle = rng.uniform(0, 2 * np.pi, n)
        flat = oblate(cos_i, np.full(n, 0.3))
        body = bodies * share
        frame = plane(angle, np.maximum(flat, 0.35), disc / EXPONENTIAL)
        # A tail leaves on the side away from the companion; its position angle is one in the plane.
        away = np.einsum("nij,nj->ni", np.linalg.inv(frame), axis if which else -axis)
        start = np.arctan2(away[:, 1], away[:, 0]) + rng.normal(0, 0.4, n)
        winding = rng.choice([-1, 1], n) / np.tan(np.radians(rng.uniform(32, 60, n)))
        patchy = np.where(wet, rng.uniform(0.2, 0.45, n), 0.0) * body * (1 - bulge)
        dipole = rng.uniform(0, 2 * np.pi, n)
        parts += [
            smooth(body * bulge, colour + np.where(wet, 0.18, 0.05), plane(angle, np.maximum(flat, 0.6), ratio * disc), index, centre),
            smooth(body * (1 - bulge) - patchy, colour, plane(angle, flat, disc), 1.0, centre),
            patches(
                rng, patchy, colour - 0.12, frame, centre=centre, texture=0.9 * population.clumpiness, contrast=0.7, arms=1,
                winding=winding, phase=start, sharpness=1.5, wobble=0.4, scale=1.2, outer=3.0,
                lopsided=0.6 * np.stack([np.cos(dipole), np.sin(dipole)], -1),
            ),
            patches(
                rng, np.where(shells, 0.0, torn * share), colour - np.where(wet, 0.08, 0.02), frame, centre=centre, contrast=1.0, arms=1,
                winding=winding, phase=start - np.log(1.5) * winding, sharpness=rng.uniform(9, 30, n), scale=rng.uniform(2.0, 3.5, n),
                inner=1.3, outer=rng.uniform(4.0, 6.0, n), texture=0.25, wobble=0.08,
            ),
        ]
    wide = plane(toward, 0.7 + 0.3 * rng.random(n), radius)
    shell = patches(rng, np.where(shells, torn, 0.0), colour - 0.03, wide, centre=centres[0], shells=1.0)
    parts += [
        shell,
        smooth(bridge, colour - 0.05, plane(toward, np.full(n, 0.3), 0.45 * apart), 0.5, 0.5 * (centres[0] + centres[1])),
    ]
    spread = rng.normal(0, 0.6, (n, KNOTS, 2)) * radius[:, None, None]
    host = rng.random((n, KNOTS, 1)) < second[:, None, None]
    place = spread + np.where(host, centres[1][:, None], centres[0][:, None])
    parts.append(knots(rng, clumps, colour - 0.3, place, 0.08 * radius))
    return parts
