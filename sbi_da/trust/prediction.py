r"""What a survey should have measured, from what the others did.

A perceptron sees the channels of all surveys but one and gives a Gaussian for those of the one: a mean and the root of a covariance
:math:`C`, which the quoted errors :math:`\sigma` widen. Of what was measured, :math:`y`,

.. math:: T = (y - \mu)^\top \bigl(C + \mathrm{diag}\,\sigma^2\bigr)^{-1} (y - \mu)

is chi-squared where the survey agrees with the others, and large where its zero point is off, where it was matched to another object,
or where the object sends what no simulation does. Magnitudes are relative to the mean of the other surveys', so that brightness tells
nothing but what it tells of colours.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sbi_da.encoders import ScalarEncoder
from sbi_da.records import ABSENT, OBSERVED

__all__ = ["CrossSurvey"]

LOG_TWO_PI = 1.8378770664093453
WIDEST = 1e4
"""Largest residual, in units of the spread of colours."""
LEAST = 1e-3
"""Smallest error, in the same units."""
SPREAD = 0.3
"""Standard deviation of what is predicted, before training."""


class CrossSurvey(nn.Module):
    """Predicts each survey from the others.

    Args:
        survey_index: index of the survey of each channel.
        surveys: how many there are.
        width: of the hidden layers.
    """

    own: Tensor

    def __init__(self, survey_index: Sequence[int], surveys: int, width: int = 128) -> None:
        super().__init__()
        channels = len(survey_index)
        index = torch.tensor(list(survey_index))
        self.register_buffer("own", index[None] == torch.arange(surveys)[:, None], persistent=False)
        self.first = nn.Linear(4 * channels + 2, width)
        self.which = nn.Parameter(torch.randn(surveys, width) * 0.3)
        self.hidden = nn.Sequential(nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())
        sizes = self.own.sum(1).tolist()
        self.means = nn.ModuleList(nn.Linear(width, size) for size in sizes)
        self.roots = nn.ModuleList(nn.Linear(width, size * size) for size in sizes)

    def forward(self, encoder: ScalarEncoder, value: Tensor, error: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Compare.

        Args:
            encoder: whose scales are used.
            value: shape ``(object, channel)``; absent entries are never read.
            error: same shape.
            state: same shape.

        Returns:
            The statistic, shape ``(object, survey)``, log-density of what was measured, and how many channels were compared: 0 where the
            survey or all others measured nothing.
        """
        return self.compare(*self.prepared(encoder, value, error, state))

    def prepared(self, encoder: ScalarEncoder, value: Tensor, error: Tensor, state: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Inputs ``(object, survey, input)``, what was measured, its errors, and what of it counts, ``(object, survey, channel)``."""
        objects, surveys = len(state), len(self.own)
        others = torch.where(self.own, ABSENT, state[:, None]).flatten(0, 1)

        def repeated(x: Tensor) -> Tensor:
            return x[:, None].expand(-1, surveys, -1).flatten(0, 1)

        raw, colour, log_error, mean = encoder.rows(repeated(value), repeated(error), others)
        seen = others != ABSENT
        scaled = [(row - encoder.center[k]) / encoder.scale[k] for k, row in ((1, colour), (2, log_error))]
        inputs = [torch.where(seen, row, 0.0) for row in scaled] + [others == OBSERVED, seen]
        bright = (seen & encoder.is_magnitude).any(-1, keepdim=True)
        x = torch.cat([*(i.to(mean.dtype) for i in inputs), torch.where(bright, (mean - 15.0) / 4.0, 0.0), bright.to(mean.dtype)], dim=-1)
        whole, _, whole_error, _ = encoder.rows(value, error, state)
        mean, bright = mean.unflatten(0, (objects, surveys)), bright.unflatten(0, (objects, surveys))
        relative = torch.where(encoder.is_magnitude, whole[:, None] - mean, whole[:, None])
        y = (relative - encoder.center[1]) / encoder.scale[1]
        sigma = whole_error.exp()[:, None] / encoder.scale[1]
        told = torch.where(encoder.is_magnitude, bright, seen.any(-1).unflatten(0, (objects, surveys))[..., None])
        counts = (state == OBSERVED)[:, None] & self.own & told
        return x.unflatten(0, (objects, surveys)), y, sigma.expand_as(y), counts

    def compare(self, x: Tensor, y: Tensor, sigma: Tensor, counts: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Statistic, log-density and number of channels, each ``(object, survey)``; arguments from :meth:`prepared`."""
        h = self.hidden(self.first(x) + self.which)
        found = []
        for k, (mean, root) in enumerate(zip(self.means, self.roots, strict=True)):
            size = int(self.own[k].sum())
            here, eye = counts[:, k, self.own[k]], torch.eye(size, device=x.device)
            away = torch.where(here, y[:, k, self.own[k]] - mean(h[:, k]), 0.0).clamp(-WIDEST, WIDEST)
            spread = SPREAD * (root(h[:, k]).unflatten(-1, (size, size)) + eye).tril()
            noise = torch.where(here, sigma[:, k, self.own[k]], 1.0).square().clamp_min(LEAST**2)
            covariance = spread @ spread.mT + torch.diag_embed(noise)
            covariance = torch.where(here[:, :, None] & here[:, None, :], covariance, eye)
            factor, failed = torch.linalg.cholesky_ex(covariance)
            by_channel = torch.diag_embed(covariance.diagonal(dim1=-2, dim2=-1).sqrt())  # so far from all simulations that digits run out
            factor = torch.where(failed[:, None, None] > 0, by_channel, factor)
            u = torch.linalg.solve_triangular(factor, away[..., None], upper=False)[..., 0]
            found.append((u.square().sum(-1), factor.diagonal(dim1=-2, dim2=-1).log().sum(-1), here.sum(-1)))
        statistic, log_det, number = (torch.stack(parts, dim=-1) for parts in zip(*found, strict=True))
        return statistic, -0.5 * statistic - log_det - 0.5 * LOG_TWO_PI * number, number
