"""What a simulator offers to explain real objects, and what that leaves unexplained."""

from dataclasses import dataclass

import numpy as np

__all__ = ["TAIL", "Hypotheses", "Unexplained", "compare", "masked_inverse"]

TAIL = 6.0
"""Degrees of freedom of the law of residuals: wild objects lose their pull."""


@dataclass(frozen=True)
class Hypotheses:
    """Explanations of real objects: draws of their parameters, each with draws of nuisances.

    Attributes:
        inputs: what a shift may depend on, shape ``(object, draw, input)``.
        signal: noise-free signals, shape ``(object, draw * nuisance, channel)``, those of one draw side by side.
        log_weight: prior weight of each signal, shape ``(object, draw * nuisance)``.
    """

    inputs: np.ndarray
    signal: np.ndarray
    log_weight: np.ndarray

    def __getitem__(self, rows: np.ndarray) -> "Hypotheses":
        """Explanations of some of the objects."""
        return Hypotheses(self.inputs[rows], self.signal[rows], self.log_weight[rows])


@dataclass(frozen=True)
class Unexplained:
    """What the explanations of each object leave, on average.

    Attributes:
        inputs: shape ``(object, input)``.
        residual: zero where nothing was seen, shape ``(object, channel)``.
        spread: covariance of the residual between explanations, shape ``(object, channel, channel)``.
        weight: of each object in a Student law, shape ``(object,)``.
        log_density: of what was measured, shape ``(object,)``.
    """

    inputs: np.ndarray
    residual: np.ndarray
    spread: np.ndarray
    weight: np.ndarray
    log_density: np.ndarray


def compare(
    hypotheses: Hypotheses, value: np.ndarray, seen: np.ndarray, shift: np.ndarray, covariance: np.ndarray,
    rng: np.random.Generator | None = None,
) -> Unexplained:
    """Weigh the explanations by how well they fit.

    Args:
        hypotheses: the explanations.
        value: measured, shape ``(object, channel)``; not read where not ``seen``.
        seen: which channels were observed, boolean, same shape.
        shift: expected shift of each draw, shape ``(object, draw, channel)``.
        covariance: of values about signal and shift, shape ``(object, channel, channel)``.
        rng: draws one explanation of each object in proportion to its weight (stochastic EM; Celeux & Diebolt 1985). None: all of them
            are averaged, which blurs the inputs of objects whose parameters are not known.
    """
    n, count, channels = hypotheses.signal.shape
    repeats = count // hypotheses.inputs.shape[1]
    residual = np.where(seen[:, None], value[:, None] - hypotheses.signal, 0.0)
    left = np.where(seen[:, None], residual - np.repeat(shift, repeats, axis=1), 0.0)
    inverse, log_det = masked_inverse(covariance, seen)
    distance = np.einsum("nhc,ncd,nhd->nh", left, inverse, left, optimize=True)
    dof = TAIL + seen.sum(1)[:, None]
    fit = hypotheses.log_weight - 0.5 * dof * np.log1p(distance / TAIL)
    total = np.logaddexp.reduce(fit, axis=1)
    share = np.exp(fit - total[:, None])
    if rng is not None:
        share = np.eye(count)[np.minimum((share.cumsum(1) < rng.random((n, 1))).sum(1), count - 1)]
    mean = np.einsum("nh,nhc->nc", share, residual)
    about = residual - mean[:, None]
    log_density = total - np.logaddexp.reduce(hypotheses.log_weight, axis=1) - 0.5 * log_det
    return Unexplained(
        np.einsum("nh,nhk->nk", share.reshape(n, -1, repeats).sum(2), hypotheses.inputs), mean,
        np.einsum("nh,nhc,nhd->ncd", share, about, about, optimize=True),
        (share * dof / (TAIL + distance)).sum(1), log_density,
    )


def masked_inverse(covariance: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inverse within the channels seen, zero elsewhere, and the log-determinants."""
    both = seen[:, :, None] & seen[:, None, :]
    filled = np.where(both, covariance, np.eye(covariance.shape[-1]))
    return np.where(both, np.linalg.inv(filled), 0.0), np.linalg.slogdet(filled)[1]
