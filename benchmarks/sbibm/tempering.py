r"""Draws of a density of any shape, from a likelihood over independent standard normals.

Particles start from :math:`N(0, I)` and follow :math:`N(z; 0, I)\,L(z)^\beta` as :math:`\beta` rises from 0 to 1, each step as far as
half of the effective number of particles is left (Del Moral et al. 2006). Between steps the particles are moved by
differences of two others (ter Braak 2006), those of one half by differences within the other half, so that every move leaves the
density as it is, and differences as long as the distance between two modes carry particles across.
"""

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["tempered"]

PARTICLES, SWEEPS, LAST_SWEEPS = 20_000, 10, 100
STRIDES = (1.0, 0.5, 0.2)
ACROSS = 0.1
"""Share of the moves that take a whole difference."""

LogLikelihood = Callable[[Tensor], Tensor]


def tempered(log_likelihood: LogLikelihood, size: int, n: int, generator: torch.Generator) -> Tensor:
    """``n`` draws ``(n, size)`` of the density in proportion to ``N(z; 0, I) L(z)``.

    Args:
        log_likelihood: from ``(n, size)`` to ``(n,)``; ``-inf`` where there is nothing.
        size: number of variables.
        n: number of draws.
        generator: of random numbers.
    """
    z = torch.randn(max(2 * n, PARTICLES), size, generator=generator, dtype=torch.float64)
    level, beta = log_likelihood(z), 0.0
    while beta < 1:
        step = _step(level, 1 - beta)
        beta = min(beta + step, 1.0)
        z, level = _resampled(z, level, step, generator)
        for _ in range(SWEEPS if beta < 1 else LAST_SWEEPS):
            z, level = _moved(z, level, beta, log_likelihood, generator)
    return z[torch.randperm(len(z), generator=generator)[:n]]


def _step(level: Tensor, most: float) -> float:
    """The longest step that leaves half of the effective number of particles; bisected."""

    def enough(step: float) -> bool:
        weight = torch.softmax(step * level, 0)
        return float(1 / weight.square().sum()) >= 0.5 * len(level)

    if enough(most):
        return most
    low, high = 0.0, most
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if enough(middle) else (low, middle)
    # when so many particles lie where there is nothing that no step is short enough, they go first
    return max(low, 1e-9)


def _resampled(z: Tensor, level: Tensor, step: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    total = torch.softmax(step * level, 0).cumsum(0)
    comb = (torch.arange(len(z), dtype=torch.float64) + torch.rand(1, generator=generator, dtype=torch.float64)) / len(z)
    index = torch.searchsorted(total, comb * total[-1]).clamp_max(len(z) - 1)
    index = index[torch.randperm(len(z), generator=generator)]
    return z[index], level[index]


def _moved(
    z: Tensor, level: Tensor, beta: float, log_likelihood: LogLikelihood, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Each half of the particles moved once."""
    size, half = z.shape[1], len(z) // 2
    z, level = z.clone(), level.clone()
    for here, there in ((slice(0, half), z[half:]), (slice(half, None), z[:half])):
        old, old_level = z[here], level[here]
        n = len(old)
        pair = torch.randint(len(there), (2, n), generator=generator)
        stride = torch.tensor(STRIDES, dtype=torch.float64)[torch.randint(len(STRIDES), (n, 1), generator=generator)]
        stride = stride * 2.38 / (2 * size) ** 0.5
        stride = torch.where(torch.rand(n, 1, generator=generator) < ACROSS, 1.0, stride)
        jitter = 1e-6 * torch.randn(n, size, generator=generator, dtype=torch.float64)
        new = old + stride * (there[pair[0]] - there[pair[1]]) + jitter
        new_level = log_likelihood(new)
        gain = beta * (new_level - old_level) - 0.5 * (new.square() - old.square()).sum(-1)
        kept = torch.log(torch.rand(n, generator=generator, dtype=torch.float64)) < gain
        z[here] = torch.where(kept[:, None], new, old)
        level[here] = torch.where(kept, new_level, old_level)
    return z, level
