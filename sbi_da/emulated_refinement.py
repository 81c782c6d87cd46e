r"""Posteriors refined by an emulator: draws of an estimator, moved and weighted until they are those of the emulator's likelihood.

.. math:: w = \frac{q(x\mid\theta)\,p(\theta)}{g(\theta)}

where :math:`g` is a mixture of Student kernels, each as wide as its neighbourhood, about the estimator's draws and, in further rounds,
about what carries the weight. The density of the estimator is not needed. Data that were not seen are integrated out, in closed form, and
so are parameters known; the effective sample size says how well the kernels cover the posterior. Draws that were kept several times are
then moved apart by Metropolis steps along differences of others (Gilks & Berzuini 2001, J. R. Stat. Soc. B 63, 127; ter Braak 2006, Stat.
Comput. 16, 239), which leave the posterior as it is.
"""

import warnings
from collections.abc import Mapping

import numpy as np
import torch
import xarray as xr
from scipy.special import logsumexp
from scipy.stats import norm

from sbi_da.emulator import Emulator
from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.importance import local_kernels, low_ess, tempered
from sbi_da.posteriors import Posterior
from sbi_da.posteriors.noise import object_generator, resample
from sbi_da.prior import Prior
from sbi_da.records import ABSENT, LIMIT, OBSERVED, Records

__all__ = ["refine_by_emulator", "refined_log_density"]

POINTS = 10_000
"""Draws that the kernels of a further round are chosen from."""
TEMPERED = 0.25
"""Effective share of the draws that the kernels of a further round stand about."""
EDGE = 7.9
"""Normal scores beyond this are beyond the prior."""
STRIDES = (1.0, 0.5, 0.2)
"""Of Metropolis steps, in units of the best for a Gaussian."""
ROWS = 16_384
"""Draws per call of the emulator."""


