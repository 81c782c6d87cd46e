r"""Stellar structure along isochrones: (age, [Fe/H], initial mass) to Teff, log g and luminosity.

Evolutionary points :math:`e` mark like phases on all isochrones, so interpolating in age and metallicity at fixed
:math:`e` keeps turn-off, giant branch and clump sharp (Dotter 2016, ApJS 222, 8). With bilinear weights :math:`w_k` of
the four surrounding isochrones, :math:`e` solves

.. math:: \sum_k w_k D_k(e) = \sum_k w_k \ln m_{\mathrm{hi},k} - \ln m

where :math:`D_k` is the stored deficit in ln m from the isochrone's tip, strictly falling; found by bisection, then
linear in :math:`e`.
"""

import numpy as np

from sbi_da.prior import Limits, cell

from .checks import read_grid

__all__ = ["CHUNK", "Isochrones"]

CHUNK = 32768
"""Stars at a time: arrays that stay in cache."""
QUANTITIES = ("log_teff", "log_g", "log_l")


class Isochrones:
    """One set of isochrones.

    Args:
        name: ``mist``, ``parsec`` or ``bhac15``.

    Attributes:
        log_age: nodes, log10 of the age [yr].
        feh: nodes [dex].
        bounds: smallest and largest ``log_teff`` [K], ``log_g`` [cm/s2] and ``log_l`` [Lsun] among the models.
        citation: whose models.
    """

    def __init__(self, name: str) -> None:
        grid = read_grid(f"isochrones_{name}")
        self.name = name
        self.log_age, self.feh = grid["log_age"], grid["feh"]
        self.ln_m_lo, self.ln_m_hi = grid["ln_m_lo"], grid["ln_m_hi"]
        self.citation = str(grid["citation"])
        self.points = grid["deficit"].shape[-1]
        self.bounds: dict[str, tuple[float, float]] = {}
        self._deficit = np.ascontiguousarray(grid["deficit"], np.float32).ravel()
        rows = np.empty((self._deficit.size, 4), np.float32)
        rows[:, 0] = self._deficit
        for k, key in enumerate(QUANTITIES):
            offset, scale, low, high = grid[f"{key}_code"]
            rows[:, k + 1] = (grid[key].ravel() * scale + offset).astype(np.float32)
            self.bounds[key] = (float(low), float(high))
        self._rows = rows

    def limits(self) -> Limits:
        """Smallest and largest initial mass [Msun] given ``log_age`` and ``feh``."""
        low, high = self.ln_m_lo.T.copy(), self.ln_m_hi.T.copy()
        return Limits(("log_age", "feh"), (self.log_age, self.feh), low, high, log=True)

    def interpolate(
        self, log_age: np.ndarray, mass: np.ndarray, feh: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Log Teff [K], log g [cm/s2] and log L [Lsun].

        Args:
            log_age: log10 age [yr], shape ``(star,)``, within the grid.
            mass: initial mass [Msun], within :meth:`limits`.
            feh: [Fe/H] [dex], within the grid.

        Returns:
            Three float32 arrays of shape ``(star,)``.
        """
        out = np.empty((3, len(mass)), np.float32)
        for start in range(0, len(mass), CHUNK):
            part = slice(start, start + CHUNK)
            out[:, part] = self._interpolate(log_age[part], np.log(mass[part]), feh[part])
        return out[0], out[1], out[2]

    def _interpolate(self, log_age: np.ndarray, ln_m: np.ndarray, feh: np.ndarray) -> np.ndarray:
        a, wa = cell(log_age, self.log_age)
        f, wf = cell(feh, self.feh)
        ages = len(self.log_age)
        corners = [f * ages + a, f * ages + a + 1, (f + 1) * ages + a, (f + 1) * ages + a + 1]
        weights = [(1 - wf) * (1 - wa), (1 - wf) * wa, wf * (1 - wa), wf * wa]
        tip = sum(
            w * self.ln_m_hi.ravel().take(c) for c, w in zip(corners, weights, strict=True)
        )
        target = (tip - ln_m).astype(np.float32)
        base = [c * self.points for c in corners]
        light = [w.astype(np.float32) for w in weights]
        low = np.zeros(len(ln_m), np.int64)
        high = np.full(len(ln_m), self.points - 1, np.int64)
        for _ in range(int(np.ceil(np.log2(self.points)))):
            middle = (low + high) >> 1
            value = light[0] * self._deficit.take(base[0] + middle)
            for b, w in zip(base[1:], light[1:], strict=True):
                value += w * self._deficit.take(b + middle)
            above = value >= target  # not yet massive enough: the star lies at a later point
            low = np.where(above, middle, low)
            high = np.where(above, high, middle)
        low = np.minimum(low, self.points - 2)
        left = sum(w[:, None] * self._rows.take(b + low, axis=0) for b, w in zip(base, light, strict=True))
        right = sum(w[:, None] * self._rows.take(b + low + 1, axis=0) for b, w in zip(base, light, strict=True))
        step = left[:, 0] - right[:, 0]
        t = np.clip((left[:, 0] - target) / np.maximum(step, 1e-30), 0, 1)[:, None]
        return np.asarray((left + t * (right - left))[:, 1:].T)
