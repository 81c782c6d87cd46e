"""A linear-Gaussian problem as sbi states it, and an estimator that answers it exactly whatever is missing."""

import numpy as np
import torch
from torch.distributions import MultivariateNormal

from sbi_da.estimator import Estimator, NetworkConfig
from sbi_da.from_sbi import SbiSimulator
from sbi_da.learning import estimator_of
from sbi_da.posteriors import Posterior
from sbi_da.records import ABSENT

MEAN = torch.tensor([1.0, -2.0])
COVARIANCE = torch.tensor([[1.0, 0.6], [0.6, 0.8]])
MATRIX = torch.tensor([[1.0, 0.3], [-0.5, 1.0], [0.7, 0.7]])
NOISE = 0.5
GROUPS = {"left": ["a", "b"], "right": ["c"]}
SMALL = NetworkConfig(width=8, layers=1, heads=2, summary=32, blocks=1, context=16, transforms=1, bins=4, hidden=(32,))


def simulate(theta):
    return theta @ MATRIX.T + NOISE * torch.randn(len(theta), len(MATRIX))


def problem(**options) -> SbiSimulator:
    return SbiSimulator(simulate, MultivariateNormal(MEAN, COVARIANCE), **{"names": ["u", "v"], "channels": GROUPS, **options})


def exact_posterior(x, seen) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the parameters given the entries of ``x`` that are ``seen``."""
    matrix, prior = MATRIX.double().numpy()[seen], np.linalg.inv(COVARIANCE.double().numpy())
    covariance = np.linalg.inv(prior + matrix.T @ matrix / NOISE**2)
    return covariance @ (prior @ MEAN.numpy() + matrix.T @ np.asarray(x, float)[seen] / NOISE**2), covariance


class _Head:
    """Normal laws of normal scores; a context is their mean and the root of their covariance."""

    def __init__(self, narrower: float):
        self.narrower = narrower

    def _split(self, context):
        return context[..., :2].double(), self.narrower * context[..., 2:].reshape(*context.shape[:-1], 2, 2).double()

    def transform(self, noise, context):
        mean, root = self._split(context)
        return (mean + (root @ noise.double()[..., None])[..., 0]).float()

    def log_prob(self, z, context):
        mean, root = self._split(context)
        return MultivariateNormal(mean, scale_tril=root).log_prob(z.double())


class ExactEstimator(Estimator):
    """Its spread is ``narrower`` times the right one."""

    narrower = 1.0

    def forward(self, records):
        observed = self.layout.read(records)
        root = np.linalg.cholesky(COVARIANCE.double().numpy())
        rows = []
        for value, state in zip(observed.value, observed.state, strict=True):
            mean, covariance = exact_posterior(value, state != ABSENT)
            of_scores = np.linalg.solve(root, np.linalg.cholesky(covariance))
            rows.append(np.concatenate([np.linalg.solve(root, mean - MEAN.numpy()), of_scores.ravel()]))
        contexts = torch.tensor(np.array(rows))
        return Posterior(
            _Head(self.narrower), contexts, self.prior, records.ids, derived=("sum",), derive=lambda theta: {"sum": theta["u"] + theta["v"]}
        )


def exact_estimator(narrower: float = 1.0) -> ExactEstimator:
    plain = estimator_of(problem(), network=SMALL)
    made = ExactEstimator(plain.layout.surveys, plain.prior, plain.parameters_info, SMALL).eval()
    made.narrower = narrower
    return made
