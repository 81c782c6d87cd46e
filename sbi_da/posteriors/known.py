"""Scores by which a head is told known parameters.

A normal score of the prior means nothing of a parameter whose law or limits depend on others that are not known (the mass of a star of
unknown age). Such parameters are told by their normal score under their own marginal law instead, a table of whose quantiles is kept.
"""

from collections.abc import Mapping

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor, nn

from sbi_da.prior import Prior

__all__ = ["KnownScores"]

LEVELS, DRAWS = 513, 100_000


class KnownScores(nn.Module):
    """Scores of known parameters.

    Args:
        prior: whose parameters they are.
    """

    table: Tensor

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.prior = prior
        self.dependent = [name for name in prior.names if prior.parents(name)]
        theta = prior.sample(DRAWS, np.random.default_rng(0)) if self.dependent else {}
        levels = np.linspace(0, 1, LEVELS)
        rows = [np.quantile(theta[name], levels) for name in self.dependent]
        self.register_buffer("table", torch.from_numpy(np.array(rows).reshape(-1, LEVELS)))

    def score(self, name: str, value: np.ndarray) -> np.ndarray:
        """Score of a parameter's values, same shape; NaN outside the prior."""
        if name not in self.dependent:
            return self.prior.score(name, {name: value})
        row = self.table[self.dependent.index(name)].cpu().numpy()
        level = np.interp(value, row, np.linspace(0, 1, LEVELS))
        return np.asarray(ndtri(np.clip(level, 1 / DRAWS, 1 - 1 / DRAWS)))

    def of_normal(self, z: Tensor) -> Tensor:
        """Scores of parameters given by their normal scores under the prior, shape ``(..., parameter)``."""
        if not self.dependent:
            return z
        theta: Mapping[str, np.ndarray] = self.prior.from_normal(z.detach().cpu().numpy())
        found = z.clone()
        for name in self.dependent:
            found[..., self.prior.names.index(name)] = torch.from_numpy(self.score(name, theta[name])).to(z)
        return found
