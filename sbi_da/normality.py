"""How unlike the simulations an object is, as the share of simulated objects that are less unlike."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sbi_da.alignment.anomalies import ClassDistances

__all__ = ["Normality"]

QUANTILES = 501


@dataclass(frozen=True)
class Normality:
    """Distances of held-out simulated objects to their nearest class.

    Attributes:
        distances: to the classes, in the space of contexts.
        quantiles: of the distances of simulated objects, rising, shape ``(quantile,)``.
    """

    distances: ClassDistances
    quantiles: np.ndarray

    @classmethod
    def fit(cls, features: np.ndarray, labels: np.ndarray, held_out: np.ndarray) -> "Normality":
        """From labelled features ``(n, width)``, and those of held-out objects ``(m, width)``."""
        distances = ClassDistances.fit(features, labels)
        return cls(distances, np.quantile(distances.score(held_out), np.linspace(0, 1, QUANTILES)))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Scores of features ``(object, width)``: 0 to 1 within the simulations, above 1 beyond all of them; shape ``(object,)``."""
        score = self.distances.score(features)
        share = np.interp(score, self.quantiles, np.linspace(0, 1, len(self.quantiles)))
        return np.where(score > self.quantiles[-1], 1 + np.log(np.maximum(score, 1e-300) / max(self.quantiles[-1], 1e-300)), share)

    def arrays(self) -> dict[str, np.ndarray]:
        """What it consists of."""
        d = self.distances
        return {"means": d.means, "within": d.within, "centre": d.centre, "overall": d.overall, "quantiles": self.quantiles}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Normality":
        """Inverse of :meth:`arrays`."""
        parts = {k: np.asarray(v) for k, v in arrays.items()}
        quantiles = parts.pop("quantiles")
        return cls(ClassDistances(**parts), quantiles)
