"""The masked transformer that fuses the tokens of all surveys into one context.

Absent tokens are masked as keys in every layer and left out of the pooling; a token that is always present (the query whose
final state is part of the context) keeps every softmax well defined, so an object with nothing observed is an ordinary case. Objects
are processed in groups of similar token count, each trimmed to its longest member.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from sbi_da.gated import Residual, feed_forward

__all__ = ["MaskedTransformer"]


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, expansion: int, dropout: float, gated: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(feed_forward(width, expansion * width, gated), nn.Dropout(dropout))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.project(self.norm_attention(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None, :])
        x = x + self.out(attended.transpose(1, 2).flatten(-2))
        return x + self.mlp(self.norm_mlp(x))


class MaskedTransformer(nn.Module):
    """Tokens with a mask to a context vector.

    Args:
        width: token width.
        context: width of the context.
        layers: number of pre-norm layers.
        heads: attention heads.
        summary: width of the encoders' sum over measurements.
        blocks: residual perceptrons that join attention and summary.
        expansion: hidden width of the MLP blocks over ``width``.
        group: objects of similar token count that are processed together.
        dropout: share of what a layer adds that is dropped in training.
        gated: whether hidden units of the perceptrons are products.
    """

    def __init__(
        self, width: int, context: int, layers: int = 4, heads: int = 4, summary: int = 256, blocks: int = 3,
        expansion: int = 2, group: int = 128, dropout: float = 0.0, gated: bool = False,
    ) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(width) * 0.5)
        self.layers = nn.ModuleList(_Layer(width, heads, expansion, dropout, gated) for _ in range(layers))
        self.join = nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, summary))
        self.out = nn.Sequential(
            *(Residual(summary, summary, dropout, gated) for _ in range(blocks)),
            nn.LayerNorm(summary), nn.Linear(summary, context), nn.LayerNorm(context),
        )
        self.group, self.context = group, context

    def _fuse(self, tokens: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([self.query.expand(len(tokens), 1, -1), tokens], dim=1)
        mask = torch.cat([present.new_ones(len(tokens), 1), present], dim=1)
        for layer in self.layers:
            x = layer(x, mask)
        weight = mask.to(x.dtype)
        pooled = torch.einsum("btw,bt->bw", x, weight) / weight.sum(1, keepdim=True)
        return torch.cat([x[:, 0], pooled], dim=-1), x[:, 1:]

    def forward(
        self, tokens: Tensor, present: Tensor, summary: Tensor, with_states: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Fuse.

        Args:
            tokens: shape ``(object, token, width)``; absent ones must be finite and have no influence.
            present: boolean, shape ``(object, token)``.
            summary: sum over the measurements that are present, shape ``(object, summary)``.
            with_states: whether the tokens after the layers are wanted.

        Returns:
            The context, shape ``(object, context)``, and these tokens, of the shape of ``tokens``, zero where absent, or None.
        """
        count = present.sum(1)
        order = torch.argsort(count)
        pieces, states = [], torch.zeros_like(tokens) if with_states else None
        for rows in order.split(self.group):
            longest = int(count[rows[-1]])
            first = torch.argsort(present[rows].to(torch.int8), dim=1, descending=True, stable=True)[:, :longest]
            kept = tokens[rows].gather(1, first[..., None].expand(-1, -1, tokens.shape[-1]))
            held = present[rows].gather(1, first)
            fused, state = self._fuse(kept, held)
            pieces.append(fused)
            if states is not None:
                place = first[..., None].expand(-1, -1, tokens.shape[-1])
                states[rows] = states[rows].scatter(1, place, torch.where(held[..., None], state, 0.0))
        if not pieces:
            return tokens.new_zeros(0, self.context), states
        attended = torch.cat(pieces)[torch.argsort(order)]
        return self.out(summary + self.join(attended)), states
