r"""Adaptive clustering (DeepAstroUDA, Ciprijanovic et al. 2023, after Li et al. 2021, arXiv 2104.09415): like goes with like.

Real objects :math:`j` are compared with objects :math:`i` of a bank :math:`B`, which holds the present and earlier batches of either
domain, by the probability :math:`\hat s_{ij} = p_i^\top p_j` that both are of one class:

.. math:: L = -\frac{1}{|B|\, m} \sum_{i \in B} \sum_j s_{ij} \log \hat s_{ij} + (1 - s_{ij}) \log(1 - \hat s_{ij}).

The pseudo-label :math:`s_{ij}` is 1 where the :math:`k` most probable classes of both agree in their order, and 0 elsewhere. For a
simulated :math:`i` its label is used: :math:`s_{ij} = 1` where it is the most probable class of :math:`j`. (The paper's sum holds pairs
with a real object only, which has no label; this is how a class label can enter such a pair.) Nothing here needs the classes of the two
domains to be the same: objects of an unknown class cluster among themselves.

With two transformed views of the objects, :math:`p_i` and the pseudo-labels are of the first and :math:`p_j` of the second, so an object
and its own copy are a pair as well. With one view that pair says nothing and is left out. The paper sums where we take the mean.
"""

from typing import ClassVar

import torch
from torch import Tensor

from sbi_da.alignment.class_term import Classified, ClassTerm, nothing
from sbi_da.errors import SbiDaError

__all__ = ["AdaptiveClustering"]

LEAST = 1e-6
"""Of a probability under the logarithm."""


class AdaptiveClustering(ClassTerm):
    """Cross-entropy of pairwise similarities between real objects and a bank of earlier outputs.

    The bank is filled in training mode only, and goes into checkpoints.

    Args:
        top: k, how many classes must agree in their order. None: seven tenths of them, rounded up, as in the paper (3 of 3, 7 of 10).
        bank: most objects of earlier batches that are kept, the latest first; 0 compares within the batch alone.

    Raises:
        SbiDaError: a ``top`` below one or a negative ``bank``.
    """

    kind: ClassVar[str] = "adaptive_clustering"
    views: ClassVar[int] = 2
    bank_logits: Tensor
    bank_labels: Tensor

    def __init__(self, top: int | None = None, bank: int = 1024) -> None:
        super().__init__()
        if (top is not None and top < 1) or bank < 0:
            raise SbiDaError(f"adaptive_clustering: top must be at least 1 and bank not negative, got {top=}, {bank=}")
        self.top, self.size = top, bank
        # Not persistent, because their shapes depend on what was seen: they travel as extra state.
        self.register_buffer("bank_logits", torch.zeros(0, 0), persistent=False)
        self.register_buffer("bank_labels", torch.zeros(0, dtype=torch.long), persistent=False)

    def forward(
        self,
        simulated: Classified,
        real: Classified,
        views: tuple[Classified, Classified] | None = None,
    ) -> Tensor:
        """The term; see :class:`~sbi_da.alignment.class_term.ClassTerm`.

        Raises:
            SbiDaError: second views of other objects, or a bank of other classes.
        """
        if views is not None and len(views[1]) != len(real):
            raise SbiDaError(f"adaptive_clustering: the second view has {len(views[1])} real objects, the first {len(real)}")
        if len(self.bank_logits) and self.bank_logits.shape[1] != real.classes:
            raise SbiDaError(
                f"adaptive_clustering: the bank holds outputs of {self.bank_logits.shape[1]} classes, the batch of "
                f"{real.classes}: build the term anew"
            )
        given = simulated.labels
        labels = torch.full((len(simulated),), -1, device=real.logits.device) if given is None else given
        unlabelled = torch.full((len(real),), -1, dtype=labels.dtype, device=labels.device)
        now, labels = torch.cat([real.logits, simulated.logits]), torch.cat([unlabelled, labels])
        earlier = self.bank_logits.to(now).reshape(-1, real.classes)
        everything, known = torch.cat([now, earlier]), torch.cat([labels, self.bank_labels.to(labels)])
        if self.training and self.size:
            self.bank_logits = everything[: self.size].detach().clone()
            self.bank_labels = known[: self.size].clone()
        loss = nothing(simulated, real)
        if views is not None:
            loss = loss + nothing(*views)
        if not len(real):
            return loss
        same = self._alike(everything.detach(), known, real.logits.detach())
        other = real if views is None else views[1]
        similarity = everything.softmax(-1) @ other.probabilities.T
        similarity = similarity.to(torch.promote_types(similarity.dtype, torch.float32))  # one minus it must not vanish
        similarity = (LEAST + (1 - 2 * LEAST) * similarity).clamp(LEAST, 1 - LEAST)
        crossed = -torch.where(same, similarity.log(), (1 - similarity).log())
        if views is not None:
            return loss + crossed.mean()
        own = torch.eye(*crossed.shape, dtype=torch.bool, device=crossed.device)  # real objects come first
        kept = crossed[~own]
        return loss + kept.mean() if len(kept) else loss

    def _alike(self, bank: Tensor, labels: Tensor, real: Tensor) -> Tensor:
        """Pseudo-labels, shape ``(bank, real)``."""
        top = min(-(-7 * real.shape[1] // 10) if self.top is None else self.top, real.shape[1])
        ranked = bank.argsort(dim=-1, descending=True, stable=True)[:, None, :top]
        order = real.argsort(dim=-1, descending=True, stable=True)[None, :, :top]
        return torch.where(labels[:, None] >= 0, labels[:, None] == order[..., 0], (ranked == order).all(-1))

    def get_extra_state(self) -> dict[str, Tensor]:
        """The bank, for checkpoints."""
        return {"logits": self.bank_logits, "labels": self.bank_labels}

    def set_extra_state(self, state: dict[str, Tensor]) -> None:
        """Inverse of :meth:`get_extra_state`."""
        self.bank_logits = state["logits"].to(self.bank_logits.device)
        self.bank_labels = state["labels"].to(self.bank_labels.device)
