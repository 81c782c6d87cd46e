r"""P6: temperatures and extinctions of stars in ten bands of three surveys, any of which may not have looked.

With :math:`\theta = (u, v)`, temperature :math:`T = 4.5\,e^{u/4}` and extinction :math:`A_V = \log(1 + e^{v + 1/2})`,

.. math:: m_\lambda = 0.9\cdot 2.5\log_{10}\bigl(e^{23/\lambda T} - 1\bigr) + A_V\,(\lambda/0.55)^{-\beta},

a Planck-like law reddened by a power law (Cardelli, Clayton & Mathis 1989, ApJ 345, 245, have one with slope 1.61 in the infrared).
All magnitudes are centred on the simulator's at :math:`\theta = 0`. The simulator has :math:`\beta = 1.6` and
:math:`\theta\sim N(0, I)`; reality :math:`\beta = 1.9`, zero points :math:`N(0, 0.2^2)`, a term :math:`0.25\sin 2T` below 1 micron, and
:math:`u\sim N(-0.5, 0.7^2)`, :math:`v\sim N(0.4, 0.8^2)`. An object nobody looked at is kept; its posterior is the population. The
posterior is a grid over :math:`(u, v)`, on which :math:`\chi^2` is a quadratic in :math:`A_V` with coefficients that depend on u.
"""

import numpy as np
from scipy.stats import norm

from benchmarks.problems.grid import Plane, zoom
from benchmarks.problems.problem import Problem, Toy
from sbi_da.distributions import Normal
from sbi_da.layout import Observations
from sbi_da.prior import Prior
from sbi_da.records import OBSERVED
from sbi_da.records.missing import CoverageMissing

__all__ = ["Photometry"]

WAVELENGTH = np.array([0.5, 0.62, 0.77, 1.2, 1.6, 2.2, 3.4, 4.6, 12.0, 22.0])
NOISE = np.array([0.1, 0.1, 0.1, 0.12, 0.12, 0.12, 0.15, 0.15, 0.3, 0.4])
SURVEYS = {"optical": 3, "near_infrared": 3, "mid_infrared": 4}
COVERAGE = [0.95, 0.8, 0.6]
SLOPE, REAL_SLOPE = 1.6, 1.9
REACH = 8.0
LOOKS = ((400, 200), (160, 160), (240, 240))


class Photometry(Problem):
    """P6.

    Args:
        seed: draws the zero points of reality.
    """

    def __init__(self, seed: int = 0) -> None:
        self.zero_points = 0.2 * np.random.default_rng(seed).standard_normal(len(WAVELENGTH))
        self._centre = (_star(np.zeros(1)) + _extinction(np.zeros(1))[:, None] * _dust(SLOPE))[0]
        prior = {p: Normal(mean=0, sd=1, low=-REACH, high=REACH) for p in ("u", "v")}
        real = {"u": Normal(mean=-0.5, sd=0.7, low=-REACH, high=REACH), "v": Normal(mean=0.4, sd=0.8, low=-REACH, high=REACH)}
        law = CoverageMissing(surveys=COVERAGE, channels=0.0)
        super().__init__("p6", Toy(prior, self._simulated, NOISE, SURVEYS), Prior(real), law)

    def _simulated(self, theta: np.ndarray) -> np.ndarray:
        return _star(theta[..., 0]) + _extinction(theta[..., 1])[..., None] * _dust(SLOPE) - self._centre

    def _real_star(self, u: np.ndarray) -> np.ndarray:
        """What reality sends without dust, shape ``(..., band)``."""
        ripple = 0.25 * np.sin(2 * _temperature(u))[..., None] * (WAVELENGTH < 1)
        return _star(u) + ripple + self.zero_points - self._centre

    def _real(self, theta: np.ndarray) -> np.ndarray:
        return self._real_star(theta[..., 0]) + _extinction(theta[..., 1])[..., None] * _dust(REAL_SLOPE)

    def recorded(self, theta: np.ndarray, simulated: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: D102
        return simulated + self._real(theta) - self._simulated(theta)

    def log_likelihood(self, seen: Observations, theta: np.ndarray) -> np.ndarray:  # noqa: D102
        density = norm.logpdf(seen.value[:, None], self._real(theta), NOISE)
        return np.where((seen.state == OBSERVED)[:, None], density, 0.0).sum(-1)

    def log_evidence(self, seen: Observations, prior: Prior) -> np.ndarray:  # noqa: D102
        logs = np.array([self._plane(x, observed, prior).log_integral for x, observed in self._objects(seen)])
        return logs + np.where(seen.state == OBSERVED, norm.logpdf(0, scale=NOISE), 0.0).sum(-1)

    def draw(self, seen: Observations, prior: Prior, draws: int, rng: np.random.Generator) -> np.ndarray:  # noqa: D102
        planes = (self._plane(x, observed, prior) for x, observed in self._objects(seen))
        return np.array([plane.sample(draws, rng) for plane in planes]).reshape(len(seen), draws, 2)

    @staticmethod
    def _objects(seen: Observations) -> zip:
        return zip(seen.value, seen.state == OBSERVED, strict=True)

    def _plane(self, x: np.ndarray, observed: np.ndarray, prior: Prior) -> Plane:
        """Prior times exp(-chi²/2) of one object with values and mask ``(band,)``."""
        weight, dust = observed / NOISE**2, _dust(REAL_SLOPE)

        def log_value(u: np.ndarray, v: np.ndarray) -> np.ndarray:
            residual, extinction = x - self._real_star(u), _extinction(v)
            linear, square = residual @ (weight * dust), weight @ dust**2
            chi2 = (residual**2 @ weight)[:, None] - 2 * linear[:, None] * extinction + square * extinction**2
            return prior.log_prob({"u": u[:, None], "v": v}) - 0.5 * chi2

        return zoom(log_value, (prior.bounds("u"), prior.bounds("v")), LOOKS)


def _temperature(u: np.ndarray) -> np.ndarray:
    return 4.5 * np.exp(0.25 * u)


def _extinction(v: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, v + 0.5)


def _dust(slope: float) -> np.ndarray:
    return (WAVELENGTH / 0.55) ** -slope


def _star(u: np.ndarray) -> np.ndarray:
    """Magnitudes without dust, shape ``(..., band)``."""
    exponent = 23 / (WAVELENGTH * _temperature(u)[..., None])
    return 0.9 * 2.5 / np.log(10) * (exponent + np.log(-np.expm1(-exponent)))  # log(e^x - 1) without overflow
