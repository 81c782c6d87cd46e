"""Tiny images of two classes that a small network tells apart at once: round spots and streaks; and a shifted copy of that world."""

import numpy as np

from sbi_da.config import Config
from sbi_da.records import Images, Records

CLASSES = ("round", "streak")
SIZE = 16
CARD = """
name: toy_camera
title: A toy camera
reference: toy
image:
  pixel_scale: 1.0
  size: 16
  psf: gaussian
  display: {softening: 8.0, stretch: 0.5}
  bands:
    - {name: r, wavelength: 0.7, psf_fwhm: 1.5, noise: 0.01}
    - {name: g, wavelength: 0.6, psf_fwhm: 1.5, noise: 0.01}
    - {name: b, wavelength: 0.5, psf_fwhm: 1.5, noise: 0.01}
"""


def pictures(codes, rng, noise=0.02, gain=1.0):
    """Bytes, shape (object, 3, 16, 16)."""
    n = len(codes)
    y, x = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    angle = rng.uniform(0, np.pi, n)[:, None, None]
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    q = np.where(codes == 0, 0.9, 0.3)[:, None, None]
    light = gain * np.exp(-0.5 * (u**2 + (v / q) ** 2) / 2.5**2)
    colour = np.array([1.0, 0.8, 0.6])[:, None, None]
    image = light[:, None] * colour + noise * rng.standard_normal((n, 3, SIZE, SIZE))
    return np.clip(255 * image, 0, 255).astype(np.uint8)


def records(n, seed=0, fractions=(0.5, 0.5), domain="simulated", sealed=False, **how):
    rng = np.random.default_rng(seed)
    codes = rng.choice(2, n, p=fractions)
    pixels = pictures(codes, rng, **how)
    image = Images(("r", "g", "b"), pixels, np.full((n, 3), np.nan), np.ones((n, 3), np.uint8))
    made = Records.build(
        {}, np.arange(n), {"shape": codes.astype(float)}, None, {"domain": domain, "classes_shape": list(CLASSES)}, {"toy_camera": image}
    )
    return made.sealed() if sealed else made


def camera(folder):
    """Path of a survey folder."""
    place = folder / "toy_camera"
    place.mkdir(exist_ok=True)
    (place / "card.yaml").write_text(CARD)
    return place


def config(folder, **training):
    """An experiment on saved records."""
    path = folder / "source.zarr"
    if not path.exists():
        records(300).save(path)
    return Config.model_validate({
        "surveys": [str(camera(folder))], "parameters": ["shape"],
        "network": {"width": 16, "layers": 1, "heads": 2, "summary": 32, "blocks": 0, "context": 16,
                    "images": {"kind": "compact", "options": {"widths": [8, 16], "blocks": [1, 1]}, "measured": True}},
        "training": {"records": str(path), "epochs": 4, "steps_per_epoch": 15, "batch": 32, "validation": 60, "warmup": 5,
                     "learning_rate": 0.005, "optimiser": "adamw", "augmentation": {"rotate": "quarter"}, **training},
    })
