"""Feed-forward layers, also such whose hidden units are products (Shazeer 2020, arXiv 2002.05202): what is quadratic needs few of those."""

from torch import Tensor, nn

__all__ = ["Gated", "Residual", "feed_forward"]


class Gated(nn.Module):
    """Products of two linear maps, one of them through a SiLU, to a third.

    Args:
        width: of input and output.
        hidden: number of products.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(..., width)`` to the same."""
        value, gate = self.first(x).chunk(2, dim=-1)
        out: Tensor = self.last(value * nn.functional.silu(gate))
        return out


def feed_forward(width: int, hidden: int, gated: bool) -> nn.Module:
    """Two linear maps with hidden units between them, products or not."""
    return Gated(width, hidden) if gated else nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, width))


class Residual(nn.Module):
    """A perceptron that adds to its input.

    Args:
        width: of input and output.
        hidden: number of hidden units.
        dropout: share of what it adds that is dropped in training.
        gated: whether hidden units are products.
    """

    def __init__(self, width: int, hidden: int, dropout: float = 0.0, gated: bool = False) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.LayerNorm(width), feed_forward(width, hidden, gated), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        """Shape ``(..., width)`` to the same."""
        out: Tensor = x + self.mlp(x)
        return out
