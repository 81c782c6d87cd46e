"""The velocity of a flow: a transformer over the tokens of variables that attends the tokens of an encoded object.

Every variable is a token: the value it has on its way from noise to a draw, or the value it is known to have. Variables that are neither
asked nor known are masked as keys. What an object's measurements say enters in two ways: as tokens that are attended, whose keys and values
are computed once per object (:class:`Memory`), and, with the time, as the shifts and scales of the layers (Peebles & Xie 2023, arXiv
2212.09748). What a variable's last state gives are a number and the coefficients of a combination of the variables and the measured values:
a mean of measurements can so be told to a thousandth, whatever the layers round off. The network begins as zero.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sbi_da.gated import feed_forward
from sbi_da.posteriors.told import Told

__all__ = ["Memory", "VelocityTransformer"]

FREQUENCIES = 8
"""Of the time, in octaves from half a period upwards."""


@dataclass(frozen=True)
class Memory:
    """What is computed once per object.

    Attributes:
        conditions: what the context adds to the time, shape ``(object, width)``.
        keys: per layer, shape ``(object, heads, token, width / heads)``.
        values: same shapes.
        present: which of the tokens are there, boolean, shape ``(object, 1, 1, token)``; None: all.
        measured: scaled values of channels, zero where not measured, shape ``(object, channel)``.
    """

    conditions: Tensor
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]
    present: Tensor | None
    measured: Tensor


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention written out, so that it can be differentiated forward."""
    score = q @ k.mT / q.shape[-1] ** 0.5
    if mask is not None:
        score = score.masked_fill(~mask, -torch.inf)
    return score.softmax(-1) @ v


