r"""Entropy minimisation: a classifier that is sure of real objects, whatever they are.

.. math:: L = \frac1m \sum_j H(p_j) + \lambda\, \mathrm{KL}(\bar p \,\|\, f),
    \qquad H(p) = -\sum_k p_k \log p_k, \quad \bar p = \frac1m \sum_j p_j,

in nats. The first part (Grandvalet & Bengio 2005; DeepMerge II, galaxy-da) moves decision boundaries where real objects are
rare. Alone it is least for a classifier that calls everything by one name. The second keeps the mean output near
the fractions :math:`f`: even ones by default, when the loss at :math:`\lambda = 1` is :math:`\log K` less the mutual
information of object and class (Bridle et al. 1991; SHOT, Liang et al. 2020, arXiv 2002.08546). Where classes are rare, give
their fractions (:mod:`sbi_da.alignment.label_shift` estimates them), or rare ones are invented.
"""

from typing import ClassVar

import torch
from torch import Tensor

from sbi_da.alignment.class_term import Classified, ClassTerm, nothing
from sbi_da.errors import SbiDaError

__all__ = ["Entropy", "entropy"]


def entropy(logits: Tensor) -> Tensor:
    """Entropy of the softmax [nats], shape ``(...)`` of logits ``(..., class)``; gradients are finite for any logits."""
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


class Entropy(ClassTerm):
    r"""Mean entropy of the classes of real objects, and how far their mean is from given fractions.

    Args:
        diversity: :math:`\lambda`; 0 for plain entropy minimisation.
        fractions: :math:`f`, one of each class, all positive; their scale is of no account. None: even.

    Raises:
        SbiDaError: a negative diversity, or fractions that are not positive.
    """

    kind: ClassVar[str] = "entropy"

    def __init__(self, diversity: float = 0.0, fractions: tuple[float, ...] | None = None) -> None:
        super().__init__()
        if not diversity >= 0:
            raise SbiDaError(f"entropy: diversity must not be negative, got {diversity:g}")
        if fractions is not None and not (fractions and min(fractions) > 0):
            raise SbiDaError(f"entropy: fractions must be positive, one of each class, got {fractions}")
        self.diversity, self.fractions = diversity, None if fractions is None else tuple(fractions)

    def forward(
        self,
        simulated: Classified,
        real: Classified,
        views: tuple[Classified, Classified] | None = None,
    ) -> Tensor:
        """The term; see :class:`~sbi_da.alignment.class_term.ClassTerm`.

        Raises:
            SbiDaError: as many fractions as classes are needed.
        """
        if self.fractions is not None and len(self.fractions) != real.classes:
            raise SbiDaError(f"entropy: {len(self.fractions)} fractions for {real.classes} classes: give one of each class")
        if not len(real):
            return nothing(simulated, real)
        loss = entropy(real.logits).mean() + nothing(simulated, real)
        if not self.diversity:
            return loss
        log_mean = real.logits.log_softmax(-1).logsumexp(0).log_softmax(-1)
        wanted = torch.as_tensor(self.fractions or (1.0,) * real.classes).to(log_mean)
        divergence = (log_mean.exp() * (log_mean - (wanted / wanted.sum()).log())).sum()
        return loss + self.diversity * divergence
