r"""p-values of a statistic from its values for simulated objects.

Between the simulated values log p is interpolated in the logarithm of the statistic; beyond them it goes on as a Pareto tail,
:math:`p \propto t^{-\alpha}` (Hill 1975, Ann. Stat. 3, 1163), so that two objects farther out than all simulations still have an order.
"""

import numpy as np
from scipy.special import expit, logit

__all__ = ["Tails"]

KNOTS = 64
TAIL = 0.01
"""Share of the largest values that the slope of the tail is fitted to."""
FARTHEST = 1e-3
"""Share of simulated objects above the last knot."""
LEAST = 500
"""Simulated objects in a group; groups with fewer are joined with the others."""


class Tails:
    """Tails of a statistic in groups of objects.

    Args:
        log_value: logarithms of the statistic, rising, shape ``(group, knot)``.
        log_p: logarithms of the share of simulated objects that lie above, falling, shape ``(knot,)``.
        slope: of log p beyond the last knot, negative, shape ``(group,)``.
    """

    def __init__(self, log_value: np.ndarray, log_p: np.ndarray, slope: np.ndarray) -> None:
        self.log_value, self.log_p, self.slope = log_value, log_p, slope

    @classmethod
    def fit(cls, value: np.ndarray, group: np.ndarray, groups: int, weight: np.ndarray) -> "Tails":
        """Fit to simulated objects.

        Args:
            value: the statistic, positive, NaN where an object has none, shape ``(object,)``.
            group: of each object, from 0 to ``groups - 1``.
            groups: how many.
            weight: of each object, shape ``(object,)``.
        """
        held = np.isfinite(value)
        share = expit(np.linspace(-logit(FARTHEST), logit(FARTHEST), KNOTS))
        rows, slopes = [], []
        for g in range(groups):
            own = held & (group == g)
            own = own if own.sum() >= LEAST else held
            order = np.argsort(value[own])
            logs = np.log(np.maximum(value[own][order], 1e-12))
            above = 1 - np.cumsum(weight[own][order]) / max(weight[own].sum(), 1e-300)
            knots = np.interp(-share, -above, logs) if len(logs) else np.arange(KNOTS)
            top = above < TAIL
            mean = np.average(logs[top] - logs[top].min(), weights=weight[own][order][top]) if top.sum() > 1 else 1.0
            rows.append(np.maximum.accumulate(knots) + 1e-9 * np.arange(KNOTS))
            slopes.append(-1 / max(1e-3, float(mean)))
        return cls(np.array(rows), np.log(share), np.array(slopes))

    def __call__(self, value: np.ndarray, group: np.ndarray) -> np.ndarray:
        """p-values, shape ``(object,)``; NaN where there is no value."""
        logs = np.log(np.maximum(np.where(np.isfinite(value), value, 1.0), 1e-12))
        out = np.empty(len(value))
        for g in range(len(self.slope)):
            rows = group == g
            beyond = np.maximum(0, logs[rows] - self.log_value[g, -1])
            out[rows] = np.interp(logs[rows], self.log_value[g], self.log_p, left=0.0) + self.slope[g] * beyond
        return np.where(np.isfinite(value), np.exp(np.maximum(out, -300)), np.nan)

    def arrays(self) -> dict[str, np.ndarray]:
        """To be saved."""
        return {"log_value": self.log_value, "log_p": self.log_p, "slope": self.slope}
