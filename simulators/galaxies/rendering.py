r"""Galaxies through the PSF and the pixels of an image survey.

An image is put together in Fourier space, on a field twice as wide as the stamp:

.. math:: I_b(k) = P_b(k)\,\mathrm{sinc}(k_x p/2)\,\mathrm{sinc}(k_y p/2)
          \Bigl[\sum_j f_{jb}\, S_{n_j}(|M_j^\top k|)\,V_j(k)\,e^{-i k\cdot c_j} + \sum_j f_{jb}\, T_j(k)\Bigr]

with S the Sérsic transforms and P the PSF's (GalSim), V the vertical profile of thick discs, and T the discrete transform of a painted
structure. Only wave numbers the PSF lets through (amplitude above 1e-4) are computed; where they exceed the pixels' Nyquist
frequency the image is drawn on a finer grid, at most four times finer, and a PSF of less than
0.6 pixels (of a simulation without one) is replaced by one of that width.
"""

from collections.abc import Sequence

import numpy as np
from scipy import fft

from sbi_da.surveys.imaging import Imaging

from .components import Anatomy, Knots, Smooth, Structure
from .painting import REACH, norm, paint
from .transforms import round_psf, sersic

__all__ = ["Field"]

FAINTEST = 1e-4
FINEST = 4
SHARPEST = 0.6
"""Narrowest PSF drawn, FWHM in pixels: points would ring without any."""


