r"""Weights that give simulated objects the population of the real ones: :math:`w(\theta) = p_o(\theta) / p_s(\theta)`.

Aligning features of two populations as they stand moves one population onto the other, whatever the instrument does; the
simulations have to be reweighted first. Everything happens in the prior's normal scores, where :math:`p_s` is
:math:`N(0, I)`, and :math:`p_o` is estimated from what there is:

- ``weights_from_labels``: tens of labelled real objects. A Gaussian by maximum likelihood, the errors of the labels deconvolved
  (Bovy, Hogg & Roweis 2011, arXiv 0905.2979, one component), shrunk towards the prior by the intensity of Ledoit & Wolf (2004).
- ``weights_from_sample``: a large external catalogue. A mixture of Gaussians, their number by BIC.
- ``population_em``: nothing but posteriors of the real objects. The population that makes the objects most probable, by EM over their
  draws, each weighted by population / prior (Dempster, Laird & Rubin 1977). It believes the posteriors: only where the instrument
  shift is small against the population shift.

Ratios are clipped, which bounds the variance and loses mass in the clipped region. Clipped ratios of mean one have an effective sample
size of at least 1 / 20 whatever happens, so that trust is judged by the ratios before clipping. Untrusted weights mean: switch the
distribution term off. Uniform weights instead would be the balanced alignment that all this is to avoid.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from sbi_da.errors import SbiDaError

__all__ = [
    "Population", "PopulationFit", "ThetaWeights", "density_ratio", "population_em", "population_of_sample", "weights_from_labels",
    "weights_from_sample",
]

CLIP = 20.0
LOWEST_EFFECTIVE = 0.05
"""Least effective sample size, as a fraction, of weights that are trusted."""
FEWEST = 10
"""Least number of labels, or of objects, or of effective draws of an object, that a population is fitted to."""
NARROWEST = 1e-4
"""Least variance of a population, that of the prior being one."""
Reference = Literal["prior", "rows"]


@dataclass(frozen=True)
class Population:
    """Mixture of Gaussians over normal scores.

    Attributes:
        fractions: shape ``(component,)``.
        means: shape ``(component, p)``.
        covariances: shape ``(component, p, p)``.
    """

    fractions: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    @classmethod
    def gaussian(cls, mean: np.ndarray, covariance: np.ndarray) -> "Population":
        """One component."""
        return cls(np.ones(1), np.asarray(mean, float)[None], np.asarray(covariance, float)[None])

    def joint(self, z: np.ndarray) -> np.ndarray:
        """Log-density of rows, shape ``(n, p)``, with each component; shape ``(n, component)``."""
        root = np.linalg.cholesky(self.covariances)
        u = np.linalg.solve(root, (z[:, None] - self.means).transpose(1, 2, 0))
        log_det = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(1)
        constant = np.log(np.maximum(self.fractions, 1e-300)) - log_det - 0.5 * z.shape[1] * np.log(2 * np.pi)
        return constant - 0.5 * np.square(u).sum(1).T

    def log_prob(self, z: np.ndarray) -> np.ndarray:
        """Log-density of rows, shape ``(n, p)``; shape ``(n,)``."""
        return _log_sum(self.joint(z))


@dataclass(frozen=True)
class ThetaWeights:
    """Weights of simulated objects.

    Attributes:
        weights: population / reference, at most 20, shape ``(n,)``.
        effective_sample_size: of the ratios before clipping, from 0 to n.
        kl: Kullback-Leibler divergence of the population from the reference in nats, from the ratios; not more than log n.
        trusted: whether to use them.
        reason: why not.
        population: the population they stand for.
    """

    weights: np.ndarray
    effective_sample_size: float
    kl: float
    trusted: bool
    reason: str
    population: Population


@dataclass(frozen=True)
class PopulationFit:
    """Outcome of :func:`population_em`.

    Attributes:
        population: the fit.
        effective_sample_size: of the weights of each object's draws, from 0 to the number of draws, shape ``(object,)``.
        log_likelihood: mean over objects of log p(object | population) / p(object | prior), per iteration; it rises.
        converged: whether it had stopped rising.
        reason: why the fit is not to be trusted; empty if it is.
    """

    population: Population
    effective_sample_size: np.ndarray
    log_likelihood: np.ndarray
    converged: bool
    reason: str

    def weights(self, z_simulated: np.ndarray, reference: Reference = "prior") -> ThetaWeights:
        """Weights of simulated objects, see :func:`density_ratio`."""
        return density_ratio(z_simulated, self.population, reference, self.reason)


def density_ratio(
    z_simulated: np.ndarray, population: Population, reference: Reference = "prior", reason: str = ""
) -> ThetaWeights:
    """Weights of simulated objects for a known population.

    Args:
        z_simulated: normal scores, shape ``(n, p)``.
        population: of the real objects.
        reference: law of ``z_simulated``: the prior, N(0, I); or, for another proposal, a mixture fitted to the rows.
        reason: why the population is not to be trusted, if it is not.
    """
    z = _rows(z_simulated, "z_simulated")
    p = z.shape[1]
    if population.means.shape[1] != p:
        raise SbiDaError(f"z_simulated has {p} parameters, the population {population.means.shape[1]}: use the same ones")
    if reference == "rows":
        law = _mixture(z[:, None], np.zeros((len(z), 1)), 3, 200).population
    else:
        law = Population.gaussian(np.zeros(p), np.eye(p))
    log_ratio = population.log_prob(z) - law.log_prob(z)
    relative = np.exp(log_ratio - log_ratio.max())
    relative /= relative.sum()
    effective = 1.0 / np.square(relative).sum()
    kl = float((relative * np.log(np.maximum(relative * len(z), 1e-300))).sum())
    if not reason and effective < LOWEST_EFFECTIVE * len(z):
        reason = f"effective sample size {effective:.0f} of {len(z)}: too few simulations where the real objects are"
    weights = np.minimum(np.exp(np.minimum(log_ratio, CLIP)), CLIP)
    return ThetaWeights(weights, float(effective), kl, not reason, reason, population)


def weights_from_labels(
    z_simulated: np.ndarray, z_labels: np.ndarray, errors: np.ndarray | float | None = None, reference: Reference = "prior"
) -> ThetaWeights:
    r"""Weights from a few real objects with known parameters.

    They are trusted from :math:`\max(10, p (p + 3) / 2)` labels on: a Gaussian has that many free numbers, each costs about
    :math:`1 / 2k` nats of :math:`\mathrm{KL}(p_o \| \hat p_o)`, and half a nat is the most we accept.

    Args:
        z_simulated: normal scores of the simulations, shape ``(n, p)``.
        z_labels: normal scores of the labels, shape ``(k, p)``; NaN where unknown.
        errors: their standard deviations, which broadcast to ``(k, p)``, or covariances, shape ``(k, p, p)``.
        reference: see :func:`density_ratio`.
    """
    labels = np.asarray(z_labels, float)
    if labels.ndim != 2 or labels.shape[1] != np.shape(z_simulated)[-1] or np.isinf(labels).any():
        raise SbiDaError(f"z_labels must be (label, {np.shape(z_simulated)[-1]}), NaN where unknown; got shape {labels.shape}")
    k, p = labels.shape
    noise = _noise(errors, k, p)
    known = np.isfinite(labels)
    needed = max(FEWEST, _free(1, p))
    fewest = int(known.sum(0).min()) if k else 0
    reason = "" if fewest >= needed else f"{fewest} labels; {needed} are needed for {p} parameters"
    population = Population.gaussian(np.zeros(p), np.eye(p))
    if k:
        noise = noise + np.eye(p) * np.where(known, 0.0, 1e6)[:, None]
        population = Population.gaussian(*_shrunk(*_deconvolved(np.where(known, labels, 0.0), noise), k))
    return density_ratio(z_simulated, population, reference, reason)


def weights_from_sample(
    z_simulated: np.ndarray, z_external: np.ndarray, components: int = 3, reference: Reference = "prior"
) -> ThetaWeights:
    """Weights from a large sample of the real population.

    Args:
        z_simulated: normal scores of the simulations, shape ``(n, p)``.
        z_external: normal scores of a catalogue with negligible errors, shape ``(k, p)``.
        components: most Gaussians of the mixture.
        reference: see :func:`density_ratio`.
    """
    return population_of_sample(z_external, components).weights(z_simulated, reference)


def population_of_sample(z_external: np.ndarray, components: int = 3) -> PopulationFit:
    """The population of a large sample with negligible errors.

    Args:
        z_external: normal scores, shape ``(k, p)``.
        components: most Gaussians of the mixture.
    """
    z = _rows(z_external, "z_external")
    return _mixture(z[:, None], np.zeros((len(z), 1)), components, 500)


def population_em(draws: np.ndarray, iterations: int = 500, components: int = 1) -> PopulationFit:
    """The population of real objects from their posteriors.

    Args:
        draws: normal scores drawn from posteriors under the prior N(0, I), shape ``(object, draw, p)``.
        iterations: most iterations; few are needed where posteriors are narrower than the population.
        components: most Gaussians of the mixture.

    Returns:
        The fit. It is not trusted if it did not converge, if the objects are worth fewer exact labels than numbers are fitted, or if
        for half of the objects fewer than ten draws carry the weight: the population then follows the draws there happen to be.
    """
    draws = np.asarray(draws, float)
    if draws.ndim != 3 or 0 in draws.shape or not np.isfinite(draws).all():
        raise SbiDaError(f"draws must be (object, draw, parameter), finite and not empty; got shape {draws.shape}")
    n, d, p = draws.shape
    log_prior = Population.gaussian(np.zeros(p), np.eye(p)).log_prob(draws.reshape(-1, p))
    return _mixture(draws, log_prior.reshape(n, d), components, iterations)


def _noise(errors: np.ndarray | float | None, k: int, p: int) -> np.ndarray:
    """Covariances of the errors of labels, shape ``(k, p, p)``."""
    noise = np.zeros(()) if errors is None else np.asarray(errors, float)
    if not np.isfinite(noise).all():
        raise SbiDaError("errors of labels must be finite: where a label is unknown set the label to NaN")
    if noise.shape == (k, p, p):
        return noise
    try:
        return np.square(np.broadcast_to(noise, (k, p)))[..., None] * np.eye(p)
    except ValueError:
        raise SbiDaError(f"errors of shape {noise.shape} do not fit labels of shape {(k, p)}") from None


def _deconvolved(
    labels: np.ndarray, noise: np.ndarray, iterations: int = 500
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean and covariance of maximum likelihood of ``labels``, shape ``(k, p)``, less their ``noise``, by EM."""
    noise = noise + NARROWEST * np.eye(labels.shape[1])
    mean, covariance = labels.mean(0), np.eye(labels.shape[1])
    for _ in range(iterations):
        before = covariance
        gain = covariance @ np.linalg.inv(covariance + noise)
        expected = mean + (gain @ (labels - mean)[..., None])[..., 0]
        mean = expected.mean(0)
        covariance = (expected - mean).T @ (expected - mean) / len(labels) + (before - gain @ before).mean(0)
        covariance = 0.5 * (covariance + covariance.T)
        if np.abs(covariance - before).max() < 1e-6:
            break
    return mean, covariance, noise


