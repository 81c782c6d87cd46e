r"""Model discrepancy: what reality adds to the simulator, learned from objects whose parameters are known.

After Kennedy & O'Hagan (2001, J. R. Stat. Soc. B 63, 425) an observation is

.. math:: x_o = s(\theta) + \delta(\theta) + \varepsilon + \eta,\qquad \eta\sim t_\nu(0, R),

with the simulator's signal and noise :math:`s, \varepsilon`, a shift :math:`\delta = V f(\theta)`, and a scatter R that the
simulator lacks (a reality that says less than the simulator). The columns of V are the principal directions, over the channels, of
what the simulator leaves unexplained; along each, f is a Gaussian process with lengths, amplitude and scatter of its own, all
learned, so a shift of brightness may be rough where a shift of colour is smooth, and one the data do not ask for vanishes.
Cross-validation says where the uncertainty of this fit is too small or too large (:mod:`sbi_da.alignment.inflation`). What the
labels do not fix (companions, discs, parameters without a label) is summed over: draws of it compete to explain an object. Objects
simulated with draws of :math:`\delta` and of the scatter teach an estimator what reality looks like, and what of it is not known.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch

from sbi_da.alignment.explanations import TAIL, Hypotheses, Unexplained, compare, masked_inverse
from sbi_da.alignment.gaussian_process import Kernel, Processes, learn
from sbi_da.alignment.inflation import FACTORS, Inflation

__all__ = ["LARGEST", "Discrepancy", "fit_discrepancy"]

REACH = 3.5
"""Inputs are cut at this value: the shift is constant beyond."""
LARGEST, LARGEST_FOLD = 1000, 300
"""Objects, at most, that the processes are given, and that they are given in cross-validation: time grows with the cube."""
LEARNED_FROM = 200
"""Objects, at most, that hyperparameters are learned from."""
STEPS = 15, 25
"""Of learning them, in a round of the first and of the second half."""
SWEEPS = 12
"""Passes over the processes in a round."""
NEAR = 0.5
"""Distance within which objects judge, in lengths of the first process."""


@dataclass(frozen=True)
class Discrepancy:
    """A shift known with uncertainty, and a scatter.

    Attributes:
        processes: the shift along each direction; None: no shift.
        directions: in the channels' units, shape ``(channel, process)``.
        scatter: a root of R, shape ``(channel, any)``. It and the uncertainty of the shift follow a Student law of :data:`TAIL` degrees
            of freedom: the wider tails stand for what the Gaussian processes take as known, their hyperparameters above all.
        inflation: factor of the covariance of both, by inputs; None: one.
    """

    processes: Processes | None
    directions: np.ndarray
    scatter: np.ndarray
    inflation: Inflation | None = None

    def expected(self, inputs: np.ndarray) -> np.ndarray:
        """Expected shift at inputs ``(object, input)``, shape ``(object, channel)``."""
        if self.processes is None:
            return np.zeros((len(inputs), len(self.directions)))
        return np.asarray(self.processes.mean(_cut(inputs)) @ self.directions.T)

    def sample(self, inputs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A draw of shift and scatter for each object, independent of the others', shape ``(object, channel)``."""
        stretch = np.sqrt(self._factor(inputs) * TAIL / rng.chisquare(TAIL, len(inputs)))[:, None]
        scatter = rng.standard_normal((len(inputs), self.scatter.shape[1])) @ self.scatter.T
        if self.processes is None:
            return np.asarray(stretch * scatter)
        mean, variance = self.processes.predict(_cut(inputs))
        unknown = np.sqrt(variance) * rng.standard_normal(mean.shape) @ self.directions.T
        return np.asarray(mean @ self.directions.T + stretch * (unknown + scatter))

    def score(self, hypotheses: Hypotheses, value: np.ndarray, noise: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Log-density of what was measured, averaged over its explanations, up to a constant of the channels seen; shape ``(object,)``."""
        own = np.where(seen, noise, 1.0)[:, :, None] ** 2 * np.eye(seen.shape[1])
        factor = self._factor(hypotheses.inputs.mean(1))[:, None, None]
        covariance = own + factor * (self.scatter @ self.scatter.T)
        return compare(hypotheses, value, seen, self._shift(hypotheses), covariance).log_density

    def without_shift(self) -> "Discrepancy":
        """The scatter alone: what a shift is compared with."""
        return replace(self, processes=None)

    def with_hidden(self, factor: float) -> "Discrepancy":
        """With a scatter that stands for a part of the shift that cannot be seen.

        Args:
            factor: how many times as large, as a standard deviation, as the scatter and the root mean square of the shift that was found,
                channel by channel.
        """
        seen = np.zeros((1, len(self.directions))) if self.processes is None else self.expected(self.processes.x.numpy())
        return replace(self, scatter=factor * np.concatenate([self.scatter, np.diag(np.sqrt(np.mean(seen**2, axis=0)))], axis=1))

    def covariance(self, inputs: np.ndarray) -> np.ndarray:
        """Of the unknown part of the shift and of the scatter, before their inflation, shape ``(object, channel, channel)``."""
        scatter = self.scatter @ self.scatter.T
        if self.processes is None:
            return np.repeat(scatter[None], len(inputs), 0)
        variance = self.processes.predict(_cut(inputs))[1]
        return np.asarray(np.einsum("cp,np,dp->ncd", self.directions, variance, self.directions, optimize=True) + scatter)

    def _factor(self, inputs: np.ndarray) -> np.ndarray:
        return np.ones(len(inputs)) if self.inflation is None else self.inflation(_cut(inputs))

    def _shift(self, hypotheses: Hypotheses) -> np.ndarray:
        n, draws, size = hypotheses.inputs.shape
        return self.expected(hypotheses.inputs.reshape(n * draws, size)).reshape(n, draws, -1)


def fit_discrepancy(
    hypotheses: Hypotheses,
    value: np.ndarray,
    noise: np.ndarray,
    seen: np.ndarray,
    scale: np.ndarray | None = None,
    floor: float = 0.005,
    start: float = 1.0,
    rounds: int = 8,
    folds: int = 5,
    sampled: bool = False,
    groups: np.ndarray | None = None,
    seed: int = 0,
) -> Discrepancy:
    """Learn the discrepancy, and by cross-validation how far its uncertainty can be trusted.

    Args:
        hypotheses: explanations of each object.
        value: measured, shape ``(object, channel)``; not read where not ``seen``.
        noise: standard deviation of the measurement, same shape.
        seen: which channels were observed, boolean, same shape.
        scale: unit of each channel's shift, shape ``(channel,)``; ones by default.
        floor: least scatter of a channel, in ``scale``.
        start: scatter in the first round, in ``scale``, halved in each: it lets explanations far off take part.
        rounds: how often explanations are weighed, directions found and processes fitted, in turn.
        folds: parts of the objects, each of which judges a fit to the rest; 0: none does.
        sampled: draw one explanation of each object in every round instead of averaging over them: for objects without labels.
        groups: objects of one group are judged together, shape ``(object,)``; None: each is its own.
        seed: of these draws, of folds, and of which objects are used where there are more than :data:`LARGEST`.
    """
    some = np.random.default_rng(seed).permutation(len(value))[:LARGEST]
    hypotheses, value, noise, seen = hypotheses[some], value[some], noise[some], seen[some]
    n, channels = value.shape
    group = np.arange(n) if groups is None else np.unique(groups[some], return_inverse=True)[1]
    scale = np.ones(channels) if scale is None else scale
    settings = (scale, floor, start, rounds, np.random.default_rng(seed) if sampled else None)
    found = _learn(hypotheses, value, noise, seen, *settings)
    fold = group % max(1, folds)
    if folds < 2 or n < 2 * folds or len(np.unique(fold)) < folds or found.processes is None:
        return found
    log_density = np.empty((n, len(FACTORS)))
    for k in range(folds):
        rest, held = np.flatnonzero(fold != k)[:LARGEST_FOLD], np.flatnonzero(fold == k)
        without = _learn(hypotheses[rest], value[rest], noise[rest], seen[rest], *settings)
        judges = hypotheses[held]
        shift, unknown = without._shift(judges), without.covariance(judges.inputs.mean(1))
        own = np.where(seen[held], noise[held], 1.0)[:, :, None] ** 2 * np.eye(channels)
        for j, factor in enumerate(FACTORS):
            log_density[held, j] = compare(judges, value[held], seen[held], shift, own + factor * unknown).log_density
    length = NEAR * found.processes.kernel.length[0].numpy()
    return replace(found, inflation=Inflation(_cut(hypotheses.inputs.mean(1)), length, log_density))


def _learn(
    hypotheses: Hypotheses, value: np.ndarray, noise: np.ndarray, seen: np.ndarray, scale: np.ndarray, floor: float, start: float,
    rounds: int, rng: np.random.Generator | None,
) -> Discrepancy:
    """In turn weigh the explanations, find the directions, fit the processes."""
    n, channels = value.shape
    scaled = replace(hypotheses, inputs=_cut(hypotheses.inputs), signal=hypotheses.signal / scale)
    value, noise = np.where(seen, value, 0.0) / scale, np.where(seen, noise / scale, 1.0)
    own = noise[:, :, None] ** 2 * np.eye(channels) + floor**2 * np.eye(channels)
    some = np.arange(min(n, LEARNED_FROM))
    found = Discrepancy(None, np.eye(channels), np.zeros((channels, 1)))
    kernel: Kernel | None = None
    uncertain = np.zeros((n, channels, channels))
    for step in range(rounds):
        wide = (start * 0.5**step) ** 2 * np.eye(channels)
        left = compare(scaled, value, seen, found._shift(scaled), own + uncertain + found.scatter @ found.scatter.T + wide, rng)
        covariance = np.where(seen[:, :, None] & seen[:, None, :], own + left.spread, 0.0)
        if step < rounds // 2 or kernel is None:
            variances, directions = _principal(left, covariance, seen)
            kernel = Kernel.start(torch.from_numpy(np.sqrt(variances)), left.inputs.shape[1])
        kernel, processes = _fit(left, covariance, seen, directions, kernel, some, STEPS[step >= rounds // 2])
        white = kernel.white.numpy()
        found = Discrepancy(processes, directions, directions * white)
        spread = processes.predict(left.inputs)[1]
        uncertain = np.einsum("cp,np,dp->ncd", directions, spread, directions)
    scatter = np.concatenate([found.scatter, floor * np.eye(channels)], axis=1)
    return Discrepancy(found.processes, scale[:, None] * directions, scale[:, None] * scatter)


def _cut(inputs: np.ndarray) -> np.ndarray:
    return np.clip(inputs, -REACH, REACH)


def _principal(left: Unexplained, covariance: np.ndarray, seen: np.ndarray, steps: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Principal directions of the residuals beyond their covariance, and the variances along them: EM for missing channels."""
    channels = seen.shape[1]
    moment = 0.1**2 * np.ones((channels, channels)) + 0.05**2 * np.eye(channels)
    for _ in range(steps):
        inverse, _ = masked_inverse(moment + covariance, seen)
        gain = moment @ inverse
        known = np.einsum("ncd,nd->nc", gain, left.residual)
        moment = (np.einsum("n,nc,nd->cd", left.weight, known, known) + (moment - gain @ moment).sum(0)) / len(seen)
        moment = 0.5 * (moment + moment.T)
    values, vectors = np.linalg.eigh(moment)
    return np.maximum(values[::-1], 1e-6), vectors[:, ::-1].copy()


def _fit(
    left: Unexplained, covariance: np.ndarray, seen: np.ndarray, directions: np.ndarray, kernel: Kernel, some: np.ndarray, steps: int
) -> tuple[Kernel, Processes]:
    """Fit the processes in turn to what the others leave (backfitting), learn their hyperparameters, and fit again.

    In a direction v an object of residual r and covariance T (of noise, and of processes and scatter as they are known) measures
    :math:`f + v^T T^{-1}(r - Vf) / v^T T^{-1} v` with variance :math:`1 / v^T T^{-1} v` less the direction's own part of T.
    """
    x, weight = torch.from_numpy(left.inputs), torch.from_numpy(left.weight)
    values = np.zeros((len(seen), directions.shape[1]))
    own = (kernel.diagonal(x).T + kernel.white**2).numpy()
    for stage in range(2):
        total = covariance + np.einsum("cp,np,dp->ncd", directions, own, directions)
        precise = masked_inverse(total, seen)[0] @ directions
        information = np.maximum(np.einsum("cp,ncp->np", directions, precise), 1e-9)
        variance = torch.from_numpy(np.maximum(1 / information - own, 1e-9).T)
        prior = kernel(x, x)
        noise = (variance + kernel.white[:, None] ** 2) / weight
        gain = torch.linalg.solve(prior + torch.diag_embed(noise), prior).transpose(1, 2).numpy()
        for _ in range(SWEEPS):
            for p in range(directions.shape[1]):
                values[:, p] = gain[p] @ _measured(left.residual, values, directions, precise, information, seen, p)
        target = np.stack([
            _measured(left.residual, values, directions, precise, information, seen, p) for p in range(directions.shape[1])
        ])
        if stage == 0:
            kernel = learn(kernel, x[some], torch.from_numpy(target[:, some]), variance[:, some], weight[some], steps)
            spread = np.einsum("pnn->np", prior.numpy()) - np.einsum("pnm,pmn->np", gain, prior.numpy())
            own = np.maximum(spread, 0.0) + kernel.white.numpy() ** 2
    return kernel, Processes(kernel, x, torch.from_numpy(target), (variance + kernel.white[:, None] ** 2) / weight)


def _measured(
    residual: np.ndarray, values: np.ndarray, directions: np.ndarray, precise: np.ndarray, information: np.ndarray, seen: np.ndarray, p: int
) -> np.ndarray:
    """What each object says of process p, given the others."""
    rest = np.where(seen, residual - values @ directions.T, 0.0)
    return np.asarray(values[:, p] + np.einsum("nc,nc->n", precise[:, :, p], rest) / information[:, p])
