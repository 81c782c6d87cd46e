"""What of a network can be aligned."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Features"]


@dataclass(frozen=True)
class Features:
    """Features of a batch of objects.

    Attributes:
        context: fused context, which the head consumes, shape ``(object, context)``.
        surveys: token of each survey, shape ``(object, survey, width)``.
        present: whether the object has the survey, boolean, shape ``(object, survey)``.
        states: what else the head consumes, shape ``(object, any)``; None: nothing. Terms do not see it.
    """

    context: Tensor
    surveys: Tensor
    present: Tensor
    states: Tensor | None = None

    def __len__(self) -> int:
        return len(self.context)

    def __getitem__(self, rows: Tensor | slice) -> "Features":
        """Some of the objects."""
        states = None if self.states is None else self.states[rows]
        return Features(self.context[rows], self.surveys[rows], self.present[rows], states)

    @property
    def told(self) -> Tensor:
        """All that the head consumes."""
        return self.context if self.states is None else torch.cat([self.context, self.states], dim=1)

    def joined(self, other: "Features") -> "Features":
        """Both batches, one after the other."""
        mine, others = (self.context, self.surveys, self.present), (other.context, other.surveys, other.present)
        return Features(*(torch.cat(pair) for pair in zip(mine, others, strict=True)))

    @property
    def pattern(self) -> Tensor:
        """Which surveys an object has, as one integer, shape ``(object,)``."""
        return (self.present.long() << torch.arange(self.present.shape[1], device=self.present.device)).sum(1)
