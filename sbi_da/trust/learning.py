"""Learning what simulated objects look like."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import track

from sbi_da.alignment.features import Features
from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.layout import Observations
from sbi_da.measured import measurements, pictures
from sbi_da.records import ABSENT
from sbi_da.sources import Source
from sbi_da.trust.reference import Reference, Statistics

__all__ = ["TrustTraining", "features_of", "learn_reference"]

HELD_OUT_EPOCH = 2**31 + 9
SOFT = 50.0
"""Nats by which a survey may be mispredicted before it is left out of the training: simulations have outliers of their own."""


@dataclass(frozen=True)
class TrustTraining:
    """How much is simulated.

    Attributes:
        steps: of the network that predicts surveys from one another.
        batch: objects per step.
        learning_rate: at its peak.
        objects: fresh ones that distances and p-values are calibrated by, half for each.
        width: of the network.
    """

    steps: int = 12_000
    batch: int = 512
    learning_rate: float = 3e-3
    objects: int = 100_000
    width: int = 128


def learn_reference(
    estimator: Estimator, source: Source, how: TrustTraining | None = None, seed: int = 0, progress: bool = False
) -> Reference:
    """Learn the reference of an estimator.

    Args:
        estimator: trained.
        source: objects like those that it was trained on.
        how: how much.
        seed: of weights and batches.
        progress: show a progress bar.

    Raises:
        SbiDaError: an estimator without scalar channels.
    """
    how = how or TrustTraining()
    if not estimator.layout.channels:
        raise SbiDaError(f"the surveys {', '.join(estimator.surveys)} have images only: there is nothing to predict from one another")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        reference = Reference(estimator, how.width)
        _train(reference, estimator, source, how, progress)
    examples = source.examples(how.objects, HELD_OUT_EPOCH)
    examples = examples.take((examples.observed.states != ABSENT).any(1))
    observed, half = examples.observed, len(examples) // 2
    parts = list(features_of(estimator, observed.take(np.arange(half))))
    context, tokens, present = (torch.cat([getattr(f, name) for f, _ in parts]) for name in ("context", "surveys", "present"))
    reference.familiarity.fit(context, tokens, present)
    reference.eval()
    found = [reference.statistics(estimator, f, *part) for f, part in features_of(estimator, observed.take(np.arange(half, len(observed))))]
    whole = Statistics(
        {k: np.concatenate([s.value[k] for s in found]) for k in found[0].value},
        {k: np.concatenate([s.group[k] for s in found]) for k in found[0].group},
    )
    reference.calibrate(whole, np.exp(examples.log_weight[half:]))
    return reference


def _train(reference: Reference, estimator: Estimator, source: Source, how: TrustTraining, progress: bool) -> None:
    predictor = reference.predictor
    optimiser = torch.optim.AdamW(predictor.parameters(), how.learning_rate, weight_decay=1e-4)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, how.learning_rate, total_steps=how.steps, pct_start=0.05)
    batches = _batches(source, how)
    for _ in track(range(how.steps), "learning what simulated objects look like", disable=not progress):
        value, error, state = next(batches)
        with torch.no_grad():
            prepared = predictor.prepared(estimator.encoder, value, error, state)
        _, log_prob, number = predictor.compare(*prepared)
        held = number > 0
        loss = -torch.where(held, log_prob.clamp_min(-SOFT), 0.0).sum() / held.sum().clamp_min(1)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(predictor.parameters(), 5.0)
        optimiser.step()
        plan.step()


def _batches(source: Source, how: TrustTraining) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Endless measurements of simulated objects that somebody looked at."""
    epoch = 0
    while True:
        observed = source.examples(50 * how.batch, epoch).observed
        observed = observed.take((observed.state != ABSENT).any(1))
        for start in range(0, len(observed) - how.batch + 1, how.batch):
            rows = slice(start, start + how.batch)
            part = measurements(Observations(observed.value[rows], observed.error[rows], observed.state[rows]))
            yield part["value"], part["error"], part["state"]
        epoch += 1


def features_of(
    estimator: Estimator, observed: Observations, batch: int = 1024
) -> Iterator[tuple[Features, tuple[torch.Tensor, torch.Tensor, torch.Tensor]]]:
    """Features of objects as of simulated ones, and value, error and state of their channels, in batches."""
    estimator.eval()
    for start in range(0, len(observed), batch):
        part = measurements(observed, slice(start, start + batch))
        measured = part["value"], part["error"], part["state"]
        with torch.inference_mode():
            yield estimator.features(*measured, None, pictures(part)), measured
