"""What every term of an adapted classifier is: two batches, seen through the classifier's head, to one number.

A distribution term (:mod:`sbi_da.alignment.term`) compares features alone. A class term also reads the class logits of either side
and the labels of the simulated one. Real labels take no part: a batch of real objects carries none.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from sbi_da.errors import SbiDaError

__all__ = ["ClassTerm", "Classified", "nothing"]


@dataclass(frozen=True)
class Classified:
    """A batch of objects as a classifier sees them.

    Attributes:
        features: the very vectors the head consumes, shape ``(n, width)``.
        logits: raw logits of the classes, shape ``(n, class)``.
        labels: integer codes of the classes, shape ``(n,)``, negative for an object of unknown class; None where all are.

    Raises:
        SbiDaError: shapes that do not fit together, or labels that are not integers.
    """

    features: Tensor
    logits: Tensor
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        if self.features.ndim != 2 or self.logits.ndim != 2 or len(self.features) != len(self.logits):
            raise SbiDaError(
                f"a batch of a classifier needs features (n, width) and logits (n, class) of the same objects, got "
                f"{tuple(self.features.shape)} and {tuple(self.logits.shape)}"
            )
        if self.labels is None:
            return
        if self.labels.shape != self.logits.shape[:1] or self.labels.is_floating_point():
            raise SbiDaError(
                f"labels of a batch must be integer codes, one for each of its {len(self.logits)} objects, got "
                f"{self.labels.dtype} of shape {tuple(self.labels.shape)}"
            )

    def __len__(self) -> int:
        """Number of objects."""
        return len(self.features)

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.logits.shape[1]

    @property
    def probabilities(self) -> Tensor:
        """Softmax of the logits, shape ``(n, class)``."""
        return self.logits.softmax(-1)


class ClassTerm(nn.Module, ABC):
    """Base of the terms that see classes. The typed ``__init__`` of a subclass is its configuration.

    Attributes:
        kind: name in configs.
        progress: of the training, from 0 to 1, set by whoever trains.
        views: transformed copies of every object that the term wants: 1, or 2 for a second one.
    """

    kind: ClassVar[str]
    views: ClassVar[int] = 1
    progress: float = 1.0

    def __init__(self) -> None:
        super().__init__()

    @abstractmethod
    def forward(
        self,
        simulated: Classified,
        real: Classified,
        views: tuple[Classified, Classified] | None = None,
    ) -> Tensor:
        """The term.

        Args:
            simulated: simulated objects, with labels.
            real: real objects; their labels, if any, are not looked at.
            views: second copies of the same objects of both batches, in the same order, for a term whose ``views`` is 2.

        Returns:
            A scalar, zero (with zero gradients) where a side it needs has too few objects.
        """
        ...

    def epoch_ended(self, loss: float) -> None:
        """Take note of the end of an epoch, for terms that tune themselves.

        Args:
            loss: of the epoch, the total that is minimised.
        """
        return


def nothing(simulated: Classified, real: Classified) -> Tensor:
    """A zero that hangs on everything, so that gradients are zeros rather than missing."""
    parts = [(0.0 * x).sum() for x in (simulated.features, simulated.logits, real.features, real.logits)]
    return torch.stack(parts).sum()
