"""Draws of coupling spline flows, in which nothing is computed for each draw that is the same for all draws of an object.

A coupling transform gives half of the variables laws of the context alone; the laws of the others depend on the drawn values of that
half, too. Asked for many draws, only those units of a conditioner that see the values have to be computed for each of them. The maps and
their weights are those of :mod:`zuko`, whose own inverse computes all units twice for each draw. Units and knots come first in arrays,
objects and draws last, since there are more of these.
"""

import math

import torch
from torch import Tensor, nn
from zuko.flows.autoregressive import MaskedAutoregressiveTransform
from zuko.nn import MaskedLinear

__all__ = ["CouplingInverse"]

BOUND, SLOPE = 5.0, 1e-3
"""Of the splines of :class:`zuko.flows.NSF`: the identity beyond, and the least slope."""


class CouplingInverse(nn.Module):
    """Maps noise to many draws of each object, by the inverse of a transform.

    Args:
        transform: of a :class:`zuko.flows.NSF` with two passes; its weights are looked up at each call, none are kept here.
    """

    first: Tensor
    second: Tensor
    back: Tensor

    def __init__(self, transform: MaskedAutoregressiveTransform) -> None:
        super().__init__()
        early = transform.order == 0
        self.total = transform.total
        layers = [layer for layer in transform.hyper if isinstance(layer, MaskedLinear)]
        context = layers[0].in_features - len(early)
        reached = torch.cat([early, torch.zeros(context, dtype=torch.bool)])  # units that see the first half
        fixed = torch.cat([torch.zeros_like(early), torch.ones(context, dtype=torch.bool)])  # and those that may be used without it
        places = [reached.nonzero()[:, 0], fixed.nonzero()[:, 0]]
        for layer in layers:
            last = layer is layers[-1]
            reached = torch.repeat_interleave(~early, self.total) if last else layer.mask[:, reached].any(1)
            places += [reached.nonzero()[:, 0], (~reached).nonzero()[:, 0]]
        for k, place in enumerate(places):
            self.register_buffer(f"units_{k}", place, persistent=False)
        self.register_buffer("first", early.nonzero()[:, 0], persistent=False)
        self.register_buffer("second", (~early).nonzero()[:, 0], persistent=False)
        self.register_buffer("back", torch.argsort(torch.cat([self.first, self.second])), persistent=False)

    def forward(self, transform: MaskedAutoregressiveTransform, y: Tensor, context: Tensor) -> Tensor:
        """The inverse at ``y``, shape ``(variable, object, draw)``, given contexts ``(context, object)``."""
        fixed, moving = context, []
        drawn, told, layers = self.units_0, self.units_1, 0
        for layer in transform.hyper:
            if not isinstance(layer, MaskedLinear):
                fixed = layer(fixed)
                continue
            layers += 1
            rows, others = getattr(self, f"units_{2 * layers}"), getattr(self, f"units_{2 * layers + 1}")
            weight = layer.mask * layer.weight
            out = torch.addmm(layer.bias[:, None], weight[:, told], fixed)
            moving.append((out[rows][..., None], weight[rows][:, drawn]))
            fixed, drawn, told = out[others], rows, others
        h = first = _spline(fixed[..., None].unflatten(0, (-1, self.total)), y[self.first])
        for layer in transform.hyper:
            if isinstance(layer, MaskedLinear):
                same, weight = moving.pop(0)
                h = (weight @ h.flatten(1)).unflatten(1, h.shape[1:]).add_(same)
            else:
                h = layer(h)
        second = _spline(h.unflatten(0, (-1, self.total)), y[self.second])
        return torch.cat([first, second])[self.back]


def _spline(phi: Tensor, y: Tensor) -> Tensor:
    """Inverse rational-quadratic splines (Durkan et al. 2019, equations 6 to 8).

    Args:
        phi: widths, heights and derivatives, unconstrained, shape ``(variable, 3 * bin - 1, object, draw)``, or with one draw.
        y: shape ``(variable, object, draw)``.
    """
    bins = (phi.shape[1] + 1) // 3
    sizes, slopes = phi.split([2 * bins, bins - 1], dim=1)
    limit = -math.log(SLOPE)
    # not softmax nor sum, whose last digits depend on the place
    total = (sizes / (1 + (2 / limit) * sizes.abs())).exp().unflatten(1, (2, bins)).cumsum(2)
    knots = nn.functional.pad(BOUND * (2 * total / total[:, :, -1:] - 1), (0, 0, 0, 0, 1, 0), value=-BOUND)
    across, up = knots.unbind(1)
    slope = nn.functional.pad((slopes / (1 + slopes.abs() / limit)).exp(), (0, 0, 0, 0, 1, 1), value=1.0)
    inside = y.abs() < BOUND
    k = (up[:, 1:-1] < y[:, None]).sum(1, keepdim=True)
    left, right = (torch.stack([a.expand(-1, -1, *y.shape[1:]).gather(1, i)[:, 0] for a in (across, up, slope)]) for i in (k, k + 1))
    (x0, y0, d0), (x1, y1, d1) = left, right
    width, height = x1 - x0, y1 - y0
    steep, above = height / width, torch.where(inside, y - y0, 0.0)
    bend = above * (d0 + d1 - 2 * steep)
    a, b, c = height * (steep - d0) + bend, height * d0 - bend, -steep * above
    return torch.where(inside, x0 - width * 2 * c / (b + (b.square() - 4 * a * c).clamp_min(0).sqrt()), y)