def refine_by_emulator(
    estimator: Estimator,
    records: Records,
    emulator: Emulator,
    draws: int = 1000,
    seed: int = 0,
    known: Mapping[str, float] | None = None,
    rounds: int = 3,
    pilot: int = 2000,
    proposals: int | None = None,
    moves: int = 20,
) -> xr.Dataset:
    """Draws of the posteriors of ``records`` under the estimator's prior and an emulator's likelihood.

    Args:
        estimator: says where to look.
        records: the objects; what they did not measure is integrated out.
        emulator: of all channels of the estimator, in its order.
        draws: returned for each object.
        seed: of everything that is drawn.
        known: values of parameters that are known.
        rounds: of proposals, at most: until half of the draws are effective; the one with the most counts.
        pilot: draws of the estimator that the first kernels stand about.
        proposals: of each round, for each object; None: as many as draws.
        moves: Metropolis steps of every draw in the end.

    Returns:
        Parameters that are not known, dimensions ``(object, draw)``, with, by object, ``effective_sample_size`` (0 and draws NaN
        where no draw explains the object), ``low_ess`` and ``log_evidence``, log p(x) or, with ``known``, log p(x, known).

    Raises:
        SbiDaError: no parameters are inferred; an emulator of other channels; upper limits or images; nothing that is not known.
    """
    proposals = draws if proposals is None else proposals
    given = {"draws": (draws, 2), "proposals": (proposals, 2), "rounds": (rounds, 1), "pilot": (pilot, 20), "moves": (moves, 0)}
    for name, (value, least) in given.items():
        if value < least:
            raise SbiDaError(f"refine: {name} must be at least {least}, not {value}")
    if estimator.target != "density":
        raise SbiDaError(f"refine: this estimator infers the {estimator.target} {estimator.parameter_names[0]}, which no emulator explains")
    held = dict(known or {})
    free = [name for name in estimator.parameter_names if name not in held]
    if not free:
        raise SbiDaError("refine: every parameter is known")
    observed = estimator.layout.read(records)
    if observed.value.shape[1] != len(emulator.data_centre):
        raise SbiDaError(f"refine: the emulator draws {len(emulator.data_centre)} entries, the estimator reads {observed.value.shape[1]}")
    if (observed.state == LIMIT).any():
        raise SbiDaError("refine: upper limits have no likelihood under an emulator: leave them out of the records")
    for name, image in observed.images.items():
        if (image.state != ABSENT).any():
            raise SbiDaError(f"refine: images of {name} have no likelihood under an emulator: leave them out by selecting other surveys")
    x = np.where(observed.state == OBSERVED, observed.value, np.nan)
    posterior: Posterior = estimator(records)
    if held:
        posterior = posterior.given(**held)
    first = posterior.marginal(free).sample(pilot, seed)
    target = _Target(posterior.prior, free, held, emulator)
    shape = (len(records), proposals)
    z, log_weight, kept = np.empty((*shape, len(free))), np.full(shape, -np.inf), np.empty((len(records), draws, len(free)))
    numbers = [object_generator(identifier, seed + 29) for identifier in records.ids]
    for i, rng in enumerate(numbers):
        start = target.scores({name: first[name].values[i] for name in free})
        if len(start):
            z[i], log_weight[i] = _refined(target, x[i], start, proposals, rounds, rng)
    chosen, ess = resample(log_weight, draws, records.ids, seed)
    for i, rng in enumerate(numbers):
        kept[i] = z[i, chosen[i]]
        if ess[i] > 0 and moves:
            kept[i] = _moved(target, x[i], kept[i], moves, rng)
    theta = target.theta(kept)
    found_any = ess[:, None] > 0
    data = {
        name: (("object", "draw"), np.where(found_any, theta[name], np.nan), {"units": posterior.units.get(name, "")}) for name in free
    }
    found = xr.Dataset(data, coords={"object": records.ids, "draw": np.arange(draws)}, attrs={"seed": seed})
    found["effective_sample_size"] = ("object", ess)
    low = ess < low_ess(draws)
    if low.any():
        warnings.warn(
            f"effective sample size below {low_ess(draws):g} for {low.sum()} of {len(ess)} objects (lowest {ess.min():.0f}): the "
            "estimator looks elsewhere than the emulator; raise draws or rounds, or doubt either there",
            stacklevel=2,
        )
    found["low_ess"] = ("object", low)
    found["log_evidence"] = ("object", logsumexp(log_weight, axis=1) - np.log(proposals))
    return found


