"""The head that answers what a prior asks."""

import torch

from sbi_da.any_prior import AnyPrior
from sbi_da.class_prior import ClassPrior
from sbi_da.label_prior import LabelPrior
from sbi_da.network import NetworkConfig
from sbi_da.posteriors.categorical import CategoricalHead
from sbi_da.posteriors.class_losses import initial_logit_scale
from sbi_da.posteriors.few_step import FewStepHead
from sbi_da.posteriors.known import KnownScores
from sbi_da.posteriors.label_head import LabelHead
from sbi_da.posteriors.matching import FlowMatchingHead
from sbi_da.posteriors.mixture import MixtureHead
from sbi_da.posteriors.spline import SplineHead
from sbi_da.posteriors.told import Told
from sbi_da.posteriors.vote_head import VoteHead
from sbi_da.prior import Prior
from sbi_da.vote_prior import VotePrior

__all__ = ["AnyHead", "DensityHead", "head_of", "told"]


DensityHead = SplineHead | FlowMatchingHead | MixtureHead | FewStepHead
AnyHead = DensityHead | CategoricalHead | VoteHead | LabelHead


def told(prior: AnyPrior, network: NetworkConfig, tokens: int = 0, channels: int = 0) -> Told:
    """What the head that fits a prior is told, of so many tokens of measurements and scalar channels."""
    name = network.few_step.teacher if network.head == "few_step" else network.head
    if not isinstance(prior, Prior) or name != "flow_matching":
        return Told(network.context)
    attended, linear = network.matching.measurements, network.matching.gaussian == "linear"
    return Told(network.context, tokens if attended else 0, network.width, channels if attended or linear else 0)


def head_of(prior: AnyPrior, network: NetworkConfig, channels: int = 0, row: Told | None = None) -> AnyHead:
    """The head that fits a prior, where its training starts.

    Args:
        prior: what is inferred.
        network: sizes.
        channels: number of scalar channels, which may be asked to be predicted.
        row: what it is told; None: the fused context.
    """
    how, context = network.classifier, network.context
    if isinstance(prior, ClassPrior):
        head = CategoricalHead(len(prior.classes), context, how.hidden, how.dropout, how.logit_scale)
        if how.logit_scale:
            head.start_scale(torch.from_numpy(initial_logit_scale(prior.counts)))
        return head
    if isinstance(prior, VotePrior):
        votes = VoteHead(prior.sizes, context, how.hidden, how.dropout)
        votes.start(torch.tensor(prior.concentrations))
        return votes
    if isinstance(prior, LabelPrior):
        labels = LabelHead(len(prior.names), context, how.hidden, how.dropout)
        labels.start(torch.tensor(list(prior.rates.values())))
        return labels
    size, row = len(prior.names), row or Told(context)
    if network.head == "few_step":
        return FewStepHead(size, row.size, network.few_step.steps, network.few_step.width, network.hidden[-1])
    if network.head == "mixture":
        return MixtureHead(size, context, network.components, network.hidden)
    if network.head == "flow_matching":
        matching = network.matching
        options = matching.model_dump(exclude={"questions", "measurements"})
        channels = channels if matching.questions == "channels" else 0
        known = KnownScores(prior) if matching.questions != "none" else None
        return FlowMatchingHead(size, row, channels, hidden=network.hidden[-1], gated=network.gated, known=known, **options)
    return SplineHead(size, context, network.transforms, network.bins, network.hidden)
