"""Faults as a classifier sees them: the odds of each kind in each survey, learned from simulated objects into which they were put.

Where the law of what surveys measure is not Gaussian, and with few surveys it is not, this finds more than distances from a prediction do:
by Neyman and Pearson nothing separates better than the ratio of likelihoods, which is what a classifier learns.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sbi_da.encoders import ScalarEncoder
from sbi_da.records import ABSENT, OBSERVED
from sbi_da.trust.faults import KINDS

__all__ = ["FaultFinder"]

FARTHEST = 30.0
"""Largest input, in standard deviations."""


class FaultFinder(nn.Module):
    """Finds faults.

    Args:
        survey_index: index of the survey of each channel.
        surveys: how many there are.
        width: of the hidden layers.
        blocks: residual ones.
    """

    own: Tensor

    def __init__(self, survey_index: Sequence[int], surveys: int, width: int = 256, blocks: int = 3) -> None:
        super().__init__()
        index = torch.tensor(list(survey_index))
        self.register_buffer("own", index[None] == torch.arange(surveys)[:, None], persistent=False)
        self.first = nn.Linear(4 * len(index) + 1, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width)) for _ in range(blocks)
        )
        self.last = nn.Linear(width, 1 + len(KINDS) * surveys)

    def forward(self, encoder: ScalarEncoder, value: Tensor, error: Tensor, state: Tensor) -> Tensor:
        """Unnormalised log-probabilities of no fault, then of each kind by survey, ``(object, 1 + kind * survey)``.

        Args:
            encoder: whose scales are used.
            value: shape ``(object, channel)``; absent entries are never read.
            error: same shape.
            state: same shape.
        """
        _, colour, log_error, mean = encoder.rows(value, error, state)
        seen = state != ABSENT
        scaled = [(row - encoder.center[k]) / encoder.scale[k] for k, row in ((1, colour), (2, log_error))]
        inputs = [torch.where(seen, row, 0.0).clamp(-FARTHEST, FARTHEST) for row in scaled]
        h = self.first(torch.cat([*inputs, state == OBSERVED, seen, (mean - 15.0) / 4.0], dim=-1))
        for block in self.blocks:
            h = h + block(h)
        return torch.as_tensor(self.last(h))

    def log_odds(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Log-odds of any fault against none, ``(object,)``, and of one in each survey, ``(object, survey)``."""
        each = torch.logsumexp(logits[:, 1:].unflatten(1, (len(KINDS), -1)), dim=1)
        return torch.logsumexp(each, dim=1) - logits[:, 0], each - logits[:, :1]
