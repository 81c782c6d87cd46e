r"""Summaries of mixtures without draws.

Of a parameter whose prior depends on no other, the normal score :math:`z` is a rising function of its value alone, and its marginal in a
mixture is a one-dimensional mixture. So quantiles are those of :math:`z`, found by bisection and mapped; mean and standard deviation
are sums over Gauss-Legendre nodes within six standard deviations of each component, of a table of the map.
"""

import math

import numpy as np
import torch
from torch import Tensor

from sbi_da.posteriors.mixture import MixtureHead, MixtureLaw
from sbi_da.posteriors.posterior import Posterior, objects_per_call
from sbi_da.prior import Z_MAX, Prior

__all__ = ["alone", "exact_summaries"]

NODES, REACH = 32, 6.0
HALVINGS = 20
"""After as many, scores are known to a millionth of the range that matters."""
STEP = 1e-3
"""Of the table of values by scores, between whose entries is interpolated."""


def alone(head: object, prior: Prior) -> list[str]:
    """Parameters whose summaries need no draws: of a mixture those that depend on no other."""
    return [name for name in prior.names if not prior.parents(name)] if isinstance(head, MixtureHead) else []


def exact_summaries(posterior: Posterior, names: list[str], levels: tuple[float, ...], block: int = 100) -> dict[str, np.ndarray]:
    """Mean, standard deviation and quantiles.

    Args:
        posterior: of a mixture, under the training prior, nothing given.
        names: of parameters, out of :func:`alone`.
        levels: of the quantiles.
        block: draws that as many objects as are computed at a time would have, see :func:`~sbi_da.posteriors.posterior.objects_per_call`.

    Returns:
        By name, shape ``(2 + level, object)``, in the parameter's unit.
    """
    if not names or not isinstance(posterior.head, MixtureHead):
        return {}
    grid = np.linspace(-Z_MAX, Z_MAX, round(2 * Z_MAX / STEP) + 1)
    table = torch.from_numpy(np.stack([_value(posterior.prior, name, grid) for name in names])).to(posterior.context.device)
    index = torch.from_numpy(np.array([posterior.prior.names.index(name) for name in names])).to(posterior.context.device)
    out = {name: np.empty((2 + len(levels), len(posterior))) for name in names}
    step = objects_per_call(block, posterior.context.device)
    for start in range(0, len(posterior), step):
        rows = slice(start, start + step)
        with torch.inference_mode():
            marginals = _marginals(posterior.head.law(posterior.context[rows]), index)
            found = torch.cat([_moments(*marginals, table), _values(_quantiles(*marginals, levels), table)]).cpu().numpy()
        for k, name in enumerate(names):
            out[name][:, rows] = found[:, k]
    return out


def _marginals(law: MixtureLaw, index: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights ``(object, component)``, locations and standard deviations ``(variable, object, component)`` of some variables."""
    root = law.components.root.double()
    unit = torch.eye(root.shape[-1], dtype=root.dtype, device=root.device)
    inverse = torch.linalg.solve_triangular(root, unit.expand_as(root), upper=False)
    location, scale = law.components.location.double().movedim(-1, 0), inverse.norm(dim=-1).movedim(-1, 0)
    return law.log_weights.double().exp(), location[index], scale[index]


def _quantiles(weight: Tensor, location: Tensor, scale: Tensor, levels: tuple[float, ...]) -> Tensor:
    """Scores below which these shares lie, shape ``(level, variable, object)``."""
    level = torch.from_numpy(np.array(levels)).to(weight)[:, None, None]
    low = (location - REACH * scale).amin(-1).clamp(-Z_MAX, Z_MAX).expand(len(levels), -1, -1)
    high = (location + REACH * scale).amax(-1).clamp(-Z_MAX, Z_MAX).expand(len(levels), -1, -1)
    narrow = 1 / (scale * math.sqrt(2))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        below = (weight * torch.erfc((location - middle[..., None]) * narrow)).sum(-1) < 2 * level
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def _moments(weight: Tensor, location: Tensor, scale: Tensor, table: Tensor) -> Tensor:
    """Mean and standard deviation of the values in a table ``(variable, score)`` at rising scores, shape ``(2, variable, object)``."""
    nodes, shares = (torch.from_numpy(x).to(weight.device) for x in np.polynomial.legendre.leggauss(NODES))
    start = (location - REACH * scale).clamp(-Z_MAX, Z_MAX)[..., None]
    length = (location + REACH * scale).clamp(-Z_MAX, Z_MAX)[..., None] - start
    z = start + length * (nodes + 1) / 2
    away = (z - location[..., None]) / scale[..., None]
    inside = length / scale[..., None] * shares * (-0.5 * away.square()).exp() / (8 * math.pi) ** 0.5
    ends = [torch.special.ndtr((-Z_MAX - location) / scale), torch.special.ndtr((location - Z_MAX) / scale)]  # draws stop there
    share = weight[..., None] * torch.cat([inside, *(end[..., None] for end in ends)], dim=-1)
    limits = torch.stack([table[:, 0], table[:, -1]], dim=-1)[:, None, None].expand(*z.shape[:-1], 2)
    value = torch.cat([_values(z.movedim(-1, 0), table).movedim(0, -1), limits], dim=-1)
    total = share.sum((2, 3))
    mean = (share * value).sum((2, 3)) / total
    return torch.stack([mean, ((share * (value - mean[..., None, None]).square()).sum((2, 3)) / total).sqrt()])


def _values(score: Tensor, table: Tensor) -> Tensor:
    """Values in a table ``(variable, score)`` at scores ``(any, variable, ...)``, same shape."""
    place = ((score.movedim(1, 0) + Z_MAX) / STEP).clamp(0, table.shape[1] - 1 - 1e-9)
    left = place.long()
    first, second = (table.gather(1, at.flatten(1)).unflatten(1, at.shape[1:]) for at in (left, left + 1))
    return (first + (place - left) * (second - first)).movedim(0, 1)


def _value(prior: Prior, name: str, score: np.ndarray) -> np.ndarray:
    """Values of a parameter at its normal scores, of any shape."""
    z = np.zeros((*score.shape, len(prior.names)))
    z[..., prior.names.index(name)] = score
    return prior.from_normal(z, only=[name])[name]