class _Layer(nn.Module):
    def __init__(self, width: int, heads: int, expansion: int, dropout: float, gated: bool) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulate = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)
        self.project = nn.Linear(width, 3 * width)
        self.query = nn.Linear(width, width)
        self.remember = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.read = nn.Linear(width, width)
        self.mlp = nn.Sequential(feed_forward(width, expansion * width, gated), nn.Dropout(dropout))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(-2, -3)

    def memory(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of context tokens ``(object, token, width)``."""
        k, v = self.remember(tokens).chunk(2, dim=-1)
        return self._split(k), self._split(v)

    def forward(
        self, x: Tensor, condition: Tensor, mask: Tensor | None, keys: Tensor, values: Tensor, present: Tensor | None
    ) -> Tensor:
        """Tokens ``(object, draw, variable, width)`` under conditions ``(object, draw or 1, width)``."""
        shift, scale, gate, shift_mlp, scale_mlp, gate_mlp = self.modulate(condition)[..., None, :].chunk(6, dim=-1)
        h = self.norm(x) * (1 + scale) + shift
        q, k, v = (self._split(part) for part in self.project(h).chunk(3, dim=-1))
        x = x + (1 + gate) * self.out(_attend(q, k, v, mask).transpose(-2, -3).flatten(-2))
        h = self._split(self.query(self.norm(x)).flatten(1, 2))
        read = _attend(h, keys, values, present).transpose(-2, -3).flatten(-2)
        x = x + self.read(read.unflatten(1, x.shape[1:3]))
        return x + (1 + gate_mlp) * self.mlp(self.norm(x) * (1 + scale_mlp) + shift_mlp)


class VelocityTransformer(nn.Module):
    """Velocity of every variable.

    Args:
        variables: how many.
        told: what of an object's row is its context, and which tokens follow it.
        width: of tokens.
        layers: how many.
        heads: of attention.
        tokens: that the context is read as.
        expansion: hidden width of the perceptrons over ``width``.
        dropout: share of what they add that is dropped in training.
        gated: whether their hidden units are products.
    """

    def __init__(
        self, variables: int, told: Told, width: int = 64, layers: int = 3, heads: int = 4, tokens: int = 4, expansion: int = 2,
        dropout: float = 0.0, gated: bool = False,
    ) -> None:
        super().__init__()
        self.tokens, self.width, self.row, context = tokens, width, told, told.context
        self.state_tokens = nn.Sequential(nn.LayerNorm(told.width), nn.Linear(told.width, width)) if told.tokens else None
        self.context_tokens = nn.Sequential(nn.Linear(context, tokens * width), nn.Unflatten(-1, (tokens, width)), nn.LayerNorm(width))
        self.context_condition = nn.Linear(context, width)
        self.time = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        self.condition = nn.SiLU()
        self.identity = nn.Parameter(torch.randn(variables, width) * 0.5)
        self.role = nn.Parameter(torch.randn(2, variables, width) * 0.2)
        self.embed = nn.Parameter(torch.randn(2, variables, width) * 0.5)
        self.first = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))
        self.layers = nn.ModuleList(_Layer(width, heads, expansion, dropout, gated) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.last = nn.Parameter(torch.zeros(variables, width))
        self.bias = nn.Parameter(torch.zeros(variables))
        self.linear = nn.Linear(width, variables + told.channels, bias=False)
        nn.init.zeros_(self.linear.weight)
        self.register_buffer("frequency", torch.pi * 2.0 ** torch.arange(FREQUENCIES) / 2, persistent=False)

    frequency: Tensor

    def remember(self, row: Tensor) -> Memory:
        """What of objects' rows ``(object, told)`` every later call uses."""
        context = self.row.fused(row)
        tokens, present = self.context_tokens(context), None
        if self.state_tokens is not None:
            states, there = self.row.states(row)
            tokens = torch.cat([tokens, torch.where(there[..., None], self.state_tokens(states), 0.0)], dim=1)
            present = torch.cat([there.new_ones(len(there), self.tokens), there], dim=1)[:, None, None]
        pairs = [layer.memory(tokens) for layer in self._layers()]
        values, seen = self.row.measured(row)
        measured = torch.where(seen, values, 0.0)
        return Memory(self.context_condition(context), tuple(k for k, _ in pairs), tuple(v for _, v in pairs), present, measured)

    def _layers(self) -> list[_Layer]:
        return [layer for layer in self.layers if isinstance(layer, _Layer)]

    def forward(self, x: Tensor, time: Tensor, memory: Memory, known: Tensor | None = None, asked: Tensor | None = None) -> Tensor:
        """Velocities.

        Args:
            x: values of the variables, shape ``(object, draw, variable)``: of asked ones on their way, of known ones as known.
            time: shape ``(object or 1, draw or 1)``.
            memory: of the objects.
            known: which variables are known, boolean, shape ``(object, 1, variable)``; None: none.
            asked: which are asked; None: all.

        Returns:
            Shape of ``x``; of variables that are not asked without meaning.
        """
        phase = time[..., None] * self.frequency
        condition = self.condition(self.time(torch.cat([phase.sin(), phase.cos()], dim=-1)) + memory.conditions[:, None])
        if known is None or asked is None:
            h = x[..., None] * self.embed[0] + self.identity + self.role[0]
            mask, shown = None, x
        else:
            role = known.long()[..., None]
            embed = torch.where(role == 1, self.embed[1], self.embed[0])
            h = x[..., None] * embed + self.identity + torch.where(role == 1, self.role[1], self.role[0])
            there = known | asked
            shown = torch.where(there, x, 0.0)
            mask = (there[..., None, :] | torch.eye(there.shape[-1], dtype=torch.bool, device=there.device))[:, :, None]
        h = h + self.first(h)
        for layer, keys, values in zip(self._layers(), memory.keys, memory.values, strict=True):
            h = layer(h, condition, mask, keys, values, memory.present)
        h = self.norm(h)
        own, others = self.linear(h).split([x.shape[-1], memory.measured.shape[-1]], dim=-1)
        linear = torch.einsum("odvs,ods->odv", own, shown) + torch.einsum("odvc,oc->odv", others, memory.measured)
        return (h * self.last).sum(-1) + self.bias + linear
