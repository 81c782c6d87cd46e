"""The loss of each object of a batch, as training sees it."""

from torch import Tensor, nn

from sbi_da.measured import Batch

__all__ = ["PosteriorLoss"]


class PosteriorLoss(nn.Module):
    """Loss of each object, shape ``(object,)``; called with a batch, ``z`` its targets ``(object, parameter)``, and its contexts."""

    step: int | None = None
    """Of the training, on which what is drawn depends and nothing else; None: on torch's own random numbers."""

    def posed(self, batch: Batch) -> Batch:
        """The batch as the network is to see it, before it is encoded."""
        return batch

    def judged(self, batch: Batch, context: Tensor) -> Tensor:
        """What held-out objects are judged by, shape ``(object,)``."""
        loss: Tensor = self(batch, context)
        return loss
