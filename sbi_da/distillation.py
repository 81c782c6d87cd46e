"""A fast copy of a trained estimator: the same encoders, and a head that draws in a few evaluations what the head it learns from draws."""

from dataclasses import dataclass

import numpy as np
import torch
from rich.progress import track
from torch import nn

from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.layout import Observations
from sbi_da.network import FewStepConfig, NetworkConfig
from sbi_da.posteriors.few_step import FewStepHead
from sbi_da.posteriors.matching import FlowMatchingHead
from sbi_da.posteriors.spline import SplineHead
from sbi_da.sources import Source

__all__ = ["Distillation", "distil", "fast_copy"]

HELD_OUT_EPOCH = 2**31 + 5
WARMUP = 0.02
"""Share of the steps in which the learning rate rises."""


@dataclass(frozen=True)
class Distillation:
    """How a copy is taught.

    Attributes:
        objects: simulated, whose contexts it is taught on.
        steps: of the optimiser.
        batch: objects per step.
        draws: of each object and step.
        learning_rate: at its peak; a cosine to zero follows.
        held_out: simulated objects that the copy is judged by.
    """

    objects: int = 100_000
    steps: int = 4000
    batch: int = 256
    draws: int = 16
    learning_rate: float = 2e-3
    held_out: int = 1000


def fast_copy(teacher: Estimator, few_step: FewStepConfig | None = None) -> Estimator:
    """An estimator with the teacher's weights but for a fresh few-step head.

    Raises:
        SbiDaError: a teacher whose head is no map of noise to draws.
    """
    prior, head = teacher.density
    if not isinstance(head, SplineHead | FlowMatchingHead):
        raise SbiDaError(f"{teacher.network.head}: a spline or flow_matching head is needed to distil from")
    few_step = (few_step or FewStepConfig()).model_copy(update={"teacher": teacher.network.head})
    network = NetworkConfig.model_validate({**teacher.network.model_dump(), "head": "few_step", "few_step": few_step.model_dump()})
    copy = Estimator(
        teacher.layout.surveys, prior, teacher.parameters_info, network, teacher.derived, teacher.simulator, dict(teacher.metadata),
        teacher.adapter.parts if teacher.adapter else (),
    )
    state = {k: v for k, v in teacher.state_dict().items() if not k.startswith("head.")}
    state |= {f"head.{k}": v for k, v in copy.head.state_dict().items()}
    copy.load_state_dict(state)
    if isinstance(copy.head, FewStepHead) and _same_gaussian(copy.head, head):
        copy.head.gaussian.load_state_dict(head.gaussian.state_dict())
    copy.recalibration = teacher.recalibration
    return copy


def _same_gaussian(head: FewStepHead, teacher: SplineHead | FlowMatchingHead) -> bool:
    """Whether the teacher works in the units of a Gaussian of the parameters, and of nothing else."""
    own, theirs = head.gaussian.state_dict(), teacher.gaussian.state_dict()
    return {k: v.shape for k, v in own.items()} == {k: v.shape for k, v in theirs.items()}


def distil(
    teacher: Estimator, source: Source, how: Distillation | None = None, few_step: FewStepConfig | None = None, seed: int = 0,
    progress: bool = False,
) -> Estimator:
    """Teach a fast copy.

    Args:
        teacher: trained, with a spline or flow-matching head.
        source: objects like those that the teacher was trained on.
        how: schedule.
        few_step: sizes of the new head.
        seed: of its weights and all noise.
        progress: show a progress bar.

    Returns:
        The copy; ``metadata["distillation"]`` says how far its held-out draws lie from the teacher's of the same noise.

    Raises:
        SbiDaError: a teacher whose head is no map of noise to draws.
    """
    how = how or Distillation()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        copy = fast_copy(teacher, few_step)
        head, taught = copy.head, teacher.density[1]
        assert isinstance(head, FewStepHead) and isinstance(taught, SplineHead | FlowMatchingHead)
        context = _contexts(teacher, source.examples(how.objects, 0).observed)
        for parameter in head.gaussian.parameters():
            parameter.requires_grad_(not _same_gaussian(head, taught))
        trained = [p for p in head.parameters() if p.requires_grad]
        optimiser = torch.optim.AdamW(trained, how.learning_rate, weight_decay=1e-4)
        for step in track(range(how.steps), "distilling", disable=not progress):
            rate = min(1.0, (step + 1) / max(1, WARMUP * how.steps)) * 0.5 * (1 + np.cos(np.pi * step / how.steps))
            for group in optimiser.param_groups:
                group["lr"] = how.learning_rate * float(rate)
            some = context[torch.randint(len(context), (how.batch,))]
            optimiser.zero_grad()
            error, rough = _error(head, taught, some, how.draws)
            (error + rough).mean().backward()
            nn.utils.clip_grad_norm_(trained, 1.0)
            optimiser.step()
        fresh = _contexts(teacher, source.examples(how.held_out, HELD_OUT_EPOCH).observed)
        with torch.no_grad():
            distance = float(_error(head, taught, fresh, how.draws)[0].mean().sqrt())
    copy.metadata["distillation"] = {"teacher": teacher.network.head, "steps": how.steps, "held_out_error": distance}
    return copy.eval()


def _contexts(teacher: Estimator, observed: Observations) -> torch.Tensor:
    """What heads are told of objects; where real ones pass an adapter, of every other object as if it were real."""
    if teacher.adapter is None:
        return teacher.encode(observed)
    even = np.arange(len(observed)) % 2 == 0
    return torch.cat([teacher.encode(observed.take(even)), teacher.encode(observed.take(~even), real=True)])


def _error(
    head: FewStepHead, teacher: SplineHead | FlowMatchingHead, context: torch.Tensor, draws: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean square distance of draws of the same noise, in units of the Gaussian; and how ill that fits the draws; each ``(object,)``."""
    noise = torch.randn(len(context), draws, head.parameters_count)
    with torch.no_grad():
        z = teacher.transform(noise, context[:, None])
    law = head.gaussian(context[:, None])
    aim = law.whiten(z)
    distance = (head.whitened(noise, context[:, None]) - aim.detach()).square().mean(-1).mean(-1)
    return distance, (0.5 * aim.square().mean(-1) - law.log_det / aim.shape[-1]).mean(-1)
