r"""The posterior of labels of which an object may have several: a context to the probability of each.

.. math:: p_k(c) = \sigma(f_k(c) / T_k),

with :math:`f` a perceptron. A label that is not known of an object teaches nothing. The temperatures are one until they are fitted to
held-out objects (:mod:`sbi_da.posteriors.temperature`).
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from sbi_da.errors import SbiDaError
from sbi_da.posteriors.perceptron import perceptron, start_biases
from sbi_da.posteriors.temperature import fit_calibration
from sbi_da.posteriors.votes import multilabel

__all__ = ["LabelHead"]


class LabelHead(nn.Module):
    """Law over labels given a context.

    Args:
        labels: number of them.
        context: width of the context.
        hidden: widths of hidden layers.
        dropout: probability at which a unit before the last layer is dropped in training.

    Raises:
        SbiDaError: no label.
    """

    temperature: Tensor

    def __init__(self, labels: int, context: int, hidden: Sequence[int] = (), dropout: float = 0.0) -> None:
        super().__init__()
        if labels < 1:
            raise SbiDaError("a head of labels needs one at least")
        self.layers = perceptron(context, labels, hidden, dropout)
        self.register_buffer("temperature", torch.ones(labels))

    def logits(self, context: Tensor) -> Tensor:
        """Log-odds, shape ``(n, label)``."""
        return self.layers(context) / self.temperature

    def log_prob(self, labels: Tensor, context: Tensor) -> Tensor:
        """Log-probability of labels ``(n, label)``, 0, 1 or negative where unknown; shape ``(n,)``."""
        return multilabel(labels, self.logits(context))

    def start(self, rates: Tensor) -> None:
        """Let the training start near rates of the labels, shape ``(label,)``."""
        start_biases(self.layers, torch.logit(rates))

    def calibrate(self, labels: Tensor, context: Tensor) -> None:
        """Fit the temperatures to objects that took no part in the training; those of labels unknown of all of them stay."""
        with torch.inference_mode():
            plain, truth = self.layers(context).double().numpy(), labels.numpy()
            for k in range(truth.shape[1]):
                known = truth[:, k] >= 0
                if known.any():
                    pair = np.stack([np.zeros(known.sum()), plain[known, k]], 1)
                    self.temperature[k] = fit_calibration(pair, truth[known, k].astype(int)).temperature
