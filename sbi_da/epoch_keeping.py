"""The epochs of an alignment, and which one is kept: by what can be known of them without labels."""

from dataclasses import dataclass, field

import numpy as np
import torch
from lightning.pytorch.callbacks import Callback

from sbi_da.alignment.selection import Candidate, select
from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.layout import Observations
from sbi_da.posteriors.categorical import CategoricalHead
from sbi_da.posteriors.class_losses import log_weight_correction
from sbi_da.sources import Examples

__all__ = ["EpochKeeper", "categorical", "label_free"]

JUDGED = 2000
"""Real objects, at most, that a criterion looks at: some compare all pairs."""


@dataclass
class EpochKeeper(Callback):
    """Keeps the weights of every epoch with what can be known of them without labels."""

    estimator: Estimator
    held: Examples
    real: Observations
    states: list[dict[str, torch.Tensor]] = field(default_factory=list)
    candidates: dict[str, Candidate] = field(default_factory=dict)

    def on_train_epoch_end(self, *_: object) -> None:
        """Remember."""
        head, config = categorical(self.estimator), self.estimator.network.classifier
        if config.correct:  # what is judged are probabilities, not what the weights of the loss make of them
            head.correct(log_weight_correction(config.class_weights(self.estimator.class_counts)), config.focal)
        self.candidates[str(len(self.states))] = label_free(self.estimator, self.held, self.real)
        head.correct(torch.zeros_like(head.log_prior_correction), 0.0)
        self.states.append({k: v.detach().clone() for k, v in self.estimator.state_dict().items()})

    def best(self, criterion: str) -> int:
        """The epoch a label-free criterion prefers."""
        return int(select(self.candidates, (criterion,)).chosen)


def label_free(estimator: Estimator, held: Examples, real: Observations) -> Candidate:
    """What a label-free criterion looks at: losses of held-out simulations, contexts of these and of real objects, their probabilities."""
    if len(real) > JUDGED:
        real = real.take(np.sort(np.random.default_rng(0).permutation(len(real))[:JUDGED]))
    simulated, target = estimator.encode(held.observed), estimator.encode(real, real=True)
    head = categorical(estimator)
    device = head.temperature.device
    with torch.no_grad():
        losses = -head.log_prob(torch.from_numpy(held.z[:, 0]).long().to(device), simulated.to(device)).cpu().numpy()
        probabilities = head.probabilities(target.to(device)).double().cpu().numpy()
    return Candidate(losses, simulated.numpy(), target.numpy(), probabilities)


def categorical(estimator: Estimator) -> CategoricalHead:
    """The head of a classifier.

    Raises:
        SbiDaError: it is none.
    """
    if not isinstance(estimator.head, CategoricalHead):
        raise SbiDaError("this estimator infers no class: align it with `align`")
    return estimator.head
