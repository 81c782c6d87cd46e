"""The held-out negative log-density of an estimator whose training minimises something else."""

import numpy as np
import torch

from sbi_da.estimator import Estimator
from sbi_da.sources import Source

__all__ = ["held_out_nll"]

EPOCH, BATCH = 2**31 + 7, 256


def held_out_nll(estimator: Estimator, source: Source, count: int) -> float:
    """Mean negative log-density of normal scores [nats], weighted as the source says.

    Args:
        estimator: trained, of continuous parameters.
        source: held-out objects.
        count: how many of them.
    """
    head = estimator.density[1]
    examples = source.examples(count, EPOCH)
    z, context = torch.from_numpy(examples.z).float(), estimator.encode(examples.observed)
    found = []
    with torch.no_grad():
        for rows in torch.arange(len(z)).split(BATCH):
            found.append(head.log_prob(z[rows], context[rows].clone()).numpy())
    return -float(np.average(np.concatenate(found), weights=np.exp(examples.log_weight)))
