"""The held-out log-density of an estimator whose training minimises something else."""

import numpy as np
import torch

from sbi_da.estimator import Estimator
from sbi_da.sources import Examples, Source

__all__ = ["held_out_log_density", "held_out_nll"]

EPOCH, BATCH = 2**31 + 7, 256


def held_out_nll(estimator: Estimator, source: Source, count: int) -> float:
    """Mean negative log-density of normal scores [nats], weighted as the source says.

    Args:
        estimator: trained, of continuous parameters.
        source: held-out objects.
        count: how many of them.
    """
    examples = source.examples(count, EPOCH)
    return -float(np.average(held_out_log_density(estimator, examples), weights=np.exp(examples.log_weight)))


def held_out_log_density(estimator: Estimator, examples: Examples) -> np.ndarray:
    """Log-density of the normal scores of examples [nats], shape ``(object,)``; what gives more to most of them predicts better."""
    head = estimator.density[1]
    z, context = torch.from_numpy(examples.z).float(), estimator.encode(examples.observed)
    with torch.no_grad():
        parts = torch.arange(len(z)).split(BATCH)
        return np.concatenate([head.log_prob(z[rows], context[rows].clone()).numpy() for rows in parts])