class Field:
    """Draws one galaxy at a time through one survey.

    Args:
        instrument: bands, pixels and PSF.
        fwhm: of all PSFs to come, arcsec.
    """

    def __init__(self, instrument: Imaging, fwhm: np.ndarray) -> None:
        self.instrument = instrument
        pixel, size = instrument.pixel_scale, instrument.size
        self.pixel = pixel
        width = fft.next_fast_len(size)
        sharpest, widest = max(float(fwhm.min()), SHARPEST * pixel), float(fwhm.max())
        self.fine = next((t for t in range(1, FINEST) if self._passed(sharpest, t) < FAINTEST), FINEST)
        self.step = max(2, self.fine)
        self.n = 2 * width * self.fine
        margin = min(max(4, int(np.ceil(3 * widest / pixel))), width // 2)
        self.origin = -(0.5 * (size - 1) + margin) * pixel
        self.window = (size + 2 * margin) * self.step
        self.grid = self.origin + np.arange(self.window) * pixel / self.step
        self.cut = slice(margin * self.fine, (margin + size) * self.fine, self.fine)
        frequency = 2 * np.pi / (pixel / self.fine)
        self.kx = (fft.rfftfreq(self.n) * frequency).astype(np.float32)
        self.ky = (fft.fftfreq(self.n) * frequency).astype(np.float32)
        self.k_squared = self.kx**2 + self.ky[:, None] ** 2
        square = [np.sinc(k * pixel / (2 * np.pi)) for k in (self.kx, self.ky)]
        self.square = (square[1][:, None] * square[0]).astype(np.float32)
        self._response: dict[float, np.ndarray] = {}

    def _passed(self, fwhm: float, finer: int) -> float:
        k = np.array([finer * np.pi / self.pixel * fwhm])
        return float(round_psf(self.instrument.psf, self.instrument.beta, (k**2).astype(np.float32))[0])

    def response(self, fwhm: float, keep: bool) -> np.ndarray:
        """Transform of PSF and pixel; ``keep`` remembers it."""
        if fwhm in self._response:
            return self._response[fwhm]
        found = round_psf(self.instrument.psf, self.instrument.beta, self.k_squared * np.float32(fwhm**2)) * self.square
        if keep:
            self._response[fwhm] = found
        return found

    def draw(
        self, anatomy: Anatomy, rows: Sequence[slice], flux: Sequence[np.ndarray], fwhm: np.ndarray, keep: bool
    ) -> np.ndarray:
        """One galaxy, shape ``(band, y, x)``, float32.

        Args:
            anatomy: components of all galaxies.
            rows: which of the smooth components, structures and knots are its own.
            flux: their fluxes, each ``(row of the galaxy, band)``.
            fwhm: of the PSF, ``(band,)``, arcsec.
            keep: whether other galaxies have the same PSF.
        """
        bands = len(fwhm)
        light = np.zeros((bands, self.n, len(self.kx)), np.complex64)
        for row, f in zip(range(rows[0].start, rows[0].stop), flux[0], strict=True):
            self._add(light, self._smooth(anatomy.smooth, row), f)
        for row, f in zip(range(rows[1].start, rows[1].stop), flux[1], strict=True):
            self._add(light, self._painted(anatomy.structure, row), f)
        if rows[2].stop > rows[2].start:
            light += self._knots(anatomy.knots, rows[2], flux[2])
        for b in range(bands):
            light[b] *= self.response(max(float(fwhm[b]), SHARPEST * self.pixel), keep)
        image = fft.irfft2(light, s=(self.n, self.n), axes=(-2, -1), overwrite_x=True)
        return np.maximum(image[:, self.cut, self.cut], 0) * np.float32(self.fine**2)

    @staticmethod
    def _add(light: np.ndarray, shape: np.ndarray, flux: np.ndarray) -> None:
        for b, f in enumerate(flux):
            light[b] += np.float32(f) * shape

    def _phase(self, centre: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.exp(-1j * self.kx * (centre[0] - self.origin)), np.exp(-1j * self.ky * (centre[1] - self.origin))

    def _thick(self, vertical: np.ndarray) -> np.ndarray:
        x, y = (np.float32(np.pi / 2 * v) for v in vertical)
        u = np.clip(np.abs(x * self.kx + (y * self.ky)[:, None]), np.float32(1e-3), np.float32(60))
        e = np.exp(-u)
        return 2 * u * e / (1 - e * e)

    def _smooth(self, smooth: Smooth, row: int) -> np.ndarray:
        m = smooth.matrix[row].astype(np.float32)
        p = m[0, 0] * self.kx + (m[1, 0] * self.ky)[:, None]
        q = m[0, 1] * self.kx + (m[1, 1] * self.ky)[:, None]
        shape = sersic(float(smooth.index[row]), p * p + q * q)
        if smooth.vertical[row].any():
            shape *= self._thick(smooth.vertical[row])
        x, y = self._phase(smooth.centre[row])
        return shape * (y.astype(np.complex64)[:, None] * x.astype(np.complex64))

    def _painted(self, structure: Structure, row: int) -> np.ndarray:
        light = paint(structure, row, self.grid, self.grid)
        step = self.pixel / self.step
        # A small structure is coarsely sampled, but seen whole; one that leaves the window is finely sampled.
        reach = REACH * np.linalg.norm(structure.matrix[row], 2) + np.abs(structure.centre[row]).max()
        whole = float(light.sum()) * step**2 if reach < -self.origin else norm(structure, row)
        light *= np.float32(step**2 / whole)
        full = self.n * self.step // self.fine
        shape = fft.rfft2(light, s=(full, full))
        half = self.n // 2
        shape = np.concatenate([shape[:half, : half + 1], shape[-half:, : half + 1]])
        return shape * self._thick(structure.vertical[row]) if structure.vertical[row].any() else shape

    def _knots(self, knots: Knots, rows: slice, flux: np.ndarray) -> np.ndarray:
        sigma = knots.sigma[rows][:, None]
        along = [
            np.exp(-0.5 * (sigma * k) ** 2 - 1j * k * (knots.centre[rows, axis : axis + 1] - self.origin)).astype(np.complex64)
            for axis, k in enumerate((self.kx, self.ky))
        ]
        return (flux.T[:, :, None] * along[1]).astype(np.complex64).transpose(0, 2, 1) @ along[0]
