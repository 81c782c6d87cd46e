"""The linear-Gaussian toy with its exact posterior as a head, optionally shifted and widened, and exact answers about clusters."""

import math

import numpy as np
import torch

from sbi_da.posteriors import Posterior
from sbi_da.simulation import simulate
from sbi_da.simulators import get_simulator

NAMES = ["theta_1", "theta_2", "theta_3"]


class GaussianHead:
    """Normal laws of normal scores: a context holds the mean and, row by row, the root of the covariance."""

    def __init__(self, size=3):
        self.size = size

    def _law(self, context):
        return context[..., : self.size].double(), context[..., self.size :].double().reshape(*context.shape[:-1], self.size, self.size)

    def log_prob(self, z, context):
        mean, root = self._law(context)
        noise = torch.linalg.solve_triangular(root, (z.double() - mean)[..., None], upper=False)[..., 0]
        log_det = root.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return -0.5 * noise.square().sum(-1) - log_det - 0.5 * self.size * math.log(2 * math.pi)

    def transform(self, noise, context):
        mean, root = self._law(context)
        return (mean + (root @ noise.double()[..., None])[..., 0]).float()


def contexts(means, covariances, shift=0.0, widen=1.0):
    roots = widen * np.linalg.cholesky(covariances)
    means = means + shift * np.sqrt(np.diagonal(covariances, axis1=-2, axis2=-1))
    return torch.tensor(np.concatenate([means, roots.reshape(len(means), -1)], axis=1))


def exact_laws(simulator, records):
    """Means and covariances of objects whose modalities are seen or absent as a whole."""
    laws = []
    for i in range(len(records)):
        seen = {s: records.survey(s).value[i] for s in records.surveys if records.survey(s).state[i].all()}
        laws.append(simulator.exact_posterior(seen))
    return np.stack([m for m, _ in laws]), np.stack([c for _, c in laws])


def posterior_of(simulator, means, covariances, ids=None, **wrong):
    ids = np.arange(len(means)) if ids is None else ids
    return Posterior(GaussianHead(), contexts(means, covariances, **wrong), simulator.prior, ids)


def members(n, shared, seed=0, noise=0.5, outliers=0, spread=None, modalities=("modality_a", "modality_b")):
    """A cluster: the simulator, truth of what is shared, exact laws of its members; the last ``outliers`` share nothing."""
    simulator = get_simulator("linear_gaussian", noise=noise)
    rng = np.random.default_rng(seed)
    theta = {k: rng.standard_normal(n) for k in NAMES}
    truth = {k: rng.standard_normal() for k in shared}
    for k in shared:
        theta[k][: n - outliers] = truth[k] + (spread or {}).get(k, 0.0) * rng.standard_normal(n - outliers)
    surveys = [s for s in simulator.surveys() if s.name in modalities]
    records = simulate(simulator, surveys, n, seed, theta=theta)
    return simulator, truth, *exact_laws(simulator, records)


def exact_cluster(means, covariances, shared, spread=None):
    """Mean and covariance of what members share: their marginals over the prior, widened by the spread, with the prior once.

    A normal posterior is the prior times a normal likelihood: its precision is that of the posterior less one.
    """
    index = [NAMES.index(k) for k in NAMES if k in shared]
    size = len(index)
    scatter = np.diag([(spread or {}).get(NAMES[i], 0.0) ** 2 for i in index])
    precision, linear = np.eye(size), np.zeros(size)
    for mean, covariance in zip(means, covariances, strict=True):
        marginal = np.linalg.inv(covariance[np.ix_(index, index)])
        own = marginal - np.eye(size)
        pull = marginal @ mean[index]
        # The likelihood may say nothing in some direction: widen it by (own^-1 + S)^-1 = own (1 + S own)^-1.
        gain = np.linalg.inv(np.eye(size) + own @ scatter)
        precision, linear = precision + gain @ own, linear + gain @ pull
    covariance = np.linalg.inv(precision)
    return covariance @ linear, covariance
