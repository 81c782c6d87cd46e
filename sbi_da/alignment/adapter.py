r"""A branch of the network for real objects: the shared network plus small corrections that start at nothing.

A shared encoder cannot give two embeddings to one measurement, which is what a shift between simulator and sky asks for. So real
objects pass through up to three further parts, each zero at the start and for simulated objects always:

- ``instrument``: :math:`x_c \to x_c + \sigma_c\,\delta_c(\text{colours})`, zero points and colour terms of every channel, an affine map
  and a small perceptron of the colours that were observed;
- ``film``: scale and shift of the tokens of each survey (Perez et al. 2018, arXiv 1709.07871), and so a token for the domain;
- ``residual``: :math:`c \to c + W_2\,\mathrm{SiLU}(W_1 c)` on the fused context.

What is absent stays absent: nothing here reads it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sbi_da.errors import SbiDaError, UnknownNameError

__all__ = ["PARTS", "RealBranch"]

PARTS = ("instrument", "film", "residual")


class RealBranch(nn.Module):
    """Corrections for real objects.

    Args:
        parts: which of :data:`PARTS` there are.
        survey_index: index of the survey of each channel.
        width: token width.
        summary: width of the encoders' sum over measurements.
        context: width of the context.
        hidden: width of the perceptrons inside.
    """

    owner: Tensor

    def __init__(
        self, parts: Sequence[str], survey_index: Sequence[int], width: int, summary: int, context: int, hidden: int = 32,
        surveys: int | None = None,
    ) -> None:
        super().__init__()
        for part in parts:
            if part not in PARTS:
                raise UnknownNameError("adapter part", part, list(PARTS))
        channels, surveys = len(survey_index), surveys or max(survey_index) + 1
        if "instrument" in parts and not channels:
            raise SbiDaError("adapter part 'instrument' shifts scalar channels, and there are none: leave it out")
        self.parts = tuple(parts)
        if "instrument" in parts:
            self.affine = _zero(nn.Linear(channels, channels))
            self.bend = nn.Sequential(nn.Linear(2 * channels, hidden), nn.SiLU(), _zero(nn.Linear(hidden, channels)))
        if "film" in parts:
            owner = torch.tensor([0, *range(1, surveys + 1), *(1 + k for k in survey_index)])
            self.register_buffer("owner", owner, persistent=False)
            self.film = nn.Parameter(torch.zeros(surveys + 1, 2, width))
            self.offset = nn.Parameter(torch.zeros(summary))
        if "residual" in parts:
            self.residual = nn.Sequential(
                nn.Linear(context, hidden), nn.SiLU(), _zero(nn.Linear(hidden, context))
            )

    def shift(self, colours: Tensor, seen: Tensor) -> Tensor:
        """Shift of the channels in their scales, shape ``(object, channel)``; ``colours`` are zero where not ``seen``."""
        if "instrument" not in self.parts:
            return torch.zeros_like(colours)
        return self.affine(colours) + self.bend(torch.cat([colours, seen.to(colours.dtype)], dim=-1))

    def tokens(self, tokens: Tensor, summary: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens ``(object, token, width)`` (brightness, surveys, channels) and summaries ``(object, summary)`` of real objects."""
        if "film" not in self.parts:
            return tokens, summary
        scale, shift = self.film[self.owner].unbind(1)
        return tokens * (1 + scale) + shift, summary + self.offset

    def context(self, context: Tensor) -> Tensor:
        """Contexts of real objects, shape ``(object, context)``."""
        return context + self.residual(context) if "residual" in self.parts else context


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
