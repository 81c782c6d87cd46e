"""How unlike the simulations an object is, as the share of simulated objects that are less unlike."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sbi_da.alignment.anomalies import ClassDistances, entropy_score

__all__ = ["Normality"]

QUANTILES = 501


@dataclass(frozen=True)
class Normality:
    """Distances of held-out simulated objects to their nearest class.

    Attributes:
        distances: to the classes, in the space of contexts.
        quantiles: of the distances of simulated objects, rising, shape ``(quantile,)``.
        entropies: quantiles of the entropies [nats] of their class probabilities, same shape; None where no class is inferred.
    """

    distances: ClassDistances
    quantiles: np.ndarray
    entropies: np.ndarray | None = None

    @classmethod
    def fit(
        cls, features: np.ndarray, labels: np.ndarray, held_out: np.ndarray, probabilities: np.ndarray | None = None
    ) -> "Normality":
        """From labelled features ``(n, width)``, and those of held-out objects ``(m, width)`` with their probabilities ``(m, class)``."""
        distances, levels = ClassDistances.fit(features, labels), np.linspace(0, 1, QUANTILES)
        entropies = None if probabilities is None else np.quantile(entropy_score(probabilities), levels)
        return cls(distances, np.quantile(distances.score(held_out), levels), entropies)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Scores of features ``(object, width)``: 0 to 1 within the simulations, above 1 beyond all of them; shape ``(object,)``."""
        score = self.distances.score(features)
        share = np.interp(score, self.quantiles, np.linspace(0, 1, len(self.quantiles)))
        return np.where(score > self.quantiles[-1], 1 + np.log(np.maximum(score, 1e-300) / max(self.quantiles[-1], 1e-300)), share)

    def arrays(self) -> dict[str, np.ndarray]:
        """What it consists of."""
        d = self.distances
        parts = {"means": d.means, "within": d.within, "centre": d.centre, "overall": d.overall, "quantiles": self.quantiles}
        return parts if self.entropies is None else parts | {"entropies": self.entropies}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Normality":
        """Inverse of :meth:`arrays`."""
        parts = {k: np.asarray(v) for k, v in arrays.items()}
        quantiles, entropies = parts.pop("quantiles"), parts.pop("entropies", None)
        return cls(ClassDistances(**parts), quantiles, entropies)
