r"""Entropy separation (DeepAstroUDA, Ciprijanovic et al. 2023, after Saito et al. 2020, arXiv 2002.07953), and its active tuner.

A real object whose class occurs in the simulations should get an output of low entropy, one of an unknown class of high entropy:

.. math:: L = -\frac1m \sum_j |H(p_j) - \rho|\; [\,|H(p_j) - \rho| > \mu\,],

entropies in nats. Objects on either side of the boundary :math:`\rho` are driven away from it, those within the margin :math:`\mu` are left
alone. The boundary starts at :math:`\tfrac12 \log K`; afterwards objects above it are rejected (:mod:`sbi_da.alignment.anomalies`).

The tuner (the paper's Algorithm 1) looks at the total loss after every epoch. Where it is no lower than the lowest so far, and
more than five epochs went by (two, between the changes of one cycle), it changes in turn: :math:`\rho` by a step, :math:`\mu` by the
same step, :math:`\mu` to twice itself; then it takes the next of the steps 0.3, -0.3, 0.5, -0.5 and starts over. Every change, though
not the choice of a step, starts the count of epochs anew. What follows the last step is not said: we go back to the first.

As printed nothing bounds the two, and as :math:`\mu` doubles once a cycle it soon exceeds any entropy, which switches the term off.
``bounded`` holds the boundary between 0 and :math:`\log K` and the margin below the greater distance to these ends.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from sbi_da.alignment.class_term import Classified, ClassTerm, nothing
from sbi_da.alignment.entropy import entropy
from sbi_da.errors import SbiDaError

__all__ = ["EntropySeparation", "Tuner"]

STEPS = (0.3, -0.3, 0.5, -0.5)
"""By which the boundary and the margin are changed [nats]."""
PATIENCE = (5, 2, 2, 2)
"""Epochs that must be exceeded before each change of a cycle, the last being the choice of the next step."""
WIDEST = 0.9
"""Margin of a bounded separation, as a fraction of the distance from the boundary to the farther end of the entropies."""


@dataclass
class Tuner:
    """Changes boundary and margin when a loss stops falling.

    Attributes:
        rho: boundary [nats].
        margin: margin [nats].
        steps: that are gone through.
        step: index of the present one.
        change: how many changes of the cycle were made.
        epochs: since the last change.
        lowest: loss so far.
    """

    rho: float
    margin: float
    steps: tuple[float, ...] = STEPS
    step: int = 0
    change: int = 0
    epochs: int = 0
    lowest: float = math.inf

    def update(self, loss: float) -> bool:
        """Take note of an epoch's loss; whether boundary or margin changed. A loss that is not a number has not fallen."""
        self.epochs += 1
        if loss < self.lowest:
            self.lowest = loss
            return False
        if self.epochs <= PATIENCE[self.change]:
            return False
        if self.change == 3:
            self.step, self.change = self.step + 1, 0
            return False
        by = self.steps[self.step % len(self.steps)]
        if self.change == 0:
            self.rho += by
        elif self.change == 1:
            self.margin += by
        else:
            self.margin *= 2
        self.change, self.epochs = self.change + 1, 0
        return True


class EntropySeparation(ClassTerm):
    r"""Real outputs of low or of high entropy, but not in between.

    Boundary and margin take their first values at the first batch, which tells the number of classes, and go into checkpoints.

    Args:
        margin: where :math:`\mu` starts [nats]; the paper takes 0.2 to 0.8 below five classes and 1.1 to 1.6 above. None: half of the
            boundary. (With ten classes entropies lie within 1.15 of the boundary: the paper's larger margins leave nobody outside.)
        steps: of the tuner.
        tuned: whether the tuner acts.
        bounded: keep boundary and margin where they mean something. Off: as printed.

    Raises:
        SbiDaError: a negative margin or no step.
    """

    kind: ClassVar[str] = "entropy_separation"

    def __init__(
        self,
        margin: float | None = None,
        steps: tuple[float, ...] = STEPS,
        tuned: bool = True,
        bounded: bool = True,
    ) -> None:
        super().__init__()
        if (margin is not None and not margin >= 0) or not steps:
            raise SbiDaError(f"entropy_separation: margin must not be negative and steps not empty, got {margin=}, {steps=}")
        self.margin, self.steps, self.tuned, self.bounded = margin, tuple(steps), tuned, bounded
        self.tuner: Tuner | None = None
        self.classes = 0

    def forward(
        self,
        simulated: Classified,
        real: Classified,
        views: tuple[Classified, Classified] | None = None,
    ) -> Tensor:
        """The term; see :class:`~sbi_da.alignment.class_term.ClassTerm`."""
        self._start(real.classes)
        if not len(real):
            return nothing(simulated, real)
        away = (entropy(real.logits) - self.rho).abs()
        return -(away * (away.detach() > self._margin())).mean() + nothing(simulated, real)

    @property
    def rho(self) -> float:
        """The boundary as it is used [nats].

        Raises:
            SbiDaError: before the first batch.
        """
        if self.tuner is None:
            raise SbiDaError("entropy_separation: the boundary is known once a batch was seen")
        return min(max(self.tuner.rho, 0.0), math.log(self.classes)) if self.bounded else self.tuner.rho

    def epoch_ended(self, loss: float) -> None:
        """Let the tuner see the total loss of an epoch."""
        if self.tuner is None or not self.tuned:
            return
        self.tuner.update(loss)
        if self.bounded:
            self.tuner.rho, self.tuner.margin = self.rho, self._margin()

    def _margin(self) -> float:
        """The margin as it is used [nats]."""
        margin = self.tuner.margin if self.tuner else 0.0
        if not self.bounded:
            return margin
        return min(max(margin, 0.0), WIDEST * max(self.rho, math.log(self.classes) - self.rho))

    def _start(self, classes: int) -> None:
        """Set the boundary by the number of classes."""
        if self.tuner is not None and self.classes == classes:
            return
        if self.tuner is not None:
            raise SbiDaError(f"entropy_separation: began with {self.classes} classes, now {classes}: build the term anew")
        rho = math.log(classes) / 2
        self.tuner = Tuner(rho, rho / 2 if self.margin is None else self.margin, self.steps)
        self.classes = classes

    def get_extra_state(self) -> Tensor:
        """Classes and state of the tuner, for checkpoints; empty before the first batch."""
        t = self.tuner
        state = [] if t is None else [self.classes, t.rho, t.margin, t.step, t.change, t.epochs, t.lowest]
        return torch.tensor(state, dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Inverse of :meth:`get_extra_state`."""
        if not len(state):
            self.tuner, self.classes = None, 0
            return
        classes, rho, margin, step, change, epochs, lowest = state.tolist()
        self.classes = int(classes)
        self.tuner = Tuner(rho, margin, self.steps, int(step), int(change), int(epochs), lowest)
