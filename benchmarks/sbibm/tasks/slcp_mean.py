r"""Mean of a Gaussian in the plane of which some coordinates of some points were seen, within a box.

Given the spread, the log-likelihood of what was seen is quadratic in the mean :math:`\mu`,

.. math:: \log L = k - \tfrac12 (c - 2\eta\cdot\mu + \mu^T\Lambda\mu),

so that a mean that is not known follows a Gaussian cut to the box, one coordinate after the other. As a function of the shares
:math:`v` of these cut Gaussians (uniform, one for each coordinate not known) the likelihood times the volume element is
:math:`\int L\,d\mu` times the masses of the Gaussians in the box: smooth even where the spread shrinks around a single point.
"""

import math

import torch
from torch import Tensor

from benchmarks.sbibm.priors import normal_mass, normal_quantile

__all__ = ["SeenPoints"]


class SeenPoints:
    """Points of the plane, some of whose coordinates were seen.

    Args:
        points: shape ``(point, 2)``.
        mask: which coordinates were seen, same shape.
        half: half the side of the box of the mean.
    """

    def __init__(self, points: Tensor, mask: Tensor, half: float) -> None:
        self.points, self.mask, self.half = points, mask, half
        self.any = mask.any(0)
        # moments about the middle of what was seen, where small spreads cost no digits
        self.middle = torch.where(mask, points, 0.0).sum(0) / mask.sum(0).clamp_min(1)
        self.centred = torch.where(mask, points - self.middle, 0.0)

    def log_likelihood(
        self, first: Tensor, second: Tensor, correlation: Tensor, mean: Tensor, share: Tensor, known: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Log-likelihood, with the volume element of the shares, and the mean.

        Args:
            first: standard deviation of the first coordinate, shape ``(n,)``.
            second: of the second.
            correlation: of both.
            mean: shape ``(n, 2)``; what of it is not known is read only in coordinates of which nothing was seen.
            share: of the cut Gaussians, shape ``(n, 2)``.
            known: which coordinates of the mean are known, shape ``(2,)``.
        """
        lam, cross, eta, level = self._quadratic(first, second, correlation)
        mean = mean - self.middle
        free = ~known & self.any
        for i in range(2):
            if not free[i]:
                level = level + eta[i] * mean[:, i] - 0.5 * lam[i] * mean[:, i].square()
                eta[1 - i] = eta[1 - i] - cross * mean[:, i]
        precision, pull = list(lam), list(eta)
        if free.all():
            precision[0] = lam[0] - cross.square() / lam[1]
            pull[0] = eta[0] - cross / lam[1] * eta[1]
        for i in range(2):
            if free[i]:
                level = level + 0.5 * pull[i].square() / precision[i] + 0.5 * torch.log(2 * math.pi / precision[i])
                if i == 1 and free[0]:
                    pull[1] = pull[1] - cross * mean[:, 0]
                centre, root = pull[i] / precision[i], precision[i].sqrt()
                low, high = ((edge - self.middle[i] - centre) * root for edge in (-self.half, self.half))
                level = level + normal_mass(low, high).log()
                mean[:, i] = centre + normal_quantile(share[:, i], low, high) / root
        return torch.nan_to_num(level, nan=-torch.inf), mean + self.middle

    def _quadratic(
        self, first: Tensor, second: Tensor, correlation: Tensor
    ) -> tuple[list[Tensor], Tensor, list[Tensor], Tensor]:
        """Diagonal and off-diagonal of the precision, pull, and the log-likelihood of a mean in the middle."""
        rest = 1 - correlation.square()
        both = self.mask.all(1)
        whole, single = self.centred[both], [self.centred[self.mask[:, i] & ~both, i] for i in range(2)]
        alone = [1 / first.square(), 1 / second.square()]
        inverse = [a / rest for a in alone]
        off = -correlation / (rest * first * second)
        lam = [len(whole) * inverse[i] + len(single[i]) * alone[i] for i in range(2)]
        total = whole.sum(0)
        eta = [inverse[i] * total[i] + off * total[1 - i] + alone[i] * single[i].sum() for i in range(2)]
        square = 2 * off * (whole[:, 0] * whole[:, 1]).sum()
        for i in range(2):
            square = square + inverse[i] * whole[:, i].square().sum() + alone[i] * single[i].square().sum()
        scales = [torch.log(s * math.sqrt(2 * math.pi)) for s in (first, second)]
        level = -0.5 * square - len(whole) * (scales[0] + scales[1] + 0.5 * rest.log())
        for i in range(2):
            level = level - len(single[i]) * scales[i]
        return lam, len(whole) * off, eta, level
