r"""Model discrepancy: what reality adds to the simulator, learned from objects whose parameters are known.

After Kennedy & O'Hagan (2001, J. R. Stat. Soc. B 63, 425) an observation is

.. math:: x_o = s(\theta) + \delta(\theta) + \varepsilon + \eta,\qquad \eta\sim t_\nu(0, R),

with the simulator's signal and noise :math:`s, \varepsilon`, a smooth shift :math:`\delta_c(\theta) = \sum_k w_{kc}\varphi_k(\theta)`
in each channel c, and a scatter R that the simulator lacks (a reality that says less than the simulator). The
:math:`\varphi` are a constant, linear functions, bumps along every single input (an additive model) and random Fourier features
of all inputs (Rahimi & Recht 2007); weights are Gaussian, :math:`w_{kc}\sim N(0, \lambda_{g(k)}\tau_c^2)`. The variances
:math:`\lambda, \tau` and R maximise the evidence by EM, so a kind of shift the data do not ask for is switched off. What the
parameters do not fix (companions, discs, parameters without a label) is summed over: draws of it compete to explain an object.
Objects simulated with draws of :math:`\delta` and of the scatter teach an estimator what reality looks like, and what of it
is not known.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import solve_triangular
from scipy.special import gammaln
from scipy.stats import chi2

__all__ = ["Basis", "Discrepancy", "Hypotheses", "fit_discrepancy"]

TAIL = 6.0
"""Degrees of freedom of the law of residuals: wild objects lose their pull."""
TRUSTED = 0.75
"""Share of the objects that the scatter is measured on; the law it is cut from is taken as normal."""
NODES = np.linspace(-2.0, 2.0, 5)
"""Centres of the bumps along an input, in its standard deviations."""
BUMP = 0.9
REACH = 3.5
"""Inputs are cut at this many standard deviations: the shift is constant beyond."""


@dataclass(frozen=True)
class Basis:
    """Functions of the inputs.

    Attributes:
        centre: of the inputs, shape ``(input,)``.
        scale: of the inputs, shape ``(input,)``.
        frequency: of the Fourier features, shape ``(input, feature)``.
        phase: shape ``(feature,)``.
    """

    centre: np.ndarray
    scale: np.ndarray
    frequency: np.ndarray
    phase: np.ndarray

    @classmethod
    def of(cls, inputs: np.ndarray, features: int = 20, length: float = 2.0, seed: int = 0) -> "Basis":
        """A basis on the scale of a sample of inputs, shape ``(object, input)``; ``length`` is that of the Fourier features."""
        rng = np.random.default_rng(seed)
        scale = inputs.std(0)
        size = inputs.shape[1]
        return cls(
            inputs.mean(0), np.where(scale > 0, scale, 1.0),
            rng.standard_normal((size, features)) / (length * np.sqrt(size / 3)), rng.uniform(0, 2 * np.pi, features),
        )

    @property
    def groups(self) -> np.ndarray:
        """Group of each function: functions of a group share a variance."""
        size, features = self.frequency.shape
        return np.concatenate(
            [[0], np.full(size, 1), np.repeat(np.arange(2, 2 + size), len(NODES)), np.full(features, 2 + size)]
        )

    def __call__(self, inputs: np.ndarray) -> np.ndarray:
        """Values of the functions, shape ``(object, function)``."""
        x = np.clip((inputs - self.centre) / self.scale, -REACH, REACH)
        bumps = np.exp(-0.5 * ((x[:, :, None] - NODES) / BUMP) ** 2)
        waves = np.sqrt(2 / max(1, len(self.phase))) * np.cos(x @ self.frequency + self.phase)
        return np.concatenate([np.ones((len(x), 1)), x, bumps.reshape(len(x), -1), waves], axis=1)


@dataclass(frozen=True)
class Discrepancy:
    """A shift known with uncertainty, and a scatter.

    Attributes:
        basis: functions of the inputs.
        mean: expected weights, shape ``(function, channel)``.
        draws: posterior draws of the weights, shape ``(draw, function, channel)``.
        scatter: a root of R, shape ``(channel, channel)``; the scatter is a Student law of :data:`TAIL` degrees of freedom.
    """

    basis: Basis
    mean: np.ndarray
    draws: np.ndarray
    scatter: np.ndarray

    def expected(self, inputs: np.ndarray) -> np.ndarray:
        """Expected shift, shape ``(object, channel)``."""
        return np.asarray(self.basis(inputs) @ self.mean)

    def sample(self, inputs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A draw of shift and scatter for each object, independent of the others', shape ``(object, channel)``."""
        values, which = self.basis(inputs), rng.integers(len(self.draws), size=len(inputs))
        shift = np.empty((len(inputs), self.mean.shape[1]))
        for k in range(len(self.draws)):
            rows = which == k
            shift[rows] = values[rows] @ self.draws[k]
        stretch = np.sqrt(TAIL / rng.chisquare(TAIL, len(inputs)))[:, None]
        return shift + stretch * rng.standard_normal(shift.shape) @ self.scatter.T

    def explain(self, hypotheses: "Hypotheses", value: np.ndarray, noise: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Log-density of what was measured, averaged over its explanations with the expected shift, shape ``(object,)``."""
        n, draws, _ = hypotheses.signal.shape
        shift = self.expected(hypotheses.inputs.reshape(n * draws, -1)).reshape(hypotheses.signal.shape)
        covariance = np.where(seen, noise, 1.0)[:, :, None] ** 2 * np.eye(seen.shape[1]) + self.scatter @ self.scatter.T
        inverse, log_det = _masked_inverse(covariance, seen)
        left = np.where(seen[:, None], value[:, None] - hypotheses.signal - shift, 0.0)
        distance = np.einsum("nhc,ncd,nhd->nh", left, inverse, left, optimize=True)
        dof = TAIL + seen.sum(1)
        constant = gammaln(dof / 2) - gammaln(TAIL / 2) - 0.5 * seen.sum(1) * np.log(TAIL * np.pi) - 0.5 * log_det
        fit = hypotheses.log_weight - 0.5 * dof[:, None] * np.log1p(distance / TAIL)
        return np.asarray(constant + np.logaddexp.reduce(fit, axis=1) - np.log(draws))

    @classmethod
    def nothing(cls, basis: Basis, scatter: np.ndarray) -> "Discrepancy":
        """No shift, and the scatter of another discrepancy: what a shift is compared with."""
        mean = np.zeros((len(basis.groups), len(scatter)))
        return cls(basis, mean, mean[None], scatter)

    def to_dict(self) -> dict[str, Any]:
        """Plain content, for JSON."""
        parts = {"basis": {k: v.tolist() for k, v in vars(self.basis).items()}}
        return parts | {k: getattr(self, k).tolist() for k in ("mean", "draws", "scatter")}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "Discrepancy":
        """Inverse of :meth:`to_dict`."""
        basis = Basis(**{k: np.array(v) for k, v in content["basis"].items()})
        return cls(basis, *(np.array(content[k]) for k in ("mean", "draws", "scatter")))


@dataclass(frozen=True)
class Hypotheses:
    """What the simulator offers as explanations of real objects: draws of unknown parameters and nuisances.

    Attributes:
        inputs: what the shift may depend on, shape ``(object, draw, input)``.
        signal: noise-free signals, shape ``(object, draw, channel)``.
        log_weight: prior weight of each draw, shape ``(object, draw)``.
    """

    inputs: np.ndarray
    signal: np.ndarray
    log_weight: np.ndarray


def fit_discrepancy(
    basis: Basis,
    hypotheses: Hypotheses,
    value: np.ndarray,
    noise: np.ndarray,
    seen: np.ndarray,
    scale: np.ndarray | None = None,
    scatter: float = 0.02,
    start: float = 0.2,
    iterations: int = 24,
    draws: int = 64,
    seed: int = 0,
) -> Discrepancy:
    """Learn the discrepancy by EM over explanations, weights and variances.

    Args:
        basis: functions of the inputs.
        hypotheses: explanations of each object; its responsibilities are found along the way.
        value: measured, shape ``(object, channel)``; not read where not ``seen``.
        noise: standard deviation of the measurement, same shape.
        seen: which channels were observed, boolean, same shape.
        scale: unit of each channel's shift, shape ``(channel,)``; ones by default.
        scatter: floor of the scatter R, in ``scale``.
        start: scatter at the first iteration, in ``scale``; it lets explanations far off take part.
        iterations: of EM.
        draws: posterior draws kept.
        seed: of these draws.
    """
    n, channels = value.shape
    groups = basis.groups
    functions, size = len(groups), len(groups) * channels
    phi = basis(hypotheses.inputs.reshape(-1, hypotheses.inputs.shape[-1])).reshape(n, -1, functions)
    scale = np.ones(channels) if scale is None else scale
    noise = np.where(seen, noise, 1.0)
    residual = np.where(seen[:, None], value[:, None] - hypotheses.signal, 0.0)
    floor = np.diag((scatter * scale) ** 2)
    tau, extra = 0.1 * scale, np.diag((start * scale) ** 2)
    names = np.unique(groups)
    level = np.where(names == 0, 1.0, 0.3)
    mean, spread = np.zeros((functions, channels)), np.zeros((size, size))
    for step in range(iterations):
        inverse, log_det = _masked_inverse(noise[:, :, None] ** 2 * np.eye(channels) + extra, seen)
        left = np.where(seen[:, None], residual - phi @ mean, 0.0)
        distance = np.einsum("nhc,ncd,nhd->nh", left, inverse, left, optimize=True)
        freedom = TAIL + seen.sum(1)[:, None]
        fit = hypotheses.log_weight - 0.5 * freedom * np.log1p(distance / TAIL)
        share = np.exp(fit - np.logaddexp.reduce(fit, axis=1)[:, None]) * freedom / (TAIL + distance)
        outer = np.einsum("nh,nhk,nhl->nkl", share, phi, phi, optimize=True).reshape(n, -1)
        precision = (outer.T @ inverse.reshape(n, -1)).reshape(functions, functions, channels, channels)
        precision = precision.transpose(0, 2, 1, 3).reshape(size, size)
        prior = level[groups][:, None] * tau**2
        precision[np.diag_indices(size)] += 1 / prior.ravel()
        target = np.einsum("nh,nhk,nhc,ncd->kd", share, phi, residual, inverse, optimize=True)
        root = np.linalg.cholesky(precision)
        inverse_root = solve_triangular(root, np.eye(size), lower=True)
        spread = inverse_root.T @ inverse_root
        mean = (spread @ target.ravel()).reshape(functions, channels)
        variance = np.diag(spread).reshape(functions, channels)
        determined = np.clip(1 - variance / prior, 1e-3, 1.0)
        level = np.array([(mean[groups == g] ** 2 / tau**2).sum() / determined[groups == g].sum() for g in names])
        level = np.maximum(level / level.max(), 1e-6)
        tau = np.sqrt((mean**2 / level[groups][:, None]).sum(0) / determined.sum(0))
        tau = np.maximum(tau, 1e-3 * scale)
        if step < iterations // 2:
            extra = np.maximum(0.7 * extra, floor)
        else:
            kept = _well_explained(np.einsum("nh,nh->n", share, distance) / share.sum(1), seen.sum(1))
            extra = _scatter(residual[kept], phi[kept], share[kept], mean, spread, noise[kept], seen[kept], extra, floor)
    sampled = mean + (np.random.default_rng(seed).standard_normal((draws, size)) @ inverse_root).reshape(draws, functions, channels)
    values, vectors = np.linalg.eigh(extra)
    return Discrepancy(basis, mean, sampled, vectors * np.sqrt(np.maximum(values, 0.0)))


def _scatter(
    residual: np.ndarray, phi: np.ndarray, share: np.ndarray, mean: np.ndarray, spread: np.ndarray, noise: np.ndarray,
    seen: np.ndarray, extra: np.ndarray, floor: np.ndarray, strength: float = 5.0,
) -> np.ndarray:
    """Moments of the residuals beyond noise and uncertain shift, never below the floor; shrunk to it by ``strength`` objects.

    Objects count in a channel by the inverse of their variance, as in a step of Fisher's scoring.
    """
    n, channels = seen.shape
    share = share / share.sum(1, keepdims=True)
    left = np.where(seen[:, None], residual - phi @ mean, 0.0)
    typical = np.einsum("nh,nhk->nk", share, phi)
    functions = typical.shape[1]
    halves = (typical @ spread.reshape(functions, -1)).reshape(n, channels, functions, channels)
    moments = np.einsum("nh,nhc,nhd->ncd", share, left, left, optimize=True)
    dof = np.median(seen.sum(1))
    moments /= chi2.cdf(chi2.ppf(TRUSTED, dof), dof + 2) / TRUSTED
    moments += np.einsum("nckd,nk->ncd", halves, typical) - noise[:, :, None] ** 2 * np.eye(channels)
    precise = np.where(seen, 1 / (noise**2 + np.diag(extra)), 0.0)
    precise /= np.maximum(precise.max(0), np.finfo(float).tiny)
    weight = precise[:, :, None] * precise[:, None]
    new = ((weight * moments).sum(0) + strength * floor) / (weight.sum(0) + strength) - floor
    values, vectors = np.linalg.eigh(0.5 * (new + new.T))
    return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T + floor)


def _well_explained(distance: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """The :data:`TRUSTED` share of objects nearest to their explanations, for their numbers of channels."""
    tail = chi2.logsf(distance, np.maximum(seen, 1))
    return np.asarray(np.argsort(-tail, kind="stable")[: max(1, round(TRUSTED * len(tail)))])


def _masked_inverse(covariance: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Inverse within the channels seen, zero elsewhere, and the log-determinants."""
    both = seen[:, :, None] & seen[:, None, :]
    filled = np.where(both, covariance, np.eye(covariance.shape[-1]))
    return np.where(both, np.linalg.inv(filled), 0.0), np.linalg.slogdet(filled)[1]
