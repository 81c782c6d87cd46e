"""Learning what simulated objects look like."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import track
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from sbi_da.alignment.features import Features
from sbi_da.encoders import ScalarEncoder
from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.layout import Observations
from sbi_da.measured import measurements, pictures
from sbi_da.records import ABSENT
from sbi_da.sources import Source
from sbi_da.trust.detection import FaultFinder
from sbi_da.trust.faults import spoilt
from sbi_da.trust.prediction import CrossSurvey
from sbi_da.trust.reference import Reference, Statistics

__all__ = ["TrustTraining", "features_of", "learn_reference"]

Measured = tuple[Tensor, Tensor, Tensor]
"""Value, error and state of the channels of objects, each of shape ``(object, channel)``."""
Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
HELD_OUT_EPOCH = 2**31 + 9
SOFT = 50.0
"""Nats by which a survey may be mispredicted before it is left out of the training: simulations have outliers of their own."""


@dataclass(frozen=True)
class TrustTraining:
    """How much is simulated.

    Attributes:
        steps: of the network that predicts surveys from one another; the one that finds faults takes twice as many.
        batch: objects per step, and half of those of the other.
        learning_rate: at its peak.
        objects: fresh ones that distances and p-values are calibrated by, half for each.
        width: of the network that predicts.
        fault_width: of the network that finds faults.
    """

    steps: int = 8_000
    batch: int = 512
    learning_rate: float = 2e-3
    objects: int = 100_000
    width: int = 128
    fault_width: int = 256


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
        reference = Reference(estimator, how.width, how.fault_width)
        predict, find = _prediction(reference.predictor, estimator.encoder), _search(reference.finder, estimator.encoder)
        _train(reference.predictor, predict, "how surveys agree", source, how.steps, how.batch, how.learning_rate, progress)
        _train(reference.finder, find, "what faults look like", source, 2 * how.steps, 2 * how.batch, how.learning_rate, progress)
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


def _prediction(predictor: CrossSurvey, encoder: ScalarEncoder) -> Loss:
    """Nats per survey that can be predicted."""

    def loss(value: Tensor, error: Tensor, state: Tensor) -> Tensor:
        with torch.no_grad():
            prepared = predictor.prepared(encoder, value, error, state)
        _, log_prob, number = predictor.compare(*prepared)
        held = number > 0
        return -torch.where(held, log_prob.clamp_min(-SOFT), 0.0).sum() / held.sum().clamp_min(1)

    return loss


def _search(finder: FaultFinder, encoder: ScalarEncoder) -> Loss:
    """Nats per object of which a fault is to be found or excluded."""
    unit = torch.where(encoder.is_magnitude, 1.0, torch.where(encoder.is_parallax, -1.0, -encoder.scale[0]))

    def loss(value: Tensor, error: Tensor, state: Tensor) -> Tensor:
        with torch.no_grad():
            *measured, fault = spoilt(value, error, state, finder.own, unit)
        return cross_entropy(finder(encoder, *measured), fault)

    return loss


def _train(
    network: nn.Module, loss_of: Loss, what: str, source: Source, steps: int, batch: int, learning_rate: float, progress: bool
) -> None:
    optimiser = torch.optim.AdamW(network.parameters(), learning_rate, weight_decay=1e-3)
    plan = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps, pct_start=0.05)
    batches = _batches(source, batch)
    for _ in track(range(steps), f"learning {what}", disable=not progress):
        loss = loss_of(*next(batches))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        plan.step()


def _batches(source: Source, batch: int) -> Iterator[Measured]:
    """Endless measurements of simulated objects that somebody looked at."""
    epoch = 0
    while True:
        observed = source.examples(50 * batch, epoch).observed
        observed = observed.take((observed.state != ABSENT).any(1))
        for start in range(0, len(observed) - batch + 1, batch):
            rows = slice(start, start + batch)
            part = measurements(Observations(observed.value[rows], observed.error[rows], observed.state[rows]))
            yield part["value"], part["error"], part["state"]
        epoch += 1


def features_of(
    estimator: Estimator, observed: Observations, batch: int = 1024
) -> Iterator[tuple[Features, Measured]]:
    """Features of objects as of simulated ones, and value, error and state of their channels, in batches."""
    estimator.eval()
    for start in range(0, len(observed), batch):
        part = measurements(observed, slice(start, start + batch))
        measured = part["value"], part["error"], part["state"]
        with torch.inference_mode():
            yield estimator.features(*measured, None, pictures(part)), measured
