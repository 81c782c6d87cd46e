r"""P5: an oscillator whose simulator knows no damping.

An oscillator released at rest, seen at 40 times over [0, 10] with noise 0.1, is

.. math:: s(t) = c_1\,g(t;\omega, a),\qquad g = e^{-at}\Bigl(\cos\omega t + \frac{a}{\omega}\sin\omega t\Bigr).

The simulator has :math:`a = 0`, reality :math:`a\sim U(0.1, 0.5)`; :math:`\omega\sim U(0.3, 3)` and :math:`c_1\sim U(0.5, 2)` in both.
Damping hides what the simulator would show, so no embedding of a real object can have a posterior of the simulator's widths. The
signal is linear in :math:`c_1`, over which the likelihood integrates in closed form,

.. math:: \int_{c_-}^{c_+} e^{-|x - c\,g|^2/2\sigma^2}\,dc = e^{-(|x|^2 - \hat c^2|g|^2)/2\sigma^2}\,\sqrt{2\pi}\,s\,
   \Bigl[\Phi\Bigl(\frac{c - \hat c}{s}\Bigr)\Bigr]_{c_-}^{c_+},\qquad \hat c = \frac{x\cdot g}{|g|^2},\quad s = \frac{\sigma}{|g|};

the rest is a grid over :math:`(\omega, a)`. At given :math:`(\omega, c_1)` the damping is integrated out by Gauss-Legendre quadrature.
"""

import numpy as np
from scipy.special import logsumexp, ndtr, ndtri

from benchmarks.problems.grid import Plane, zoom
from benchmarks.problems.problem import Problem, Toy
from sbi_da.distributions import Uniform
from sbi_da.layout import Observations
from sbi_da.prior import Prior

__all__ = ["Oscillator"]

TIMES = np.linspace(0, 10, 40)
NOISE = 0.1
FREQUENCY, AMPLITUDE, DAMPING = (0.3, 3.0), (0.5, 2.0), (0.1, 0.5)
NODES = 160
"""Of the quadrature over damping, whose integrand can be as narrow as a hundredth of its range."""
LOOKS = ((300, 60), (160, 80), (160, 80))
CHUNK = 1000


class Oscillator(Problem):
    """P5.

    Args:
        seed: of no effect: this problem has one instance only.
    """

    def __init__(self, seed: int = 0) -> None:
        laws = {
            "frequency": Uniform(low=FREQUENCY[0], high=FREQUENCY[1]), "amplitude": Uniform(low=AMPLITUDE[0], high=AMPLITUDE[1])
        }
        super().__init__("p5", Toy(laws, self._undamped, np.full(len(TIMES), NOISE), {"oscillator": len(TIMES)}))

    @staticmethod
    def _undamped(theta: np.ndarray) -> np.ndarray:
        return signal(theta, np.zeros(len(theta)))

    def recorded(self, theta: np.ndarray, simulated: np.ndarray, rng: np.random.Generator) -> np.ndarray:  # noqa: D102
        damping = rng.uniform(*DAMPING, len(theta))
        return simulated + signal(theta, damping) - self._undamped(theta)

    def log_likelihood(self, seen: Observations, theta: np.ndarray) -> np.ndarray:  # noqa: D102
        node, weight = np.polynomial.legendre.leggauss(NODES)
        damping = np.interp(node, [-1, 1], DAMPING)
        flat, row = theta.reshape(-1, 1, 2), np.repeat(np.arange(len(theta)), theta.shape[1])
        result = np.empty(len(flat))
        for start in range(0, len(flat), CHUNK):
            part = slice(start, start + CHUNK)
            residual = seen.value[row[part], None] - signal(flat[part], damping)
            result[part] = logsumexp(-0.5 * (residual**2).sum(-1) / NOISE**2, axis=-1, b=weight / 2)
        return result.reshape(theta.shape[:2]) - len(TIMES) * np.log(NOISE * np.sqrt(2 * np.pi))

    def log_evidence(self, seen: Observations, prior: Prior) -> np.ndarray:  # noqa: D102
        logs = np.array([_plane(x).log_integral for x in seen.value])
        volume = np.prod([high - low for low, high in (FREQUENCY, AMPLITUDE, DAMPING)])
        return logs - np.log(volume) - len(TIMES) * np.log(NOISE * np.sqrt(2 * np.pi))

    def draw(self, seen: Observations, prior: Prior, draws: int, rng: np.random.Generator) -> np.ndarray:  # noqa: D102
        result = np.empty((len(seen), draws, 2))
        for i, x in enumerate(seen.value):
            frequency, damping = _plane(x).sample(draws, rng).T
            shape = signal(np.stack([frequency, np.ones(draws)], -1), damping)
            best, width = _amplitude(shape @ x, (shape**2).sum(-1))
            sign = np.where(best < np.mean(AMPLITUDE), 1, -1)  # the tail in which the distribution function keeps its precision
            low, high = (ndtr(-sign * (c - best) / width) for c in AMPLITUDE)
            level = low + rng.random(draws) * (high - low)
            result[i] = np.stack([frequency, np.clip(best - sign * width * ndtri(level), *AMPLITUDE)], -1)
        return result


def signal(theta: np.ndarray, damping: np.ndarray) -> np.ndarray:
    """Displacement at all times, shape ``(..., time)``, for frequency and amplitude ``(..., 2)`` and damping ``(...)``."""
    frequency, amplitude = (theta[..., i, None] for i in (0, 1))
    damping, phase = damping[..., None], frequency * TIMES
    return amplitude * np.exp(-damping * TIMES) * (np.cos(phase) + damping / frequency * np.sin(phase))


def _amplitude(product: np.ndarray, square: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Best amplitude and its standard deviation, from x·g and g·g."""
    return product / square, NOISE / np.sqrt(square)


def _plane(x: np.ndarray) -> Plane:
    """Likelihood of one object ``(time,)`` over frequency and damping, the amplitude integrated out."""

    def log_value(frequency: np.ndarray, damping: np.ndarray) -> np.ndarray:
        phase, decay, ratio = frequency[:, None] * TIMES, np.exp(-damping * TIMES[:, None]), damping / frequency[:, None]
        cosine, sine = np.cos(phase), np.sin(phase)
        product = (cosine * x) @ decay + ratio * ((sine * x) @ decay)
        square = cosine**2 @ decay**2 + 2 * ratio * ((cosine * sine) @ decay**2) + ratio**2 * (sine**2 @ decay**2)
        best, width = _amplitude(product, square)
        sign = np.where(best < np.mean(AMPLITUDE), 1, -1)
        low, high = (ndtr(-sign * (c - best) / width) for c in AMPLITUDE)
        with np.errstate(divide="ignore"):
            mass = np.log(np.sqrt(2 * np.pi) * width * np.abs(high - low))
        return mass - 0.5 * (x @ x - best * product) / NOISE**2

    return zoom(log_value, (FREQUENCY, DAMPING), LOOKS)
