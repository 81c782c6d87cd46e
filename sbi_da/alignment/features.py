"""What of a network can be aligned."""

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Features"]


@dataclass(frozen=True)
class Features:
    """Features of a batch of objects.

    Attributes:
        context: fused context, the very vector the head consumes, shape ``(object, context)``.
        surveys: token of each survey, shape ``(object, survey, width)``.
        present: whether the object has the survey, boolean, shape ``(object, survey)``.
    """

    context: Tensor
    surveys: Tensor
    present: Tensor

    def __len__(self) -> int:
        return len(self.context)

    def __getitem__(self, rows: Tensor | slice) -> "Features":
        """Some of the objects."""
        return Features(self.context[rows], self.surveys[rows], self.present[rows])

    def joined(self, other: "Features") -> "Features":
        """Both batches, one after the other."""
        mine, others = (self.context, self.surveys, self.present), (other.context, other.surveys, other.present)
        return Features(*(torch.cat(pair) for pair in zip(mine, others, strict=True)))

    @property
    def pattern(self) -> Tensor:
        """Which surveys an object has, as one integer, shape ``(object,)``."""
        return (self.present.long() << torch.arange(self.present.shape[1], device=self.present.device)).sum(1)
