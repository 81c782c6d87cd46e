"""A camera of any kind, and bytes for its images."""

import numpy as np

from sbi_da.surveys.card import Survey

SIZE = 12


def survey(display: bool = True, size: int = SIZE, bands: str = "irg") -> Survey:
    wavelength = {"g": 0.48, "r": 0.62, "i": 0.75}
    held = [{"name": b, "wavelength": wavelength[b], "psf_fwhm": 1.2, "noise": 0.02} for b in bands]
    image = {"bands": held, "pixel_scale": 0.4, "size": size}
    if display:
        image["display"] = {"softening": 10.0, "stretch": 0.5}
    return Survey(name="cam", title="camera", reference="none", image=image)


def bytes_of(n: int, size: int = SIZE, seed: int = 0) -> np.ndarray:
    """Colours of shape ``(n, size, size, 3)``."""
    return np.random.default_rng(seed).integers(0, 256, (n, size, size, 3), dtype=np.uint8)
