"""Discrepancy by any of the 46 metrics between vectors.

    L = 1/2 E k(s, s') + 1/2 E k(t, t') - E k(s, t),   k = exp(-d / h) for a distance d, k itself for a similarity,

in the unbiased form of :mod:`sbi_da.alignment.divergences`, with h a multiple of the median distance of the pooled rows
(without gradient). Metrics whose kernel is not positive definite (``valid_kernel``) may be zero or negative for unequal
laws, and what they then bring together is anyone's guess: they are here for comparisons.

What the metrics see of a row z of width d:

* distributions, where the metric needs them: p = softplus(z) + 0.001, divided by its sum. Softplus rather than softmax,
  for the gradient does not vanish for large entries;
* else z / sqrt(d), so that an inner product, as all squared distances, is a mean over features.

The features' weights in the weighted metrics are the reciprocals of their standard deviations in the pool, without
gradient, and 1 on average.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import softplus

from sbi_da.alignment.divergences import each, row_weights, typical, unbiased
from sbi_da.alignment.metrics import Metric, get_metric
from sbi_da.alignment.term import Term, nothing
from sbi_da.errors import ConfigError

__all__ = ["MetricMMD"]

CHUNK = 2**19
"""Entries of the largest intermediate tensor: 2 MB of floats, of which a metric keeps some twenty at a time."""


class MetricMMD(Term):
    """Half the squared MMD whose kernel is made of a metric.

    Args:
        metric: name in :data:`sbi_da.alignment.metrics.METRICS`.
        bandwidth: of the kernel of a distance, as a multiple of the median distance; similarities have none.

    Raises:
        UnknownNameError: no such metric.
        ConfigError: a bandwidth that is not positive.
    """

    kind: ClassVar[str] = "metric"

    def __init__(self, metric: str = "euclidean", bandwidth: float = 1.0) -> None:
        super().__init__()
        if not bandwidth > 0:
            raise ConfigError(f"metric: bandwidth must be positive, got {bandwidth}")
        self.metric, self.bandwidth = get_metric(metric), bandwidth

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
        s, t = self.view(simulated), self.view(real)
        importance = inverse_spread(s, t, *weights) if self.metric.weighted else None
        values = tuple(_Pairwise.apply(x, y, self.metric, importance) for x, y in ((s, s), (t, t), (s, t)))
        if not self.metric.similarity:
            scale = self.bandwidth * typical(values, weights)
            values = each(lambda distance: torch.exp(-distance / scale), values)
        return unbiased(values, weights) / 2

    def view(self, rows: Tensor) -> Tensor:
        """Rows as the metric takes them, shape ``(n, width)``."""
        if self.metric.needs_nonnegative:
            raised = softplus(rows) + 1e-3
            return raised / raised.sum(-1, keepdim=True)
        return rows / rows.shape[-1] ** 0.5


class _Pairwise(torch.autograd.Function):
    """A metric of all pairs, some rows at a time, computed anew for the gradient: no graph of the pairs is kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, metric: Metric, importance: Tensor | None) -> Tensor:
        """Shapes ``(n, d)`` and ``(m, d)`` to ``(n, m)``."""
        ctx.save_for_backward(x, y)
        ctx.metric, ctx.importance = metric, importance
        return torch.cat([metric(part, y, importance) for part in x.split(rows_at_a_time(y))])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Gradients of x and y."""
        x, y = ctx.saved_tensors
        of_x, of_y = [], torch.zeros_like(y)
        rows = rows_at_a_time(y)
        for part, above in zip(x.split(rows), gradient.split(rows), strict=True):
            with torch.enable_grad():
                leaves = part.detach().requires_grad_(), y.detach().requires_grad_()
                value = ctx.metric(*leaves, ctx.importance)
            below = torch.autograd.grad(value, leaves, above)
            of_x.append(below[0])
            of_y += below[1]
        return torch.cat(of_x), of_y, None, None


def rows_at_a_time(y: Tensor) -> int:
    """Rows whose pairs with all of ``y`` make one chunk."""
    return max(1, CHUNK // y.numel())


@torch.no_grad()
def inverse_spread(s: Tensor, t: Tensor, w: Tensor, v: Tensor) -> Tensor:
    """Reciprocal standard deviations of the features over both sides, 1 on average; shape ``(width,)``."""
    mean = (w @ s + v @ t) / 2
    spread = ((w @ (s - mean).square() + v @ (t - mean).square()) / 2).sqrt()
    # a feature that hardly varies must not outweigh all others
    inverse = 1 / (spread + 0.01 * spread.mean() + 1e-12)
    return inverse / inverse.mean()
