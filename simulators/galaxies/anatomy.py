"""How ellipticals, irregulars and spirals are put together.

Everything the parameters do not fix (position angles, thicknesses, arms, bars, patches, knots, colours) is drawn here, once
per object, so that all surveys see the same galaxy. Colours are g - r as seen in r < 17.8 samples.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .components import Knots, Smooth, Structure, disc_size, oblate, plane, vertical
from .population import Population

__all__ = ["Parts", "elliptical", "irregular", "knots", "nothing", "patches", "smooth", "spiral"]

Parts = list[Smooth | Structure | Knots]
EXPONENTIAL = 1.67835
"""Half-light radius of an exponential disc in scale lengths."""
KNOTS = 12
WAVES = 28


def smooth(
    share: np.ndarray, colour: np.ndarray, matrix: np.ndarray, index: Any,
    centre: np.ndarray | float = 0.0, up: np.ndarray | float = 0.0,
) -> Smooth:
    """One smooth component for each of ``n`` objects; ``index``, ``centre`` and ``up`` (vertical) broadcast."""
    n = len(share)
    two = [np.broadcast_to(v, (n, 2)).astype(float) for v in (centre, up)]
    return Smooth(np.arange(n), share, np.broadcast_to(colour, n), two[0], matrix, two[1], np.broadcast_to(index, n).astype(float))


def patches(rng: np.random.Generator, share: np.ndarray, colour: np.ndarray, matrix: np.ndarray, **more: Any) -> Structure:
    """One structure for each of ``n`` objects; by default an exponential disc without arms, patches of ``grain`` scale lengths."""
    n = len(share)
    finest, coarsest = more.pop("grain", (0.8, 3.5))
    wavelength = finest * (coarsest / finest) ** rng.random((n, WAVES))
    # Directions spread evenly: few waves along one line would show as stripes.
    angle = np.pi / WAVES * (np.arange(WAVES) + rng.random((n, WAVES))) + rng.uniform(0, np.pi, (n, 1))
    phase = rng.uniform(0, 2 * np.pi, (n, WAVES))
    waves = np.stack([2 * np.pi / wavelength * np.cos(angle), 2 * np.pi / wavelength * np.sin(angle), phase], 1)
    pairs = {k: np.broadcast_to(more.pop(k, 0.0), (n, 2)).astype(float) for k in ("centre", "up", "lopsided")}
    values: dict[str, Any] = {
        "arms": 2, "winding": 0.0, "phase": 0.0, "sharpness": 1.0, "contrast": 0.0, "asymmetry": 0.0, "scale": 1.0, "inner": 0.0,
        "outer": 4.5, "texture": 0.0, "wobble": 0.0, "shells": 0.0, **more,
    }
    columns = {k: np.broadcast_to(v, n).astype(float) for k, v in values.items()}
    return Structure(
        np.arange(n), share, np.broadcast_to(colour, n), pairs["centre"], matrix, pairs["up"], lopsided=pairs["lopsided"],
        waves=waves, **columns,
    )


def knots(rng: np.random.Generator, share: np.ndarray, colour: np.ndarray, place: np.ndarray, size: np.ndarray) -> Knots:
    """Knots at ``place``, shape ``(n, knot, 2)`` [arcsec], that share ``share`` unevenly; ``size`` [arcsec] is their typical one."""
    n, k = place.shape[:2]
    weight = rng.lognormal(0, 0.8, (n, k))
    weight *= (share / weight.sum(1))[:, None]
    sigma = size[:, None] * 10 ** rng.normal(0, 0.12, (n, k))
    tint = colour[:, None] + rng.normal(0, 0.06, (n, k))
    return Knots(np.repeat(np.arange(n), k), weight.ravel(), tint.ravel(), place.reshape(-1, 2), sigma.ravel())


def nothing() -> tuple[Structure, Knots]:
    """Structures and knots of no object, for universes without any."""
    rng, none = np.random.default_rng(), np.zeros(0)
    return patches(rng, none, none, np.zeros((0, 2, 2))), knots(rng, none, none, np.zeros((0, KNOTS, 2)), none)


def elliptical(theta: Mapping[str, np.ndarray], rng: np.random.Generator, population: Population) -> Parts:
    """A spheroid and a rounder-lit, slightly bluer envelope."""
    n = len(theta["magnitude"])
    cos_i = np.cos(np.radians(theta["inclination"]))
    q = oblate(cos_i, np.clip(rng.normal(0.56, 0.18, n), 0.25, 1.0))
    angle, ratio = rng.uniform(0, np.pi, n), rng.uniform(0.4, 0.8, n)
    envelope = theta["half_light_radius"] * disc_size(theta["bulge_to_total"], theta["sersic_n"], ratio)
    colour = 0.85 + rng.normal(0, 0.05, n) + population.colour_offset
    outer = colour - rng.uniform(0.02, 0.12, n)
    share = theta["bulge_to_total"]
    twisted = angle + rng.normal(0, 0.06, n)
    return [
        smooth(share, colour, plane(angle, q, ratio * envelope), theta["sersic_n"]),
        smooth(1 - share, outer, plane(twisted, np.clip(q + rng.normal(0, 0.05, n), 0.25, 1), envelope), 1.0),
    ]


def spiral(theta: Mapping[str, np.ndarray], rng: np.random.Generator, population: Population) -> Parts:
    """A red bulge in a thick exponential disc with arms, often a bar, knots along the arms, and a dust lane when edge-on."""
    n = len(theta["magnitude"])
    bulge, inclination = theta["bulge_to_total"], np.radians(theta["inclination"])
    cos_i, sin_i = np.cos(inclination), np.sin(inclination)
    angle, ratio = rng.uniform(0, 2 * np.pi, n), np.clip(10 ** rng.normal(-0.65, 0.12, n), 0.1, 0.5)
    radius = theta["half_light_radius"] * disc_size(bulge, theta["sersic_n"], ratio)
    h = radius / EXPONENTIAL
    height = h * rng.uniform(0.16, 0.30, n) * sin_i
    up = vertical(angle, height)
    reddening = 0.10 * population.dust * np.log10(1 / oblate(cos_i, np.full(n, 0.12)))
    disc_colour = 0.56 + 0.45 * (bulge - 0.2) + rng.normal(0, 0.07, n) + reddening + population.colour_offset
    bulge_colour = np.maximum(0.83 + rng.normal(0, 0.05, n) + population.colour_offset + 0.5 * reddening, disc_colour)

    disc = 1 - bulge
    barred = rng.random(n) < population.bar_fraction
    bar = disc * np.where(barred, rng.uniform(0.08, 0.20, n), 0.0)
    bar_angle, bar_length = rng.uniform(0, np.pi, n), h * rng.uniform(0.7, 1.3, n)
    bar_frame = plane(angle, cos_i, np.ones(n)) @ plane(bar_angle, rng.uniform(0.22, 0.38, n), 0.55 * bar_length)
    arms = disc * np.minimum(population.arm_contrast * rng.uniform(0.26, 0.58, n), 0.8)
    clumps = disc * np.minimum(population.clumpiness * rng.uniform(0.0, 0.10, n), 0.18)
    lane = 0.16 * disc * np.minimum(population.dust, 1.5) * np.clip((inclination - 1.22) / 0.2, 0, 1)
    rest = disc - bar - arms - clumps

    number = np.where(barred, 2, rng.choice([2, 3, 4], n, p=[0.66, 0.2, 0.14])).astype(float)
    winding = rng.choice([-1, 1], n) / np.tan(np.radians(np.clip(rng.normal(population.pitch, 6, n), 7, 45)))
    inner = np.where(barred, 0.8 * bar_length / h, rng.uniform(0.25, 0.7, n))
    phase = np.where(barred, bar_angle - np.log(inner) * winding, rng.uniform(0, 2 * np.pi, n))
    scale = rng.uniform(1.0, 1.4, n)
    flat = plane(angle, np.maximum(cos_i, 0.12), h)
    painted = patches(
        rng, arms, disc_colour - rng.uniform(0.08, 0.22, n), flat, up=up, arms=number, winding=winding, phase=phase,
        sharpness=rng.uniform(1.8, 5.0, n), contrast=rng.uniform(0.8, 1.0, n), asymmetry=rng.uniform(0, 0.4, n), scale=scale,
        inner=inner, outer=rng.uniform(2.8, 4.2, n), texture=0.5 * population.clumpiness * rng.uniform(0.4, 1.2, n),
        wobble=rng.uniform(0.03, 0.25, n),
    )
    r = np.clip(inner[:, None] + rng.gamma(2.0, 0.55, (n, KNOTS)), 0, 4)
    along = np.log(r) * winding[:, None] + phase[:, None] + 2 * np.pi * rng.integers(0, 4, (n, KNOTS)) / number[:, None]
    along += rng.normal(0, 0.15, (n, KNOTS))
    place = np.stack([r * np.cos(along), r * np.sin(along)], -1) @ flat.transpose(0, 2, 1)
    shift = vertical(angle, 0.3 * height * rng.choice([-1, 1], n) * (cos_i > 0.03))
    return [
        smooth(bulge, bulge_colour, plane(angle, oblate(cos_i, rng.uniform(0.55, 0.85, n)), ratio * radius), theta["sersic_n"]),
        smooth(rest + lane, disc_colour, plane(angle, cos_i, radius), 1.0, up=up),
        smooth(-lane, disc_colour - 0.3, plane(angle, cos_i, 0.9 * radius), 1.0, shift, 0.25 * up),
        smooth(bar, 0.5 * (bulge_colour + disc_colour) + 0.05, bar_frame, 0.6, up=up),
        painted,
        knots(rng, clumps, disc_colour - 0.35, place, 0.10 * h),
    ]


def irregular(theta: Mapping[str, np.ndarray], rng: np.random.Generator, population: Population) -> Parts:
    """A faint blue disc, a lopsided patchy one off its centre, sometimes a bar or a stub of an arm, and bright knots."""
    n = len(theta["magnitude"])
    radius, bulge = theta["half_light_radius"], theta["bulge_to_total"]
    q = oblate(np.cos(np.radians(theta["inclination"])), rng.uniform(0.3, 0.55, n))
    angle, h = rng.uniform(0, 2 * np.pi, n), radius / EXPONENTIAL
    colour = 0.40 + rng.normal(0, 0.08, n) + population.colour_offset
    disc = 1 - bulge
    clumps = disc * np.minimum(population.clumpiness * rng.uniform(0.08, 0.35, n), 0.6)
    bar = np.where(rng.random(n) < 0.4, disc * rng.uniform(0.05, 0.15, n), 0.0)
    patchy = (disc - clumps - bar) * rng.uniform(0.45, 0.75, n)
    frame = plane(angle, q, h)
    offset = rng.normal(0, 0.45, (n, 1, 2)) @ frame.transpose(0, 2, 1)
    dipole = rng.uniform(0, 2 * np.pi, n)
    lopsided = rng.uniform(0.3, 1.3, n)[:, None] * np.stack([np.cos(dipole), np.sin(dipole)], -1)
    stub = rng.random(n) < 0.35
    painted = patches(
        rng, patchy, colour - 0.05, frame, centre=offset[:, 0], lopsided=lopsided, grain=(1.2, 6.0),
        texture=population.clumpiness * rng.uniform(0.35, 0.9, n),
        outer=rng.uniform(2.2, 3.5, n), scale=rng.uniform(0.9, 1.4, n), arms=1, winding=rng.choice([-1, 1], n) * rng.uniform(0.8, 1.8, n),
        phase=dipole, sharpness=rng.uniform(1, 3, n), contrast=np.where(stub, rng.uniform(0.4, 0.8, n), 0.0), wobble=0.5,
    )
    place = 0.75 * rng.normal(0, 1, (n, KNOTS, 2)) + 0.7 * lopsided[:, None]
    bar_frame = plane(angle, q, np.ones(n)) @ plane(rng.uniform(0, np.pi, n), rng.uniform(0.2, 0.35, n), 0.5 * h)
    return [
        smooth(bulge, colour + 0.15, plane(angle, np.maximum(q, 0.6), 0.25 * radius), 1.0),
        smooth(disc - clumps - bar - patchy, colour + 0.08, plane(angle, q, 1.1 * radius), theta["sersic_n"]),
        smooth(bar, colour + 0.05, bar_frame, 0.6, offset[:, 0]),
        painted,
        knots(rng, clumps, colour - 0.25, place @ frame.transpose(0, 2, 1) + offset, 0.16 * h),
    ]
