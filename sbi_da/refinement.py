r"""Posteriors refined by the likelihood: draws of an estimator, weighted by how well they explain the measurements.

.. math:: w = \frac{p(x\mid\theta)\,p(\theta)}{g(\theta)},\qquad
          g = (1 - \epsilon)\,q(\theta\mid x) + \epsilon\,q_\mathrm{wide}(\theta\mid x)

with the likelihood of :mod:`sbi_da.likelihood`, a mean over draws of the simulator's nuisances (and of parameters the estimator does not
infer), which leaves the weights unbiased, and a part of the proposals widened in normal scores (defensive sampling: Hesterberg 1995,
Technometrics 37, 185): a posterior that is too narrow then shows in the weights. Further rounds propose from kernels about what carries
the weight. The effective sample size says how much was left; the mean of the weights is the evidence.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import logsumexp
from scipy.stats import norm

from sbi_da.distributions import Law, distribution_from_dict
from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.importance import effective, kernels_about, low_ess, normalised, tempered
from sbi_da.layout import Layout, Observations
from sbi_da.likelihood import log_likelihood, needed
from sbi_da.posteriors import Posterior
from sbi_da.posteriors.noise import object_generator, resample
from sbi_da.prior import Prior
from sbi_da.records import ABSENT, Records
from sbi_da.simulators import Simulator, get_simulator

__all__ = ["Joint", "Refinement", "log_evidence", "refine", "simulator_of"]

WIDENED, WIDTH = 0.2, 2.0
"""Share of the proposals that are widened, and by how much, in normal scores."""
TEMPERED = 0.2
"""Effective share of the draws that kernels of a further round stand about."""
NUISANCES = 16
"""Draws of what else is random, for each parameter vector."""


@dataclass(frozen=True)
class Joint:
    """Density of parameters and measurements of single objects.

    Attributes:
        simulator: sends signals; its normal offsets are integrated exactly.
        prior: of all its parameters.
        layout: who measured.
        nuisances: draws of what else is random, for each parameter vector.
    """

    simulator: Simulator
    prior: Prior
    layout: Layout
    nuisances: int

    def log_prob(self, theta: Mapping[str, np.ndarray], observed: Observations, rng: np.random.Generator) -> np.ndarray:
        """Log p(x, theta) of one object, estimated, shape ``(draw,)``.

        Args:
            theta: parameters that are inferred, each of shape ``(draw,)``; the others are drawn.
            observed: measurements of one object.
            rng: of nuisances and of parameters that are not inferred.
        """
        count = len(next(iter(theta.values())))
        z = rng.standard_normal((count * self.nuisances, len(self.prior.names)))
        full = self.prior.from_normal(z, {k: np.repeat(v, self.nuisances) for k, v in theta.items()})
        log_p: Any = self.prior.log_prob(full)
        for i, name in enumerate(self.prior.names):
            if name not in theta:
                log_p = log_p - self.prior.log_density_ratio(name, full, z[:, i]) - norm.logpdf(z[:, i])
        good = np.isfinite(log_p)
        if not good.any():
            return np.full(count, -np.inf)
        filled = {k: np.where(good, v, v[good.argmax()]) for k, v in full.items()}
        log_p = np.where(good, log_p + self._likelihood(filled, observed, rng), -np.inf)
        return np.asarray(logsumexp(log_p.reshape(count, -1), axis=1)) - np.log(self.nuisances)

    def _likelihood(self, theta: Mapping[str, np.ndarray], observed: Observations, rng: np.random.Generator) -> np.ndarray:
        count = len(next(iter(theta.values())))
        total, start = np.zeros(count), 0
        if not (observed.state != ABSENT).any():
            return total
        sky = self.simulator.without_offsets().at(theta, rng)
        for survey in self.layout.surveys:
            own = slice(start, start + len(survey.channels))
            start = own.stop
            value, error, state = observed.value[0, own], observed.error[0, own], observed.state[0, own]
            if not (state != ABSENT).any():
                continue
            signal = np.zeros((count, len(survey.channels)))
            for k in needed(survey, state):
                signal[:, k] = sky.signal(survey.channels[k])
            offset = np.array([self.simulator.offset_sd(channel) for channel in survey.channels])
            total += log_likelihood(survey, signal, value, error, state, offset)
        return total


@dataclass(frozen=True)
class Refinement:
    """How posteriors are refined.

    Attributes:
        joint: density of parameters and measurements.
        rounds: of proposals: after the first, from kernels about the draws that carry the weight, for objects of which less than half does.
    """

    joint: Joint
    rounds: int = 1

    @classmethod
    def of(
        cls,
        estimator: Estimator,
        rounds: int = 1,
        nuisances: int = NUISANCES,
        prior: Mapping[str, Law | Mapping[str, Any]] | None = None,
        simulator: Simulator | None = None,
    ) -> "Refinement":
        """For the posteriors of an estimator; arguments and errors are those of :func:`refine`."""
        if nuisances < 1 or rounds < 1:
            raise SbiDaError(f"refine: nuisances ({nuisances}) and rounds ({rounds}) must be at least 1")
        if estimator.target != "density":
            raise SbiDaError(f"refine: this estimator infers the {estimator.target} {estimator.parameter_names[0]}, and has no likelihood")
        simulator = simulator or simulator_of(estimator)
        strange = [name for name in estimator.parameter_names if name not in simulator.prior.names]
        if strange:
            raise SbiDaError(
                f"refine: {', '.join(strange)} is inferred, and the likelihood takes {', '.join(simulator.prior.names)} only: infer these, "
                f"and {strange[0]} as a derived quantity"
            )
        laws = {k: law if isinstance(law, Law) else distribution_from_dict(law, f"prior.{k}") for k, law in (prior or {}).items()}
        return cls(Joint(simulator, simulator.prior.replaced(laws), estimator.layout, nuisances), rounds)

    def weigh(self, posterior: Posterior, observed: Observations, draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws and their weights: each object's depend on its identifier, its context and measurements, and the seed alone.

        Args:
            posterior: proposes; objects behind those observed are left out.
            observed: measurements.
            draws: of each object and round.
            seed: of everything that is drawn.

        Returns:
            Normal scores, shape ``(object, draw, parameter)``, and log-weights, shape ``(object, draw)``.
        """
        z = posterior.normal_scores(draws, seed)[: len(observed)].astype(float)
        log_weight = np.empty(z.shape[:2])
        for i in range(len(observed)):
            alone = replace(posterior, context=posterior.context[i : i + 1], ids=posterior.ids[i : i + 1])
            z[i], log_proposal = _proposed(alone, z[i])
            rng = object_generator(posterior.ids[i], seed + 23)
            one = observed.take(np.array([i]))
            log_weight[i] = _log_weight(self.joint, posterior.prior, z[i], log_proposal, one, rng)
            for _ in range(self.rounds - 1):
                if effective(normalised(log_weight[i])) >= draws / 2 or not np.isfinite(log_weight[i]).any():
                    break
                kernels = kernels_about(z[i], tempered(log_weight[i], TEMPERED * draws), rng)
                again = kernels.sample(draws, rng)
                found = _log_weight(self.joint, posterior.prior, again, kernels.log_prob(again), one, rng)
                if effective(normalised(found)) >= effective(normalised(log_weight[i])):
                    z[i], log_weight[i] = again, found
        return z, log_weight


