"""Debiased Sinkhorn divergence between weighted simulated rows and real rows.

    S(a, b) = OT_e(a, b) - OT_e(a, a) / 2 - OT_e(b, b) / 2,   cost ||x - y||^2 / (2 width),   e = blur^2,

with OT_e the entropic transport cost (Feydy et al. 2019, arXiv:1810.08278), solved by GeomLoss. Unlike OT_e it is zero for
equal sides and does not draw clouds onto their centres. Both sides get gradients.

Blur and reach follow the latent scale: they are given as parts of the largest distance between two rows of the step,
without gradient, and neither is let below 0.01 (the rule for the blur is that of SIDDA, arXiv:2501.14048). With a finite
``reach`` mass may stay behind at a price (Sejourne et al. 2019, arXiv:1910.12958), and far outliers lose their pull.
The annealing of the solver stops after finitely many steps, so that near zero the value may be slightly negative.
"""

from typing import ClassVar

import torch
from geomloss import SamplesLoss
from torch import Tensor

from sbi_da.alignment.term import Term, normalised, nothing, squared_distances
from sbi_da.errors import ConfigError

__all__ = ["Sinkhorn"]

FINEST = 0.01
"""Least blur and reach, in latent units divided by the root of the width."""


class Sinkhorn(Term):
    """Debiased Sinkhorn divergence; about half the squared shift over the width for clouds that differ by a shift.

    Args:
        blur: of the transport plan, as a part of the largest latent distance.
        anneal: multiple of the blur at the start of training, which decays geometrically to 1; None: none.
        reach: farthest worthwhile transport, as a part of the largest latent distance; None: all mass is moved.
        scaling: ratio of successive blurs while solving, below 1; nearer to 1 is more exact and slower.

    Attributes:
        progress: of the training, from 0 to 1, set by whoever trains; only ``anneal`` uses it.

    Raises:
        ConfigError: an argument out of its range.
    """

    kind: ClassVar[str] = "sinkhorn"

    def __init__(
        self, blur: float = 0.05, anneal: float | None = None, reach: float | None = None, scaling: float = 0.7
    ) -> None:
        super().__init__()
        for name, value in (("blur", blur), ("anneal", anneal), ("reach", reach)):
            if value is not None and not value > 0:
                raise ConfigError(f"sinkhorn: {name} must be positive, got {value}")
        if not 0 < scaling < 1:
            raise ConfigError(f"sinkhorn: scaling must lie between 0 and 1, got {scaling}")
        self.blur, self.anneal, self.reach, self.scaling = blur, anneal, reach, scaling
        self.progress = 1.0

    def relative_blur(self) -> float:
        """The blur at the present progress, as a part of the largest latent distance."""
        return self.blur * (self.anneal or 1.0) ** (1 - min(1.0, max(0.0, self.progress)))

    def forward(
        self,
        simulated: Tensor,
        real: Tensor,
        *,
        weight: Tensor | None = None,
        matches: Tensor | None = None,
        cost: Tensor | None = None,
    ) -> Tensor:
        """The term; see :class:`~sbi_da.alignment.term.Term`. Zero where a side has no row that counts."""
        if weight is not None:
            counts = weight > 0
            simulated, weight = simulated[counts], weight[counts].to(simulated)
        if not len(simulated) or not len(real):
            return nothing(simulated, real)
        with torch.no_grad():
            pooled = torch.cat([simulated, real])
            centre = pooled.mean(0)
            largest = float(squared_distances(pooled, pooled).max().sqrt())
        blur = max(self.relative_blur() * largest, FINEST)
        loss = SamplesLoss(
            "sinkhorn",
            p=2,
            blur=blur,
            reach=None if self.reach is None else max(self.reach * largest, FINEST),
            diameter=max(largest, blur),
            scaling=self.scaling,
            debias=True,
            backend="tensorized",
        )
        # centred, because the solver expands its squares; and it leaves gradients switched on: restore the caller's choice
        x, y = ((rows - centre) / rows.shape[-1] ** 0.5 for rows in (simulated, real))
        with torch.set_grad_enabled(torch.is_grad_enabled()):
            return loss(normalised(weight, x), x, normalised(None, y), y)
