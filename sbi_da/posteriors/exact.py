r"""Summaries of mixtures without draws.

Of a parameter whose prior depends on no other, the normal score :math:`z` is a rising function of its value alone, and its marginal in a
mixture is a one-dimensional mixture. So quantiles are those of :math:`z`, found by bisection and mapped; mean and standard deviation
are sums over Gauss-Legendre nodes within eight standard deviations of each component, of a table of the map.
"""

import math

import numpy as np
import torch
from torch import Tensor

from sbi_da.posteriors.mixture import MixtureHead, MixtureLaw
from sbi_da.posteriors.posterior import Posterior, objects_per_call
from sbi_da.prior import Z_MAX, Prior

__all__ = ["alone", "exact_summaries"]

NODES, REACH = 40, 8.0
HALVINGS = 25
"""After as many, scores are known to a millionth."""
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
    tables = {name: _value(posterior.prior, name, grid) for name in names}
    out = {name: np.empty((2 + len(levels), len(posterior))) for name in names}
    step = objects_per_call(block, posterior.context.device)
    for start in range(0, len(posterior), step):
        rows = slice(start, start + step)
        with torch.inference_mode():
            law = posterior.head.law(posterior.context[rows])
            for name in names:
                weight, location, scale = _marginal(law, posterior.prior.names.index(name))
                scores = _quantiles(weight, location, scale, levels)
                moments = _moments(weight, location, scale, torch.from_numpy(tables[name]).to(weight.device))
                out[name][:, rows] = np.concatenate([moments.cpu().numpy(), _value(posterior.prior, name, scores.cpu().numpy())])
    return out


def _marginal(law: MixtureLaw, index: int) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, locations and standard deviations of the components of one variable, each ``(object, component)``."""
    root = law.components.root.double()
    unit = torch.eye(root.shape[-1], dtype=root.dtype, device=root.device)
    inverse = torch.linalg.solve_triangular(root, unit.expand_as(root), upper=False)
    return law.log_weights.double().exp(), law.components.location[..., index].double(), inverse[..., index, :].norm(dim=-1)


def _quantiles(weight: Tensor, location: Tensor, scale: Tensor, levels: tuple[float, ...]) -> Tensor:
    """Scores below which these shares lie, shape ``(level, object)``."""
    level = torch.from_numpy(np.array(levels)).to(weight.device)[:, None]
    high = torch.full((len(levels), len(weight)), Z_MAX, dtype=torch.float64, device=weight.device)
    low = -high
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        below = (weight * torch.special.ndtr((middle[..., None] - location) / scale)).sum(-1) < level
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def _moments(weight: Tensor, location: Tensor, scale: Tensor, table: Tensor) -> Tensor:
    """Mean and standard deviation of the values in a table at rising scores, shape ``(2, object)``."""
    nodes, shares = (torch.from_numpy(x).to(weight.device) for x in np.polynomial.legendre.leggauss(NODES))
    start = (location - REACH * scale).clamp(-Z_MAX, Z_MAX)[..., None]
    length = (location + REACH * scale).clamp(-Z_MAX, Z_MAX)[..., None] - start
    z = start + length * (nodes + 1) / 2
    away = (z - location[..., None]) / scale[..., None]
    inside = length * shares * (-0.5 * away.square()).exp() / scale[..., None] / (8 * math.pi) ** 0.5
    ends = [torch.special.ndtr((-Z_MAX - location) / scale), torch.special.ndtr((location - Z_MAX) / scale)]  # draws stop there
    share = weight[..., None] * torch.cat([inside, *(end[..., None] for end in ends)], dim=-1)
    place = ((z + Z_MAX) / STEP).clamp(0, len(table) - 1 - 1e-9)
    left = place.long()
    within = table[left] + (place - left) * (table[left + 1] - table[left])
    value = torch.cat([within, table[:1].expand(*within.shape[:-1], 1), table[-1:].expand(*within.shape[:-1], 1)], dim=-1)
    total = share.sum((1, 2))
    mean = (share * value).sum((1, 2)) / total
    return torch.stack([mean, ((share * (value - mean[:, None, None]).square()).sum((1, 2)) / total).sqrt()])


def _value(prior: Prior, name: str, score: np.ndarray) -> np.ndarray:
    """Values of a parameter at its normal scores, of any shape."""
    z = np.zeros((*score.shape, len(prior.names)))
    z[..., prior.names.index(name)] = score
    return prior.from_normal(z, only=[name])[name]