def log_evidence(log_weight: np.ndarray) -> np.ndarray:
    """Log of the mean weight, shape ``(object,)``."""
    return np.asarray(logsumexp(log_weight, axis=1)) - np.log(log_weight.shape[1])


def simulator_of(estimator: Estimator) -> Simulator:
    """The simulator whose posterior an estimator learned.

    Raises:
        SbiDaError: none is recorded, or it was corrected by alignment, and the artefact does not hold the correction.
    """
    if estimator.simulator is None:
        raise SbiDaError("refine: this estimator names no simulator, so has no likelihood: refine(..., simulator=...) in Python takes one")
    if estimator.metadata.get("alignment", {}).get("verdict", {}).get("kept"):
        raise SbiDaError(
            f"refine: this estimator was aligned, and the likelihood of {estimator.simulator.name} is no longer its own: refine the "
            "unaligned one (refine(..., simulator=...) in Python takes the corrected simulator)"
        )
    return get_simulator(estimator.simulator.name, **estimator.simulator.options)


def refine(
    estimator: Estimator,
    records: Records,
    draws: int = 1000,
    seed: int = 0,
    nuisances: int = NUISANCES,
    rounds: int = 1,
    prior: Mapping[str, Law | Mapping[str, Any]] | None = None,
    simulator: Simulator | None = None,
) -> xr.Dataset:
    """Draws of the posteriors of ``records``, refined by the likelihood.

    Args:
        estimator: proposes.
        records: the objects, seen by surveys with scalar channels.
        draws: proposed for each object and round, and returned.
        seed: of everything that is drawn.
        nuisances: draws of companions, discs and the like for each parameter vector.
        rounds: of proposals: after the first, from kernels about the draws that carry the weight, for objects of which less than half does.
        prior: laws that replace those of the simulator's prior.
        simulator: whose likelihood; by default the one the estimator was trained on.

    Returns:
        As :meth:`~sbi_da.posteriors.Posterior.sample`, with, by object, ``effective_sample_size`` (0 and draws NaN where none
        explains the object), ``log_evidence`` (up to factors without parameters) and ``low_ess``.

    Raises:
        SbiDaError: no parameters are inferred, or some the simulator derives; images; no simulator, or an aligned estimator's.
    """
    if draws < 2:
        raise SbiDaError(f"refine: draws must be at least 2, not {draws}")
    how = Refinement.of(estimator, rounds, nuisances, prior, simulator)
    observed = estimator.layout.read(records)
    for name, image in observed.images.items():
        if (image.state != ABSENT).any():
            raise SbiDaError(f"refine: images of {name} have no likelihood here: leave them out by selecting other surveys")
    posterior: Posterior = estimator(records)
    z, log_weight = how.weigh(posterior, observed, draws, seed)
    return _resampled(posterior, z, log_weight, draws, seed)


