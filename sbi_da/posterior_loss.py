"""What a head is trained with: the negative log-probability, or of classes a loss that may weigh them, and what undoes those weights."""

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from sbi_da.class_prior import ClassPrior
from sbi_da.errors import ConfigError
from sbi_da.estimator import Estimator
from sbi_da.heads import DensityHead
from sbi_da.layout import Observations
from sbi_da.matching_loss import MatchingLoss
from sbi_da.measured import Batch
from sbi_da.network import ClassifierConfig
from sbi_da.normality import Normality
from sbi_da.object_loss import PosteriorLoss
from sbi_da.posteriors.categorical import CategoricalHead
from sbi_da.posteriors.class_losses import focal_losses, log_weight_correction, unfocused
from sbi_da.posteriors.few_step import FewStepHead
from sbi_da.posteriors.matching import FlowMatchingHead
from sbi_da.posteriors.temperature import fit_calibration
from sbi_da.prior import Prior
from sbi_da.sources import Source
from sbi_da.views import views

__all__ = ["ClassLoss", "DensityLoss", "finish", "posterior_loss"]

HELD_OUT_EPOCH = 2**31 + 3
NORMAL = 4000
"""Training simulations, at most, among which neighbours are looked for."""


class HasDensity(Protocol):
    """What has a log-density, or log-probability."""

    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """Of targets given contexts."""
        ...


class DensityLoss(PosteriorLoss):
    """Negative log-density of normal scores, or log-probability of votes or labels."""

    def __init__(self, head: HasDensity) -> None:
        super().__init__()
        self.head = [head]  # a list, so that its weights are not registered twice

    def forward(self, batch: Batch, context: Tensor) -> Tensor:
        """The loss."""
        return -self.head[0].log_prob(batch["z"], context)


class ClassLoss(PosteriorLoss):
    """Focal, weighted, smoothed cross-entropy of class codes.

    Args:
        head: gives logits.
        config: which of these.
        weights: of the classes, shape ``(class,)``.
    """

    weights: Tensor

    def __init__(self, head: CategoricalHead, config: ClassifierConfig, weights: np.ndarray) -> None:
        super().__init__()
        self.head, self.config = [head], config
        self.register_buffer("weights", torch.from_numpy(weights).float(), persistent=False)

    def forward(self, batch: Batch, context: Tensor) -> Tensor:
        """The loss; targets are codes, shape ``(object, 1)``."""
        return self.of_logits(batch["z"][:, 0].long(), self.head[0].logits(context))

    def of_logits(self, codes: Tensor, logits: Tensor) -> Tensor:
        """The loss of codes ``(object,)`` under logits ``(object, class)``, shape ``(object,)``."""
        return focal_losses(logits, codes, self.weights, self.config.focal, self.config.smoothing)

    def judged(self, batch: Batch, context: Tensor) -> Tensor:
        """Negative log-probability under the class fractions of the training, weights and focus undone."""
        log_p = unfocused(self.head[0].logits(context).log_softmax(-1), self.config.focal)
        log_p = (log_p + log_weight_correction(self.weights).to(context)).log_softmax(-1)
        return -log_p.gather(-1, batch["z"].long())[:, 0]


def posterior_loss(estimator: Estimator) -> PosteriorLoss:
    """The loss of an estimator's head.

    Raises:
        ConfigError: a head that is not trained on simulations.
    """
    if isinstance(estimator.head, FewStepHead):
        raise ConfigError("network.head: few_step is distilled from a trained run: sbi-da distill RUN --out FAST")
    if isinstance(estimator.head, FlowMatchingHead):
        return MatchingLoss(estimator.head, estimator.encoder, estimator.network.matching.questions != "none")
    if not isinstance(estimator.head, CategoricalHead) or not isinstance(estimator.prior, ClassPrior):
        return DensityLoss(estimator.head)
    config = estimator.network.classifier
    return ClassLoss(estimator.head, config, config.class_weights(estimator.class_counts))


def finish(estimator: Estimator, source: Source, held_out: Source, count: int, real: Observations | None = None) -> None:
    """After the training on classes, votes or labels: undo what the loss did to the probabilities, calibrate them, learn what is normal.

    A density needs none of it.

    Args:
        estimator: trained.
        source: labelled simulations that it has seen.
        held_out: others.
        count: how many of these.
        real: objects that it was adapted to, of which nothing but the spread of what is seen of them is used; None: none.
    """
    config, head, prior = estimator.network.classifier, estimator.head, estimator.prior
    if isinstance(prior, Prior) or isinstance(head, DensityHead):
        return
    if isinstance(head, CategoricalHead) and config.correct:
        head.correct(log_weight_correction(config.class_weights(estimator.class_counts)), config.focal)
    examples, others = held_out.examples(count, HELD_OUT_EPOCH), source.examples(min(NORMAL, prior.objects or NORMAL), HELD_OUT_EPOCH)
    context, seen = estimator.encode(examples.observed), estimator.encode(others.observed)
    if config.calibrate and isinstance(head, CategoricalHead):
        with torch.inference_mode():
            log_p = head.corrected(head.logits(context))
        head.correct(temperature=fit_calibration(log_p.numpy(), examples.z[:, 0].astype(int)).temperature)
    elif config.calibrate and not isinstance(head, CategoricalHead):
        head.calibrate(torch.from_numpy(examples.z), context)
    with torch.inference_mode():
        p = head.probabilities(context).double().numpy() if isinstance(head, CategoricalHead) else None
    unit = None if real is None else views(estimator, real, estimator.encode(real, real=True))
    known, fresh = views(estimator, others.observed, seen), views(estimator, examples.observed, context)
    estimator.normality = Normality.fit(known, fresh, p, unit)
