r"""Scalar channels to tokens: one per channel, one per survey, one for the common brightness.

A channel's token is a function of its value, error, state and identity. Magnitudes enter relative to their mean over the
channels observed for the object, :math:`m_c - \bar m`, so that colours are inputs rather than small differences of large
numbers the network has to learn; :math:`\bar m` itself is a token. Values are expanded in sines and cosines of octave periods
(Tancik et al. 2020, arXiv 2006.10739) to resolve hundredths of a magnitude. A survey's token is a function of the mean of its
channels' tokens. Beside the tokens stands one wide sum over the observed channels, the first layer of a masked perceptron:
attention is good at what depends on which measurements there are, a perceptron at smooth functions of many numbers. Entries
of absent channels are replaced before any arithmetic and their tokens are masked.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sbi_da.records.records import ABSENT, LIMIT, OBSERVED

__all__ = ["ScalarEncoder"]

OCTAVES = 7
"""Periods from 32 down to 0.5 units of the scaled value, unless fewer are asked for."""
SOFTENING = 0.1
"""Parallax [mas] below which its stretch is linear."""


class ScalarEncoder(nn.Module):
    """Tokens of all scalar channels.

    Args:
        kinds: kind of each channel (``magnitude``, ``parallax``, ``scalar``).
        survey_index: index of the survey of each channel.
        width: token width.
        summary: width of the sum over channels.
        surveys: how many there are, with or without scalar channels; None: as many as the index names.
        octaves: of the sines and cosines, from a period of 32 units downwards.
    """

    center: Tensor
    scale: Tensor
    is_magnitude: Tensor
    is_parallax: Tensor
    is_scalar: Tensor
    membership: Tensor
    frequency: Tensor

    def __init__(
        self, kinds: Sequence[str], survey_index: Sequence[int], width: int, summary: int, surveys: int | None = None,
        octaves: int = OCTAVES,
    ) -> None:
        super().__init__()
        count, surveys = len(kinds), surveys or max(survey_index) + 1
        self.register_buffer("is_magnitude", torch.tensor([k == "magnitude" for k in kinds], dtype=torch.bool), persistent=False)
        self.register_buffer("is_scalar", torch.tensor([k == "scalar" for k in kinds], dtype=torch.bool), persistent=False)
        self.register_buffer("is_parallax", torch.tensor([k == "parallax" for k in kinds], dtype=torch.bool), persistent=False)
        membership = nn.functional.one_hot(torch.tensor(list(survey_index), dtype=torch.long), surveys).float()
        self.register_buffer("membership", membership, persistent=False)
        self.register_buffer("center", torch.zeros(3, count))
        self.register_buffer("scale", torch.ones(3, count))
        self.register_buffer("frequency", 2 * torch.pi / 2.0 ** torch.arange(5, 5 - octaves, -1), persistent=False)
        features = 2 + 2 * octaves + 2 + 1
        self.embed = nn.Parameter(torch.randn(count, features, width) / features**0.5)
        self.wide = nn.Parameter(torch.randn(count, features + 1, summary) / max(1, count * features) ** 0.5)
        self.identity = nn.Parameter(torch.randn(count, width) * 0.5)
        self.mix = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
        self.survey_identity = nn.Parameter(torch.randn(surveys, width) * 0.5)
        self.pool = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.common = nn.Sequential(nn.Linear(1 + 2 * octaves, width), nn.SiLU(), nn.Linear(width, width))

    def fit(self, value: Tensor, error: Tensor, state: Tensor) -> None:
        """Take centres and scales from observed entries of a sample, each of shape ``(object, channel)``."""
        seen, rows = state != ABSENT, self.rows(value, error, state)[:3]
        for k, row in enumerate(rows):
            for c in range(state.shape[1]):
                sample = row[seen[:, c], c]
                if len(sample) > 1:
                    self.center[k, c] = sample.mean()
                    self.scale[k, c] = sample.std().clamp_min(1e-3)

    def rows(self, value: Tensor, error: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Transformed value, colour (or the value again), log error, and mean magnitude."""
        seen = state != ABSENT
        value = torch.where(seen, value, 0.0)
        error = torch.where(seen, error, 1.0)
        stretched = torch.asinh(value / SOFTENING)
        relative = error / torch.sqrt(value**2 + SOFTENING**2)
        value = torch.where(self.is_parallax, stretched, value)
        log_error = torch.log(torch.where(self.is_parallax, relative, error))
        measured = self.is_magnitude & (state == OBSERVED)
        fallback = self.is_magnitude & (state == LIMIT) & ~measured.any(-1, keepdim=True)
        used = (measured | fallback).to(value.dtype)
        mean = (value * used).sum(-1, keepdim=True) / used.sum(-1, keepdim=True).clamp_min(1.0)
        colour = torch.where(self.is_magnitude, value - mean, value)
        return value, colour, log_error, mean

    def _waves(self, x: Tensor) -> Tensor:
        phase = x[..., None] * self.frequency
        return torch.cat([phase.sin(), phase.cos()], dim=-1)

    def colours(self, value: Tensor, error: Tensor, state: Tensor) -> Tensor:
        """Magnitudes relative to the object's mean, other values as they are, scaled; zero where absent; ``(object, channel)``."""
        colour = self.rows(value, error, state)[1]
        return torch.where(state != ABSENT, (colour - self.center[1]) / self.scale[1], 0.0)

    def scaled(self, value: Tensor, error: Tensor, state: Tensor) -> Tensor:
        """Values of unit spread, parallaxes stretched; zero where absent; ``(object, channel)``."""
        raw = self.rows(value, error, state)[0]
        return torch.where(state != ABSENT, (raw - self.center[0]) / self.scale[0], 0.0)

    def unscaled(self, scaled: Tensor) -> Tensor:
        """Inverse of :meth:`scaled`, of shape ``(..., channel)``."""
        raw = scaled * self.scale[0] + self.center[0]
        return torch.where(self.is_parallax, SOFTENING * torch.sinh(raw.clamp(-30, 30)), raw)

    def present(self, state: Tensor) -> Tensor:
        """Which tokens there are for states of shape ``(object, channel)``: boolean, ``(object, token)``."""
        seen = state != ABSENT
        surveys = torch.einsum("bc,cs->bs", seen.to(self.membership.dtype), self.membership) > 0
        return torch.cat([(seen & self.is_magnitude).any(-1, keepdim=True), surveys, seen], dim=1)

    def forward(self, value: Tensor, error: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Encode.

        Args:
            value: shape ``(object, channel)``; whatever stands in absent entries is never read.
            error: same shape.
            state: same shape, integers.

        Returns:
            Tokens, shape ``(object, token, width)``; whether each is present, ``(object, token)``: first the common brightness, then
            the surveys, then the channels; and the sum over observed channels, ``(object, summary)``.
        """
        seen = state != ABSENT
        raw, colour, log_error, mean = self.rows(value, error, state)
        scaled = [(row - self.center[k]) / self.scale[k] for k, row in enumerate((raw, colour, log_error))]
        plain = torch.stack([*scaled, state == OBSERVED, state == LIMIT], dim=-1)
        features = torch.cat([plain, self._waves(torch.where(self.is_scalar, scaled[1], colour))], dim=-1)
        features = torch.where(seen[..., None], features, 0.0)
        tokens = torch.einsum("bcf,cfw->bcw", features, self.embed) + self.identity
        tokens = tokens + self.mix(tokens)
        weight = seen.to(tokens.dtype)
        summary = torch.einsum("bcf,cfw->bw", torch.cat([features, weight[..., None]], dim=-1), self.wide)
        members = torch.einsum("bc,cs->bs", weight, self.membership)
        pooled = torch.einsum("bcw,bc,cs->bsw", tokens, weight, self.membership) / members.clamp_min(1.0)[..., None]
        surveys = self.pool(pooled) + self.survey_identity
        brightness = self.common(torch.cat([(mean - 15.0) / 4.0, self._waves(mean[..., 0])], dim=-1))
        return torch.cat([brightness[:, None], surveys, tokens], dim=1), self.present(state), summary