def _shrunk(mean: np.ndarray, covariance: np.ndarray, noise: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    r"""Mean and covariance of the predictive law, each moved to the prior's by the intensity of least expected squared error.

    With :math:`C` the harmonic mean of :math:`V + \mathrm{noise}_i`, the covariance of a Gaussian sample has the squared error
    :math:`(\mathrm{tr}\, C^2 + (\mathrm{tr}\, C)^2) / k`, its mean :math:`\mathrm{tr}\, C / k`. The first is evaluated from the
    prior's :math:`V = I` downwards, so that few labels which happen to agree are not believed.
    """
    eye = np.eye(len(mean))

    def spread(v: np.ndarray) -> np.ndarray:
        return np.linalg.inv(np.linalg.inv(v + noise).mean(0))

    found = covariance + spread(covariance) / k  # the degree of freedom spent on the mean
    shrunk = eye
    for _ in range(30):
        c = spread(shrunk)
        error = (np.square(c).sum() + np.trace(c) ** 2) / k
        intensity = min(1.0, error / max(np.square(found - eye).sum(), 1e-12))
        shrunk = (1 - intensity) * found + intensity * eye
    values, axes = np.linalg.eigh(shrunk)
    subtracted = np.diagonal(axes.T @ (spread(shrunk) - shrunk) @ axes)
    least = np.minimum(np.sqrt(2 / k) * subtracted, 1.0)  # as narrow as the errors allow to know, and no wider than the prior
    shrunk = (axes * np.maximum(values, least)) @ axes.T
    c = spread(shrunk)
    kept = max(0.0, 1 - np.trace(c) / k / max(mean @ mean, 1e-12))
    return kept * mean, shrunk + kept * c / k


def _mixture(draws: np.ndarray, log_prior: np.ndarray, components: int, iterations: int) -> PopulationFit:
    """The mixture of at most so many components: one more for as long as BIC falls."""
    if components < 1:
        raise SbiDaError(f"a mixture needs at least 1 component, not {components}")
    n, _, p = draws.shape

    def bic(fit: PopulationFit, c: int) -> float:
        return _free(c, p) * np.log(n) - 2 * n * float(fit.log_likelihood[-1])

    best = _em(draws, log_prior, 1, iterations)
    for c in range(2, components + 1):
        fit = _em(draws, log_prior, c, iterations)
        if bic(fit, c) >= bic(best, c - 1):
            break
        best = fit
    return best


def _em(draws: np.ndarray, log_prior: np.ndarray, components: int, iterations: int) -> PopulationFit:
    """EM of a mixture; a flat prior and one draw per object make it the ordinary fit to a sample.

    Every component has one pseudo-object of mean zero and covariance one.
    """
    n, d, p = draws.shape
    z = draws.reshape(-1, p)
    products = (z[:, :, None] * z[:, None]).reshape(-1, p * p)
    centre, total = z.mean(0), np.cov(z.T, ddof=0).reshape(p, p) + NARROWEST * np.eye(p)
    values, axes = np.linalg.eigh(total)
    offsets = np.linspace(-1, 1, components + 2)[1:-1, None] * 2 * np.sqrt(values[-1]) * axes[:, -1]
    fit = Population(np.full(components, 1 / components), centre + offsets, np.repeat(total[None], components, 0))
    likelihood: list[float] = []
    converged = False
    for _ in range(iterations):
        joint = fit.joint(z).reshape(n, d, components) - log_prior[..., None]
        evidence = _log_sum(joint.reshape(n, -1))
        likelihood.append(float(evidence.mean() - np.log(d)))
        share = np.exp(joint - evidence[:, None, None])
        converged = len(likelihood) > 1 and abs(likelihood[-1] - likelihood[-2]) < 1e-7
        if converged:
            break
        weight = share.reshape(-1, components)
        count, first, second = weight.sum(0), weight.T @ z, (weight.T @ products).reshape(-1, p, p)
        means = first / (count + 1)[:, None]
        cross = means[:, :, None] * first[:, None]
        outer = means[:, :, None] * means[:, None]
        scatter = second - cross - cross.transpose(0, 2, 1) + count[:, None, None] * outer + np.eye(p)
        covariances = scatter / (count + 1)[:, None, None] + NARROWEST * np.eye(p)
        fit = Population((count + 1) / (n + components), means, covariances)
    weights = share.sum(2)
    effective = 1.0 / np.square(weights).sum(1)
    worth = n * _information(draws, weights) ** 2
    needed = max(FEWEST, _free(components, p))
    reason = ""
    if worth < needed:
        reason = f"posteriors of {n} objects are worth {worth:.1f} exact labels; {needed} are needed for {p} parameters"
    elif not converged:
        reason = f"the population had not converged after {iterations} iterations"
    elif d > 1 and np.median(effective) < FEWEST:
        reason = f"median effective sample size {np.median(effective):.1f} of {d} draws per object: take more draws"
    return PopulationFit(fit, effective, np.array(likelihood), converged, reason)


def _free(components: int, p: int) -> int:
    """Numbers that describe a mixture."""
    return components * (p * (p + 3) // 2 + 1) - 1


def _log_sum(x: np.ndarray) -> np.ndarray:
    """Logarithm of the sum of exponentials of each row."""
    largest = x.max(1)
    return largest + np.log(np.exp(x - largest[:, None]).sum(1))


def _information(draws: np.ndarray, weights: np.ndarray) -> float:
    """Variance between objects / total variance of weighted draws, in the worst direction.

    It is V / (V + noise) of a population of variance V. An object is worth its square of an exact label for the fit of V.
    """
    centres = (weights[:, None] @ draws)[:, 0]
    flat = (draws - centres.mean(0)).reshape(-1, draws.shape[2])
    total = (weights.reshape(-1, 1) * flat).T @ flat / len(draws) + 1e-12 * np.eye(flat.shape[1])
    inverse = np.linalg.inv(np.linalg.cholesky(total))
    return float(np.linalg.eigvalsh(inverse @ np.atleast_2d(np.cov(centres.T, ddof=0)) @ inverse.T)[0])


def _rows(z: np.ndarray, name: str) -> np.ndarray:
    """Finite rows of normal scores."""
    z = np.asarray(z, float)
    if z.ndim != 2 or 0 in z.shape or not np.isfinite(z).all():
        raise SbiDaError(f"{name} must be (object, parameter), finite and not empty; got shape {z.shape}")
    return z
