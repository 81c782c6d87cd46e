"""What a flow-matching head is trained with: velocities, under questions drawn anew for every object and time.

Where channels are variables too, some of those that were measured are kept from the encoder and asked of the head; how many is uniform over
objects, from none to all. Held-out objects are judged by the same questions, times and noises every time.
"""

import torch
from torch import Tensor

from sbi_da.encoders import ScalarEncoder
from sbi_da.measured import Batch
from sbi_da.object_loss import PosteriorLoss
from sbi_da.posteriors.matching import FlowMatchingHead
from sbi_da.posteriors.questions import PLAIN, draw_questions
from sbi_da.records import ABSENT, OBSERVED

__all__ = ["MatchingLoss"]

HIDDEN, CHANNELS = "hidden", "channels"
SEED = 20_231
"""Of what held-out objects are asked."""


class MatchingLoss(PosteriorLoss):
    """Velocity error of each object, under as many questions as times and noises are drawn.

    Args:
        head: what is trained.
        encoder: in whose units channels are predicted.
        questions: whether any conditional is asked, or only the posterior of all parameters.
    """

    def __init__(self, head: FlowMatchingHead, encoder: ScalarEncoder, questions: bool) -> None:
        super().__init__()
        self.parts, self.questions = [(head, encoder)], questions  # a list, so that weights are not registered twice

    def _generator(self, batch: Batch, salt: int) -> torch.Generator | None:
        """While training one for each step, so that a resumed training is the same; else one for each size of a batch."""
        if self.training:
            if self.step is None:
                return None
            seed = (torch.initial_seed() * 1_000_003 + 2 * self.step + salt) % 2**63
            return torch.Generator(batch["z"].device).manual_seed(seed)
        return torch.Generator(batch["z"].device).manual_seed(SEED + 2 * len(batch["z"]) + salt)

    def posed(self, batch: Batch) -> Batch:
        """Some measured channels are hidden from the encoder, and kept to be asked."""
        head, encoder = self.parts[0]
        if head.variables == head.parameters_count:
            return batch
        state, generator = batch["state"], self._generator(batch, 0)

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator, device=state.device)

        hidden = uniform(*state.shape) < 1.2 * uniform(len(state), 1)
        kept_back = hidden & (state != ABSENT) & (uniform(len(state), 1) > PLAIN)  # limits too, so that absence says nothing
        hidden = kept_back & (state == OBSERVED)
        scaled = torch.where(hidden, encoder.scaled(batch["value"], batch["error"], batch["state"]), 0.0)
        return {**batch, "state": torch.where(kept_back, ABSENT, state.long()).to(state.dtype), HIDDEN: hidden, CHANNELS: scaled}

    def forward(self, batch: Batch, context: Tensor) -> Tensor:
        """The loss."""
        head, generator = self.parts[0][0], self._generator(batch, 1)
        z, more = batch["z"][:, None], head.variables - head.parameters_count
        if not self.questions:
            return head.losses(z, context, generator=generator)
        z = z.expand(-1, head.repeats, -1)  # every time and noise has a question of its own
        count, size = z[..., 0].numel(), z.shape[-1]
        channels = batch.get(CHANNELS, z.new_zeros(len(z), more))[:, None].expand(-1, head.repeats, -1)
        hidden = None
        if more:
            kept_back = batch.get(HIDDEN, torch.zeros(len(z), more, dtype=torch.bool, device=z.device))
            hidden = kept_back.repeat_interleave(head.repeats, 0)
        known, asked = (m.unflatten(0, z.shape[:2]) for m in draw_questions(count, size, hidden, generator, z.device))
        told = torch.where(known[..., :size], head.told(z), z)
        return head.losses(torch.cat([told, channels], -1) if more else told, context, known, asked, generator)
