r"""How much each loss counts while the training proceeds.

Schedules map the progress :math:`p \in [0, 1]` of the training to a weight: constant, linear, or zero during a warm-up on
simulations alone and then a ramp. Alternatively the weights are learned (Kendall, Gal & Cipolla 2018, arXiv 1705.07115),

.. math:: \sum_k \frac{L_k}{2 \eta_k^2} + \log \prod_k \eta_k,

whose optimum for a constant loss is :math:`\eta_k^2 = L_k`, a weight of :math:`1 / 2 L_k`: it asks how large a loss is, never
whether it helps. Where :math:`L_k \le 0`, as the negative logarithm of a density or an unbiased divergence may be, there is no
optimum and :math:`\eta_k` runs to zero; a loss that does not fall is switched off by a growing :math:`\eta_k`. Hence the bounds
of :math:`\eta`: no loss counts more than 200 or less than 1/200. Nothing here says which weight is right: judge by the log score of
held-out pairs, at a progress where the weights have settled.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from sbi_da.errors import SbiDaError

__all__ = ["BOUNDS", "Fixed", "LearnedWeights", "Linear", "Ramp", "Schedule", "Scheduler"]

BOUNDS = (0.05, 10.0)
"""Of eta."""
INITIAL = (0.1, 1.0)
"""Eta of the task and of every other loss at the start: the task is learned first."""


@dataclass(frozen=True)
class Schedule(ABC):
    """Base of the schedules.

    Attributes:
        kind: name in configs.
        value: the weight in the end.
    """

    kind: ClassVar[str]
    value: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.value < math.inf:
            raise SbiDaError(f"schedule {self.kind}: value must be finite and not negative, not {self.value:g}")

    @property
    def settled(self) -> float:
        """Progress from which the weight no longer changes."""
        return 0.0

    @abstractmethod
    def at(self, progress: float) -> float:
        """The weight at a progress, which is cut to [0, 1]."""
        ...


@dataclass(frozen=True)
class Fixed(Schedule):
    """The same weight throughout."""

    kind: ClassVar[str] = "fixed"

    def at(self, progress: float) -> float:
        """The value."""
        return self.value


@dataclass(frozen=True)
class Linear(Schedule):
    """From nothing at the first step to the value at the last."""

    kind: ClassVar[str] = "linear"

    @property
    def settled(self) -> float:
        """The end."""
        return 1.0

    def at(self, progress: float) -> float:
        """The value times the progress."""
        return self.value * min(max(progress, 0.0), 1.0)


@dataclass(frozen=True)
class Ramp(Schedule):
    """Nothing during a warm-up, then a rise to the value, which is kept.

    Attributes:
        warmup: progress at which the rise begins.
        full: progress at which it ends.
        shape: of the rise: a straight line, or half a period of a cosine.
    """

    kind: ClassVar[str] = "ramp"
    warmup: float = 0.1
    full: float = 0.4
    shape: Literal["linear", "cosine"] = "linear"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.warmup <= self.full <= 1:
            raise SbiDaError(f"schedule ramp: needs 0 <= warmup <= full <= 1, not {self.warmup:g} and {self.full:g}")
        if self.shape not in ("linear", "cosine"):
            raise SbiDaError(f"schedule ramp: shape must be linear or cosine, not {self.shape!r}")

    @property
    def settled(self) -> float:
        """Where the rise ends."""
        return self.full

    def at(self, progress: float) -> float:
        """Zero, the rise, the value."""
        if progress >= self.full:
            return self.value
        risen = max(progress - self.warmup, 0.0) / (self.full - self.warmup) if progress > self.warmup else 0.0
        return self.value * (risen if self.shape == "linear" else 0.5 - 0.5 * math.cos(math.pi * risen))


class LearnedWeights(nn.Module):
    """Weights learned with the network, one per loss.

    The parameter is log eta. Exclude it from weight decay, which would pull every eta to one.

    Args:
        task: name of the loss of the task.
        terms: names of the other losses.
    """

    def __init__(self, task: str, terms: Sequence[str]) -> None:
        super().__init__()
        self.names = (task, *terms)
        if len(set(self.names)) < len(self.names):
            raise SbiDaError(f"learned weights: a loss is named twice in {', '.join(self.names)}")
        eta = torch.full((len(self.names),), INITIAL[1])
        eta[0] = INITIAL[0]
        self.log_eta = nn.Parameter(eta.log())

    def weights(self) -> dict[str, float]:
        """The factor of each loss, 1 / 2 eta²."""
        eta = self.log_eta.detach().exp().clamp(*BOUNDS)
        return dict(zip(self.names, (0.5 / eta.square()).tolist(), strict=True))

    def forward(self, losses: Mapping[str, Tensor], gates: Mapping[str, float]) -> Tensor:
        """The sum above, each summand times its gate; closed gates are left out.

        Args:
            losses: scalars; those of closed gates need not be there.
            gates: one per name; they do not move the optimum.
        """
        with torch.no_grad():  # projected: a parameter beyond a clamp would have no gradient to come back by
            self.log_eta.clamp_(math.log(BOUNDS[0]), math.log(BOUNDS[1]))
        total = 0.0 * self.log_eta.sum()
        for name, log_eta in zip(self.names, self.log_eta, strict=True):
            if gates[name]:
                total = total + gates[name] * (0.5 * torch.exp(-2 * log_eta) * losses[name] + log_eta)
        return total


class Scheduler(nn.Module):
    """From the losses of a step to the one that is minimised.

    Args:
        schedules: one per loss, the task included. Where the weight of a loss is learned its schedule is a gate: weight times gate.
        learned: weights to learn, of some or all of the losses.

    Raises:
        SbiDaError: a learned weight without a schedule.
    """

    def __init__(self, schedules: Mapping[str, Schedule], learned: LearnedWeights | None = None) -> None:
        super().__init__()
        self.schedules = dict(schedules)
        self.learned = learned
        missing = [name for name in (learned.names if learned else ()) if name not in self.schedules]
        if missing or not self.schedules:
            raise SbiDaError(f"scheduler: no schedule for {', '.join(missing) or 'any loss'}: give one, for instance Fixed(1.0)")

    @property
    def settled(self) -> float:
        """Progress from which checkpoints may be compared by their loss; with learned weights none may."""
        return 1.0 if self.learned else max(schedule.settled for schedule in self.schedules.values())

    def scheduled(self, progress: float) -> dict[str, float]:
        """What the schedules say, zeros included."""
        return {name: schedule.at(progress) for name, schedule in self.schedules.items()}

    def active(self, progress: float) -> tuple[str, ...]:
        """Names of the losses that count; the others need not be computed."""
        return tuple(name for name, weight in self.scheduled(progress).items() if weight)

    def forward(self, losses: Mapping[str, Tensor], progress: float) -> Tensor:
        """The total.

        Args:
            losses: scalars by name; those not :meth:`active` may be missing and are ignored.
            progress: how far the training is, from 0 to 1.

        Returns:
            A scalar.

        Raises:
            SbiDaError: a loss that is missing or has no schedule.
        """
        scheduled = self.scheduled(progress)
        active = [name for name, weight in scheduled.items() if weight]
        wrong = [name for name in losses if name not in scheduled] + [name for name in active if name not in losses]
        if wrong or not active:
            raise SbiDaError(
                f"scheduler at progress {progress:g}: cannot weigh {', '.join(wrong) or 'nothing'}; schedules are for "
                f"{', '.join(scheduled)}, of which {', '.join(active) or 'none'} count now"
            )
        learned = self.learned.names if self.learned else ()
        parts = [scheduled[name] * losses[name] for name in active if name not in learned]
        return torch.stack(parts + ([self.learned(losses, scheduled)] if self.learned else [])).sum()
