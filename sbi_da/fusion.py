"""The masked transformer that fuses the tokens of all surveys into one context.

Absent tokens are masked as keys in every layer and left out of the pooling; a token that is always present (the query whose
final state is part of the context) keeps every softmax well defined, so an object with nothing observed is an ordinary case. Objects
are processed in groups of similar token count, each trimmed to its longest member.
"""

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

__all__ = ["MaskedTransformer"]


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, expansion: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.project = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, expansion * width), nn.SiLU(), nn.Linear(expansion * width, width))

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
        expansion: hidden width of the MLP blocks over ``width``.
        group: objects of similar token count that are processed together.
    """

    def __init__(
        self, width: int, context: int, layers: int = 4, heads: int = 4, expansion: int = 2, group: int = 128
    ) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(width) * 0.5)
        self.layers = nn.ModuleList(_Layer(width, heads, expansion) for _ in range(layers))
        self.out = nn.Sequential(nn.LayerNorm(2 * width), nn.Linear(2 * width, context), nn.LayerNorm(context))
        self.group, self.context = group, context

    def _fuse(self, tokens: Tensor, present: Tensor) -> Tensor:
        x = torch.cat([self.query.expand(len(tokens), 1, -1), tokens], dim=1)
        mask = torch.cat([present.new_ones(len(tokens), 1), present], dim=1)
        for layer in self.layers:
            x = layer(x, mask)
        weight = mask.to(x.dtype)
        pooled = torch.einsum("btw,bt->bw", x, weight) / weight.sum(1, keepdim=True)
        return self.out(torch.cat([x[:, 0], pooled], dim=-1))

    def forward(self, tokens: Tensor, present: Tensor) -> Tensor:
        """Fuse.

        Args:
            tokens: shape ``(object, token, width)``; absent ones must be finite and have no influence.
            present: boolean, shape ``(object, token)``.

        Returns:
            Shape ``(object, context)``.
        """
        count = present.sum(1)
        order = torch.argsort(count)
        pieces = []
        for rows in order.split(self.group):
            longest = int(count[rows[-1]])
            first = torch.argsort(present[rows].to(torch.int8), dim=1, descending=True, stable=True)[:, :longest]
            kept = tokens[rows].gather(1, first[..., None].expand(-1, -1, tokens.shape[-1]))
            pieces.append(self._fuse(kept, present[rows].gather(1, first)))
        return torch.cat(pieces)[torch.argsort(order)] if pieces else tokens.new_zeros(0, self.context)
