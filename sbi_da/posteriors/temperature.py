r"""Calibration of a classifier on labelled objects: a temperature, and if wanted a bias of each class.

.. math:: p_k \propto \exp(l_k / T + b_k),

with :math:`l` the log-probabilities (Guo et al. 2017, arXiv 1706.04599; temperature and biases: the less general form of Platt's and of
vector scaling). The negative log-likelihood is convex in :math:`(1/T, b)`, so what is found is its minimum. A normal prior, of 1 for
:math:`1/T` and of 0 for :math:`b`, worth about one object, keeps separable labels from an infinite :math:`1/T`.

A temperature leaves the order of the classes alone; biases do not, and take in the class fractions of the labelled objects: use
them only where those are the fractions that the posterior is to assume. Simulated objects calibrate the posterior for simulations.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp

from sbi_da.errors import SbiDaError

__all__ = ["Calibration", "fit_calibration"]

COLDEST, HOTTEST = 0.05, 20.0
"""Bounds of the temperature."""


@dataclass(frozen=True)
class Calibration:
    """A temperature and biases.

    Attributes:
        temperature: T; above one where the classifier was too sure.
        bias: b, of mean zero, shape ``(class,)``.
        before: mean negative log-likelihood of the labels as it was [nats].
        after: as it is with the calibration, on the same objects.
    """

    temperature: float
    bias: np.ndarray
    before: float
    after: float

    def __call__(self, log_probabilities: np.ndarray) -> np.ndarray:
        """Calibrated log-probabilities, shape ``(object, class)``."""
        return log_softmax(np.asarray(log_probabilities, float) / self.temperature + self.bias, axis=-1)


def fit_calibration(
    log_probabilities: np.ndarray,
    codes: np.ndarray,
    bias: bool = False,
    weight: np.ndarray | None = None,
    strength: float = 1.0,
) -> Calibration:
    """Fit by maximum a posteriori.

    Args:
        log_probabilities: or logits, of labelled objects that took no part in the training, shape ``(n, class)``.
        codes: their classes, shape ``(n,)``.
        bias: fit one for each class as well.
        weight: of the objects, shape ``(n,)``, such as the real objects' fractions of a class over the simulations'; None: one.
        strength: precision of the prior.

    Raises:
        SbiDaError: no object, values that are not finite, or arrays that do not fit.
    """
    logits, codes = np.asarray(log_probabilities, float), np.asarray(codes)
    if logits.ndim != 2 or not len(logits) or codes.shape != logits.shape[:1] or not np.isfinite(logits).all():
        raise SbiDaError(
            f"calibration needs finite log-probabilities (n, class) and n classes, of one object at least, got shapes {logits.shape} "
            f"and {codes.shape}"
        )
    n, classes = logits.shape
    if not np.isin(codes, np.arange(classes)).all():
        raise SbiDaError(f"calibration: classes must be codes from 0 to {classes - 1}, got {np.unique(codes).tolist()}")
    weight = np.ones(n) if weight is None else np.asarray(weight, float)
    if weight.shape != (n,) or not (weight >= 0).all() or not weight.sum() > 0:
        raise SbiDaError(f"calibration: weights must be {n} numbers, not negative and not all zero")
    logits = logits - logits.max(1, keepdims=True)
    true = np.eye(classes)[codes]

    def nll(x: np.ndarray) -> tuple[float, np.ndarray]:
        """Negative log-posterior of inverse temperature and biases, and its gradient."""
        scaled = x[0] * logits + x[1:]
        log_sum = logsumexp(scaled, axis=1)
        residual = weight[:, None] * (np.exp(scaled - log_sum[:, None]) - true)
        off = x - np.eye(len(x))[0]
        value = weight @ (log_sum - (true * scaled).sum(1)) + 0.5 * strength * off @ off
        return float(value), np.concatenate([[(residual * logits).sum()], residual.sum(0)]) + strength * off

    limits = [(1 / HOTTEST, 1 / COLDEST)] + [(None, None) if bias else (0.0, 0.0)] * classes
    start = np.eye(classes + 1)[0]
    found = minimize(nll, start, jac=True, method="L-BFGS-B", bounds=limits, options={"maxiter": 1000, "ftol": 1e-14, "gtol": 1e-8})
    biases = found.x[1:] - found.x[1:].mean()
    total = weight.sum()
    return Calibration(
        temperature=float(1 / found.x[0]),
        bias=biases,
        before=_mean_nll(logits, true, weight / total),
        after=_mean_nll(found.x[0] * logits + biases, true, weight / total),
    )


def _mean_nll(logits: np.ndarray, true: np.ndarray, weight: np.ndarray) -> float:
    return float(-weight @ (true * log_softmax(logits, axis=1)).sum(1))
