"""Posteriors of disjoint subsets of surveys, compared: an alternative to the columns of trust, which predict one survey from the others."""

import numpy as np
import torch

from sbi_da.estimator import Estimator
from sbi_da.layout import Observations
from sbi_da.trust.learning import features_of
from sbi_da.trust.tails import Tails

__all__ = ["DisjointPosteriors"]

DRAWS = 64


class DisjointPosteriors:
    """How far the posterior from one survey alone lies from that of the others, as a p-value among simulated objects.

    The statistic is the squared distance of the means in the sum of both covariances, in normal scores.

    Args:
        estimator: of both posteriors.
        observed: simulated objects.
        seen: which surveys they have, boolean, shape ``(object, survey)``.
    """

    def __init__(self, estimator: Estimator, observed: Observations, seen: np.ndarray) -> None:
        self.estimator = estimator
        value, ones = self._distance(observed, seen), np.ones(len(observed))
        self.tails = [Tails.fit(column, seen.sum(1), seen.shape[1] + 1, ones) for column in value.T]

    def __call__(self, observed: Observations, seen: np.ndarray) -> np.ndarray:
        """The smallest p-value over surveys, shape ``(object,)``."""
        value = self._distance(observed, seen)
        p = np.stack([tail(column, seen.sum(1)) for tail, column in zip(self.tails, value.T, strict=True)], axis=1)
        return np.asarray(np.where(np.isnan(p), 1.0, p).min(1))

    def _distance(self, observed: Observations, seen: np.ndarray) -> np.ndarray:
        out = np.full(seen.shape, np.nan)
        for k in range(seen.shape[1]):
            rows, own = seen[:, k] & (seen.sum(1) > 1), self.estimator.layout.survey_index == k
            some = observed.take(np.flatnonzero(rows))
            (mean, covariance), (other, others) = (self._moments(some.where(np.broadcast_to(m, some.value.shape))) for m in (own, ~own))
            away = (mean - other)[..., None]
            out[rows, k] = (away * np.linalg.solve(covariance + others + 1e-6 * np.eye(mean.shape[1]), away)).sum((1, 2))
        return out

    def _moments(self, observed: Observations) -> tuple[np.ndarray, np.ndarray]:
        """Means and covariances of normal scores."""
        prior, head = self.estimator.density
        size, means, covariances = getattr(head, "noise_size", len(prior.names)), [], []
        with torch.inference_mode():
            for features, _ in features_of(self.estimator, observed):
                noise = torch.from_numpy(np.random.default_rng(0).standard_normal((len(features), DRAWS, size), np.float32))
                z = head.transform(noise, features.told[:, None])
                away = z - z.mean(1, keepdim=True)
                means.append(z.mean(1).double().numpy())
                covariances.append((away.mT @ away / (DRAWS - 1)).double().numpy())
        return np.concatenate(means), np.concatenate(covariances)
