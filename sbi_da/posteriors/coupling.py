"""Draws of coupling spline flows, in which nothing is computed for each draw that is the same for all draws of an object.

A coupling transform gives half of the variables laws of the context alone; the laws of the others depend on the drawn values of that
half, too. Asked for many draws, only those units of a conditioner that see the values have to be computed for each of them. The maps and
their weights are those of :mod:`zuko`, whose own inverse computes all units twice for each draw. Units and knots come first in arrays,
objects and draws last, since there are more of these.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from zuko.flows.autoregressive import MaskedAutoregressiveTransform
from zuko.nn import MaskedLinear

__all__ = ["draw"]

BOUND, SLOPE = 5.0, 1e-3
"""Of the splines of :class:`zuko.flows.NSF`: the identity beyond, and the least slope."""


def draw(transforms: Sequence[nn.Module], noise: Tensor, context: Tensor) -> Tensor:
    """Map noise to draws, by the inverse of the transforms.

    Args:
        transforms: of a :class:`zuko.flows.NSF` with two passes, in the order in which they map draws to noise.
        noise: shape ``(object, draw, variable)``.
        context: shape ``(object, context)``.

    Returns:
        Shape ``(object, draw, variable)``.
    """
    y, told = noise.permute(2, 0, 1), context.mT
    for transform in reversed(transforms):
        assert isinstance(transform, MaskedAutoregressiveTransform)
        y = _inverse(transform, y, told)
    return y.permute(1, 2, 0)


def _inverse(transform: MaskedAutoregressiveTransform, y: Tensor, context: Tensor) -> Tensor:
    """Inverse of one transform at ``y``, shape ``(variable, object, draw)``, given contexts ``(context, object)``."""
    first = transform.order == 0
    last = torch.repeat_interleave(~first, transform.total)
    drawn = torch.cat([first, first.new_zeros(len(context))])
    told = torch.cat([torch.zeros_like(first), first.new_ones(len(context))])
    fixed, moving = context, []
    for layer in transform.hyper:
        if not isinstance(layer, MaskedLinear):
            fixed = layer(fixed)
            continue
        weight = layer.mask * layer.weight
        reached = last if layer is transform.hyper[-1] else layer.mask[:, drawn].any(1)
        out = torch.addmm(layer.bias[:, None], weight[:, told], fixed)
        moving.append((out[reached][..., None], weight[reached][:, drawn]))
        fixed, drawn, told = out[~reached], reached, ~reached
    x = torch.empty_like(y)
    x[first] = h = _spline(fixed[..., None].unflatten(0, (-1, transform.total)), y[first])
    for layer in transform.hyper:
        if isinstance(layer, MaskedLinear):
            same, weight = moving.pop(0)
            h = (weight @ h.flatten(1)).unflatten(1, h.shape[1:]).add_(same)
        else:
            h = layer(h)
    x[~first] = _spline(h.unflatten(0, (-1, transform.total)), y[~first])
    return x


def _spline(phi: Tensor, y: Tensor) -> Tensor:
    """Inverse rational-quadratic splines (Durkan et al. 2019, equations 6 to 8).

    Args:
        phi: widths, heights and derivatives, unconstrained, shape ``(variable, 3 * bin - 1, object, draw)``, or with one draw.
        y: shape ``(variable, object, draw)``.
    """
    bins = (phi.shape[1] + 1) // 3
    sizes, slopes = phi.split([2 * bins, bins - 1], dim=1)
    limit = -math.log(SLOPE)
    share = (sizes / (1 + (2 / limit) * sizes.abs())).unflatten(1, (2, bins)).softmax(2)
    knots = nn.functional.pad(BOUND * (2 * share.cumsum(2) - 1), (0, 0, 0, 0, 1, 0), value=-BOUND)
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
