"""Distances between laws by the mean of a kernel: Gaussian and Laplacian MMD, and the energy distance.

With q = ||x - y||^2 / width and med the median over the pooled pairs (without gradient), the kernels are

    MMD            mean over scales s of exp(-q / (s med q))
    LaplacianMMD   exp(-sqrt(q) / med sqrt(q))
    Energy         -sqrt(q), so that the term is 2 E|x - y| - E|x - x'| - E|y - y'|

each put into the unbiased statistic of :mod:`sbi_da.alignment.divergences`. The root is sqrt(q + c) with c = 1e-6: smooth
where rows coincide, and still conditionally negative definite, because t -> sqrt(t + c) is a Bernstein function; the
energy stays zero for equal laws and positive otherwise. Kernels: Gretton et al. 2012 (JMLR 13:723), several scales as in
Long et al. 2015 (arXiv:1502.02791); energy distance: Szekely & Rizzo 2013 (J. Stat. Plan. Inference 143:1249).
"""

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from sbi_da.alignment.divergences import Blocks, Weights, each, row_weights, typical, unbiased
from sbi_da.alignment.term import Term, nothing, squared_distances
from sbi_da.errors import ConfigError

__all__ = ["MMD", "Energy", "LaplacianMMD"]

SMOOTHING = 1e-6
"""Added to squared distances under a root."""


class _KernelTerm(Term):
    """A term that is the unbiased discrepancy of a kernel of squared distances."""

    @abstractmethod
    def kernels(self, squared: Blocks, weights: Weights) -> Blocks:
        """The kernel's values.

        Args:
            squared: squared distances divided by the width.
            weights: of the rows.
        """
        ...

    def forward(
        self,
        simulated: Tensor,
        real: Tensor,
        *,
        weight: Tensor | None = None,
        matches: Tensor | None = None,
        cost: Tensor | None = None,
    ) -> Tensor:
        """The term; see :class:`~sbi_da.alignment.term.Term`. Negative values are part of its being unbiased."""
        weights = row_weights(simulated, real, weight)
        if weights is None:
            return nothing(simulated, real)
        squared = (
            squared_distances(simulated, simulated),
            squared_distances(real, real),
            squared_distances(simulated, real),
        )
        return unbiased(self.kernels(squared, weights), weights)


class Energy(_KernelTerm):
    """Energy distance, in units of a distance divided by the root of the width. No bandwidth to choose."""

    kind: ClassVar[str] = "energy"

    def kernels(self, squared: Blocks, weights: Weights) -> Blocks:
        """Minus the smooth distance."""
        return each(lambda q: -torch.sqrt(q + SMOOTHING), squared)


class LaplacianMMD(_KernelTerm):
    """Squared MMD of the Laplacian kernel; ranges from 0 to 2, and less than the Gaussian's fades far away."""

    kind: ClassVar[str] = "laplacian_mmd"

    def kernels(self, squared: Blocks, weights: Weights) -> Blocks:
        """Exponential of the smooth distance in units of its median."""
        scale = typical(squared, weights).sqrt()
        return each(lambda q: torch.exp(-torch.sqrt(q + SMOOTHING) / scale), squared)


class MMD(_KernelTerm):
    """Squared MMD of a mean of Gaussian kernels; ranges from 0 to 2.

    Args:
        scales: of the kernels, as multiples of the median squared distance.

    Raises:
        ConfigError: no scale, or one that is not positive.
    """

    kind: ClassVar[str] = "mmd"

    def __init__(self, scales: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)) -> None:
        super().__init__()
        if not scales or min(scales) <= 0:
            raise ConfigError(f"mmd: scales must be one or more positive numbers, got {scales}")
        self.scales = tuple(scales)

    def kernels(self, squared: Blocks, weights: Weights) -> Blocks:
        """Mean of the Gaussians."""
        median = typical(squared, weights)
        return each(lambda q: torch.stack([torch.exp(-q / (s * median)) for s in self.scales]).mean(0), squared)