def refined_log_density(estimator: Estimator, records: Records, emulator: Emulator, draws: int = 500, seed: int = 0) -> np.ndarray:
    """Log-density of the parameters of simulations, refined, in normal scores of the prior [nats], shape ``(object,)``.

    What :func:`~sbi_da.held_out.held_out_log_density` is for an estimator: on simulations apart the two say which is better.

    Args:
        estimator: as of :func:`refine_by_emulator`, like all below.
        records: simulations, with their parameters.
        emulator: of all channels of the estimator.
        draws: for the evidence of each.
        seed: of everything that is drawn.
    """
    refined = refine_by_emulator(estimator, records, emulator, draws, seed, rounds=2, pilot=max(20, draws // 2), moves=0)
    prior, observed = estimator.prior, estimator.layout.read(records)
    z = prior.to_normal(records.parameters)
    x = np.where(observed.state == OBSERVED, observed.value, np.nan)
    vectors = np.stack([records.parameters[name] for name in prior.names], -1)
    with torch.inference_mode():
        level = emulator.log_likelihood(torch.from_numpy(vectors).float(), torch.from_numpy(x).float()).double().numpy()
    return np.asarray(norm.logpdf(z).sum(-1) + level - refined["log_evidence"].values)


def _refined(
    target: "_Target", x: np.ndarray, start: np.ndarray, draws: int, rounds: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Normal scores of what is not known, shape ``(draw, parameter)``, and their log-weights, of the best round."""
    points, weight = start, np.full(len(start), 1 / len(start))
    best, best_weight, most = np.empty((draws, start.shape[1])), np.full(draws, -np.inf), -1.0
    for _ in range(rounds):
        kernels = local_kernels(points, weight, rng)
        z = kernels.sample(draws, rng)
        log_weight = target(z, x) - kernels.log_prob(z)
        finite = np.isfinite(log_weight)
        if not finite.any():
            break
        size = float(np.exp(2 * logsumexp(log_weight[finite]) - logsumexp(2 * log_weight[finite])))
        if size > most:
            best, best_weight, most = z, log_weight, size
        if size >= draws / 2:
            break
        some = rng.permutation(draws)[:POINTS]
        if not np.isfinite(log_weight[some]).any():
            break
        points, weight = z[some], tempered(log_weight[some], TEMPERED * len(some))
    return best, best_weight


def _moved(target: "_Target", x: np.ndarray, z: np.ndarray, moves: int, rng: np.random.Generator) -> np.ndarray:
    """Normal scores ``(draw, parameter)`` after some steps; each half steps along differences within the other."""
    z, level = z[rng.permutation(len(z))], np.empty(len(z))
    level[:] = target(z, x)
    half, size = len(z) // 2, z.shape[1]
    for _ in range(moves):
        for here, there in ((slice(half), z[half:]), (slice(half, None), z[:half])):
            count = len(z[here])
            first, second = rng.integers(len(there), size=(2, count))
            stride = rng.choice(STRIDES, (count, 1)) * 2.38 / np.sqrt(2 * size)
            new = z[here] + stride * (there[first] - there[second]) + 1e-9 * rng.standard_normal((count, size))
            new_level = target(new, x)
            taken = np.log(rng.random(count)) < new_level - level[here]
            z[here], level[here] = np.where(taken[:, None], new, z[here]), np.where(taken, new_level, level[here])
    return z


class _Target:
    """Density of what is not known, in normal scores, and of the data."""

    def __init__(self, prior: Prior, free: list[str], known: Mapping[str, float], emulator: Emulator) -> None:
        self.prior, self.free, self.known, self.emulator = prior, free, known, emulator
        self.columns = [prior.names.index(name) for name in free]

    def _whole(self, z: np.ndarray) -> np.ndarray:
        whole = np.zeros((*z.shape[:-1], len(self.prior.names)))
        whole[..., self.columns] = np.clip(z, -EDGE, EDGE)
        return whole

    def theta(self, z: np.ndarray) -> dict[str, np.ndarray]:
        """Parameters, those known included, of scores ``(..., parameter)``."""
        theta = self.prior.from_normal(self._whole(z), self.known)
        return {name: np.broadcast_to(value, z.shape[:-1]) for name, value in theta.items()}

    def scores(self, drawn: Mapping[str, np.ndarray]) -> np.ndarray:
        """Normal scores of draws ``(draw,)``, shape ``(draw, parameter)``; those beyond the prior are left out."""
        theta = {**{k: np.full(len(drawn[self.free[0]]), v) for k, v in self.known.items()}, **drawn}
        z = np.stack([self.prior.score(name, theta) for name in self.free], -1)
        return z[np.isfinite(z).all(1)]

    def __call__(self, z: np.ndarray, x: np.ndarray) -> np.ndarray:
        """Log-density ``(draw,)`` of scores ``(draw, parameter)`` and data ``(entry,)``; NaN was not seen."""
        theta, whole = self.theta(z), self._whole(z)
        log_p = norm.logpdf(z).sum(-1)
        for name in self.known:
            column = self.prior.names.index(name)
            log_p = log_p + self.prior.log_density_ratio(name, theta, whole[:, column]) + norm.logpdf(whole[:, column])
        if np.isfinite(x).any():
            vectors = torch.from_numpy(np.stack([theta[name] for name in self.prior.names], -1)).float()
            seen = torch.from_numpy(x).float()
            with torch.inference_mode():
                log_p = log_p + torch.cat([self.emulator.log_likelihood(part, seen) for part in vectors.split(ROWS)]).double().numpy()
        return np.where((np.abs(z) < EDGE).all(-1), log_p, -np.inf)
