r"""P1 to P4: a linear-Gaussian simulator, and realities with another instrument, another population, or both.

.. math:: x_s = A\theta + 0.3\,\varepsilon\in\mathbb R^{10},\quad \theta\sim N(0, I_3),\qquad x_o = C x_s + d + 0.1\,\eta

- P1, an affine instrument: :math:`C = (I + 0.12 N)\,\mathrm{diag}(1 + 0.15 N)`, :math:`d = 0.5 N`, with standard normal N throughout;
- P2, a hidden rotation: A has orthogonal columns of length 1.8 and C rotates the space they span, :math:`d = 0`. The signal has the
  same law in both domains, so no comparison of unpaired objects can see the rotation;
- P3, another population: :math:`C = I`, :math:`d = 0`, real :math:`\theta\sim N((1, -0.7, 0), \mathrm{diag}(0.4, 0.5, 0.8)^2)`;
- P4, the instrument of P1 and the population of P3.

Real values are Gaussian about :math:`CA\theta + d` with covariance :math:`\Sigma = 0.09\,CC^\top + 0.01\,I`, so under a population
:math:`N(\mu, S)` the posterior has precision :math:`\Lambda = S^{-1} + (CA)^\top\Sigma^{-1}CA` and mean
:math:`\Lambda^{-1}\bigl(S^{-1}\mu + (CA)^\top\Sigma^{-1}(x_o - d)\bigr)` (Bishop 2006, section 2.3.3). The truncation of the laws at
eight standard deviations is neglected.
"""

from typing import Literal

import numpy as np
from scipy.stats import special_ortho_group

from benchmarks.problems.problem import Problem, Toy
from sbi_da.distributions import Normal
from sbi_da.layout import Observations
from sbi_da.prior import Prior

__all__ = ["Linear"]

NAMES = ("theta_1", "theta_2", "theta_3")
CHANNELS = 10
NOISE, EXTRA_NOISE = 0.3, 0.1
REACH = 8.0
SHIFTED = ((1.0, 0.4), (-0.7, 0.5), (0.0, 0.8))


class Linear(Problem):
    """One of P1 to P4.

    Args:
        name: short name.
        seed: draws the matrices; one seed gives P1, P3 and P4 one simulator, and P1 and P4 one instrument.
        instrument: what reality does to the simulated values before it adds noise.
        shifted: whether real objects are of another population than the prior's.
    """

    def __init__(
        self, name: str, seed: int, instrument: Literal["same", "affine", "rotation"] = "same", shifted: bool = False
    ) -> None:
        rng = np.random.default_rng(seed)
        self.matrix = rng.standard_normal((CHANNELS, len(NAMES))) / 1.7
        self.response, self.offset = np.eye(CHANNELS), np.zeros(CHANNELS)
        if instrument == "rotation":
            basis = np.linalg.qr(self.matrix)[0]
            self.matrix = 1.8 * basis
            turn = special_ortho_group.rvs(len(NAMES), random_state=rng)
            self.response = self.response + basis @ (turn - np.eye(len(NAMES))) @ basis.T
        elif instrument == "affine":
            mixing, gain = rng.standard_normal((CHANNELS, CHANNELS)), rng.standard_normal(CHANNELS)
            self.response = (np.eye(CHANNELS) + 0.12 * mixing) @ np.diag(1 + 0.15 * gain)
            self.offset = 0.5 * rng.standard_normal(CHANNELS)
        prior = {p: Normal(mean=0, sd=1, low=-REACH, high=REACH) for p in NAMES}
        real = {p: Normal(mean=m, sd=s, low=-REACH, high=REACH) for p, (m, s) in zip(NAMES, SHIFTED, strict=True)}
        toy = Toy(prior, self._signal, np.full(CHANNELS, NOISE), {"first": CHANNELS // 2, "second": CHANNELS // 2})
        super().__init__(name, toy, Prior(real) if shifted else None)

    def _signal(self, theta: np.ndarray) -> np.ndarray:
        return theta @ self.matrix.T

    def recorded(self, theta: np.ndarray, simulated: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: D102
        return simulated @ self.response.T + self.offset + EXTRA_NOISE * rng.standard_normal(simulated.shape)

    def log_likelihood(self, seen: Observations, theta: np.ndarray) -> np.ndarray:  # noqa: D102
        residual = (seen.value - self.offset)[:, None] - theta @ (self.response @ self.matrix).T
        return _log_normal(residual, self._covariance)

    def log_evidence(self, seen: Observations, prior: Prior) -> np.ndarray:  # noqa: D102
        mean, sd = _moments(prior)
        whole = self.response @ self.matrix
        return _log_normal(seen.value - self.offset - whole @ mean, self._covariance + (whole * sd**2) @ whole.T)

    def draw(self, seen: Observations, prior: Prior, draws: int, rng: np.random.Generator) -> np.ndarray:  # noqa: D102
        mean, covariance = self.moments(seen, prior)
        normal = rng.standard_normal((len(seen), draws, len(NAMES)))
        return mean[:, None] + normal @ np.linalg.cholesky(covariance).T

    def moments(self, seen: Observations, prior: Prior) -> tuple[np.ndarray, np.ndarray]:
        """Means ``(n, p)`` and the common covariance ``(p, p)`` of the posteriors under ``prior``."""
        mean, sd = _moments(prior)
        whole = self.response @ self.matrix
        weighted = np.linalg.solve(self._covariance, whole)
        covariance = np.linalg.inv(np.diag(sd**-2) + whole.T @ weighted)
        return (mean / sd**2 + (seen.value - self.offset) @ weighted) @ covariance, covariance

    @property
    def _covariance(self) -> np.ndarray:
        return NOISE**2 * self.response @ self.response.T + EXTRA_NOISE**2 * np.eye(CHANNELS)


def _moments(prior: Prior) -> tuple[np.ndarray, np.ndarray]:
    laws = [law for law in prior.laws.values() if isinstance(law, Normal)]
    return np.array([law.mean for law in laws]), np.array([law.sd for law in laws])


def _log_normal(residual: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Log-density of residuals ``(..., channel)`` of a centred Gaussian, shape ``(...)``."""
    white = residual @ np.linalg.inv(np.linalg.cholesky(covariance)).T
    return -0.5 * ((white**2).sum(-1) + np.linalg.slogdet(2 * np.pi * covariance)[1])
