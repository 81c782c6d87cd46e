r"""A simple likelihood with a complex posterior.

Four points of a Gaussian in the plane, with a uniform prior on :math:`[-3, 3]^5`: mean :math:`(\theta_1, \theta_2)`, standard deviations
:math:`\theta_3^2` and :math:`\theta_4^2`, correlation :math:`\tanh\theta_5`. The signs of :math:`\theta_3` and :math:`\theta_4` cannot be
known, so that there are four modes.

Draws given some of the variables: missing data given all else are Gaussian, and so is the mean within its box, so that only the
spread needs particles. With one point seen in a column these would have to find a mean ever nearer to it as the spread shrinks;
they carry the mean's share of its cut Gaussian instead (see ``slcp_mean``).
"""

import torch
from torch import Tensor

from benchmarks.sbibm.priors import Box
from benchmarks.sbibm.tasks.slcp_mean import SeenPoints
from benchmarks.sbibm.tasks.task import Task
from benchmarks.sbibm.tempering import tempered

__all__ = ["Slcp"]

POINTS = 4


class Slcp(Task):
    """Five parameters, eight data: ``(point 1 first, point 1 second, point 2 first, ...)``."""

    name, data, prior = "slcp", 2 * POINTS, Box(5, 3.0)

    def simulate(self, theta: Tensor, generator: torch.Generator) -> Tensor:  # noqa: D102
        noise = torch.randn(len(theta), POINTS, 2, generator=generator, dtype=torch.float64)
        first, second, correlation = spread(theta)
        other = correlation[:, None] * noise[..., 0] + (1 - correlation.square()).sqrt()[:, None] * noise[..., 1]
        points = torch.stack([first[:, None] * noise[..., 0], second[:, None] * other], -1)
        return (points + theta[:, None, :2]).flatten(1)

    def log_likelihood(self, theta: Tensor, x: Tensor) -> Tensor:  # noqa: D102
        first, second, correlation = (s[..., None] for s in spread(theta))
        points = x.unflatten(-1, (POINTS, 2))
        u = (points[..., 0] - theta[..., 0:1]) / first
        v = (points[..., 1] - theta[..., 1:2]) / second
        # 1 - tanh^2 loses digits at large arguments where cosh does not
        rest = torch.cosh(theta[..., 4:5]).square()
        square = (u.square() - 2 * correlation * u * v + v.square()) * rest
        log_scale = torch.log(2 * torch.pi * first * second) - 0.5 * torch.log(rest)
        return (-0.5 * square - log_scale).sum(-1)

    def draw(self, known: Tensor, values: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """Spread and mean by tempered particles, then the missing data."""
        theta_known, x_known = known[:5], known[5:]
        seen = SeenPoints(values[5:].reshape(POINTS, 2), x_known.reshape(POINTS, 2), self.prior.half)
        if theta_known.all() or not x_known.any():
            theta = self.prior.given(theta_known, values[:5], n, generator)
        else:

            def placed(z: Tensor) -> tuple[Tensor, Tensor]:
                theta = values[:5].expand(len(z), -1).clone()
                theta[:, ~theta_known] = self.prior.from_normal(z)
                share = 0.5 + 0.5 * theta[:, :2] / self.prior.half
                level, mean = seen.log_likelihood(*spread(theta), theta[:, :2], share, theta_known[:2])
                return level, torch.cat([mean, theta[:, 2:]], -1)

            theta = placed(tempered(lambda z: placed(z)[0], int((~theta_known).sum()), n, generator))[1]
            # no datum tells either sign: the modes get their even odds exactly
            sign = torch.where(torch.rand(n, 2, generator=generator) < 0.5, -1.0, 1.0)
            theta[:, 2:4] = torch.where(theta_known[2:4], theta[:, 2:4], sign * theta[:, 2:4])
        return torch.cat([theta, self._completed(theta, seen, generator).flatten(1)], -1)

    def _completed(self, theta: Tensor, seen: SeenPoints, generator: torch.Generator) -> Tensor:
        """Points ``(n, point, 2)``, the coordinates not seen drawn given those seen."""
        points = self.simulate(theta, generator).unflatten(-1, (POINTS, 2))
        scale = torch.stack(spread(theta)[:2], -1)
        correlation = theta[:, 4:5].tanh()
        for here, there in ((0, 1), (1, 0)):
            residual = (seen.points[:, there] - theta[:, there, None]) / scale[:, there, None]
            noise = torch.randn(residual.shape, generator=generator, dtype=torch.float64) / theta[:, 4:5].cosh()
            again = theta[:, here, None] + scale[:, here, None] * (correlation * residual + noise)
            points[..., here] = torch.where(seen.mask[:, there], again, points[..., here])
        return torch.where(seen.mask, seen.points, points)


def spread(theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both standard deviations and the correlation."""
    return theta[..., 2].square(), theta[..., 3].square(), theta[..., 4].tanh()