def _log_weight(
    joint: Joint, prior: Prior, z: np.ndarray, log_proposal: np.ndarray, observed: Observations, rng: np.random.Generator
) -> np.ndarray:
    """Log p(x, theta), as a density of normal scores, less that of the proposal, shape ``(draw,)``."""
    inside = (np.abs(z) < 7.9).all(1)
    z = np.where(inside[:, None], z, 0.0)
    theta = prior.from_normal(z)
    found = joint.log_prob(theta, observed, rng) - prior.log_jacobian(theta, z)
    possible = inside & (found > -np.inf) & (log_proposal > -np.inf)
    return np.where(possible, found - np.where(possible, log_proposal, 0.0), -np.inf)


def _proposed(posterior: Posterior, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws of one object, some of them widened, and the log-density that all were drawn from; ``z`` has shape ``(draw, parameter)``."""
    middle, wide = z.mean(0), max(1, round(WIDENED * len(z)))
    z = np.concatenate([z[:-wide], middle + WIDTH * (z[-wide:] - middle)])
    narrow, widened = np.split(_log_scores(posterior, np.concatenate([z, middle + (z - middle) / WIDTH])[None])[0], 2)
    share = wide / len(z)
    return z, np.logaddexp(np.log1p(-share) + narrow, np.log(share) + widened - z.shape[1] * np.log(WIDTH))


def _log_scores(posterior: Posterior, z: np.ndarray) -> np.ndarray:
    """Log-density of the head in normal scores; ``-inf`` beyond the prior's support."""
    inside = (np.abs(z) < 7.9).all(-1)
    z = np.where(inside[..., None], z, 0.0)
    theta = posterior.prior.from_normal(z)
    found = np.asarray(posterior.log_prob(theta)) - posterior.prior.log_jacobian(theta, z)
    return np.where(inside, found, -np.inf)


def _resampled(posterior: Posterior, z: np.ndarray, log_weight: np.ndarray, draws: int, seed: int) -> xr.Dataset:
    chosen, ess = resample(log_weight, draws, posterior.ids, seed)
    theta = posterior.prior.from_normal(z)
    valid = ess > 0
    values = {k: np.where(valid[:, None], np.take_along_axis(v, chosen, axis=1), np.nan) for k, v in theta.items()}
    if posterior.derived and posterior.derive is not None:
        found = posterior.derive({k: v[valid].ravel() for k, v in values.items()})
        for name in posterior.derived:
            values[name] = np.full(log_weight.shape, np.nan)
            values[name][valid] = np.asarray(found[name]).reshape(-1, draws)
    data: dict[str, Any] = {k: (("object", "draw"), v, {"units": posterior.units.get(k, "")}) for k, v in values.items()}
    low = ess < low_ess(draws)
    data |= {
        "effective_sample_size": ("object", ess), "low_ess": ("object", low),
        "log_evidence": ("object", log_evidence(log_weight)),
    }
    if low.any():
        warnings.warn(
            f"effective sample size below {low_ess(draws):g} for {low.sum()} of {len(ess)} objects (lowest {ess.min():.0f}): few of "
            "the estimator's draws explain what was measured; raise draws or rounds, or doubt the estimator or the simulator there",
            stacklevel=3,
        )
    return xr.Dataset(data, coords={"object": posterior.ids, "draw": np.arange(draws)}, attrs={"seed": seed})
