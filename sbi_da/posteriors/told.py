"""What a head is told of an object, in one row, so that it can be kept, moved and repeated like any vector."""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Told"]


@dataclass(frozen=True)
class Told:
    """Where in a row what stands: fused context, tokens, whether each is there, scaled values of channels, whether each was measured.

    Attributes:
        context: width of the fused context.
        tokens: number of tokens of measurements, after the fusion.
        width: of each.
        channels: number of scalar channels.
    """

    context: int
    tokens: int = 0
    width: int = 0
    channels: int = 0

    @property
    def size(self) -> int:
        """Width of the row."""
        return self._values + 2 * self.channels

    @property
    def _values(self) -> int:
        return self.context + self.tokens * (self.width + 1)

    def fused(self, row: Tensor) -> Tensor:
        """The fused context of rows ``(..., size)``, shape ``(..., context)``."""
        return row[..., : self.context]

    def states(self, row: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens, shape ``(..., token, width)``, and whether each is there, boolean, ``(..., token)``."""
        flat, present = row[..., self.context : self._values].split([self.tokens * self.width, self.tokens], dim=-1)
        return flat.unflatten(-1, (self.tokens, self.width)), present > 0.5

    def measured(self, row: Tensor) -> tuple[Tensor, Tensor]:
        """Scaled values and whether each was measured, boolean, both of shape ``(..., channel)``."""
        values, seen = row[..., self._values :].chunk(2, dim=-1)
        return values, seen > 0.5
