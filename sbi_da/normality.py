r"""How unlike the simulations an object is, as the share of simulated objects that are less unlike.

An object is looked at in several views: the network's context, and what is measured of its images. In each, the distance to its tenth
nearest simulated neighbour says how empty its surroundings are (Sun et al. 2022, arXiv 2204.06507); the mean of the logarithms over the
views there are is a score. Neighbours know curved and several-peaked classes, which a distance to class means does not. What outlier
detectors say (:mod:`sbi_da.outlier_exposure`) are further scores, and that by which an object is farthest out counts: one reason to be
strange is enough. Features and scores are scaled by their median and median absolute deviation: of the real objects once the estimator is
adapted to them, so that directions in which the domains differ count little.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from sbi_da.alignment.anomalies import entropy_score
from sbi_da.errors import SbiDaError

__all__ = ["Normality", "Views"]

QUANTILES = 501
NEIGHBOUR = 10
WIDEST = 8.0
"""Scaled features are cut there."""
LEAST = 0.3
"""Of a scale, in standard deviations of the simulated objects: a feature that is the same for most real ones must not decide."""
HANDICAP = 1.0
"""Spreads that a neighbourhood must be farther out to count as much as a detector: a shift of domain moves it more."""
CHUNK = 2048
VIEWED = ("reference", "centre", "scale", "middle", "unit")
NEIGHBOURS = "neighbours"
Views = Mapping[str, np.ndarray]
"""By name: features ``(object, width)``, or scores ``(object,)``; NaN where a view of an object does not exist."""


@dataclass(frozen=True)
class Normality:
    """Neighbourhoods of simulated objects, and how far other scores usually go.

    Attributes:
        reference: of each view of features, those of simulated objects, scaled, shape ``(object, width)``.
        centre: of each of these views, shape ``(width,)``.
        scale: of each, same shape.
        middle: of each, median of the logarithms for held-out simulated objects, so that views count alike, shape ``()``.
        unit: median and spread that each of the scores, and the mean over neighbourhoods, is measured by, shape ``(2,)``.
        quantiles: of what is greatest among these for held-out simulated objects, rising, shape ``(quantile,)``.
        entropies: quantiles of the entropies [nats] of their class probabilities, same shape; None where no class is inferred.
    """

    reference: Views
    centre: Views
    scale: Views
    middle: Views
    unit: Views
    quantiles: np.ndarray
    entropies: np.ndarray | None = None

    @classmethod
    def fit(
        cls, seen: Views, held_out: Views, probabilities: np.ndarray | None = None, scaled_by: Views | None = None
    ) -> "Normality":
        """Learn what is normal.

        Args:
            seen: simulated objects, the neighbours.
            held_out: others, whose scores are the measure.
            probabilities: of the classes of these, shape ``(object, class)``.
            scaled_by: objects whose spread is the unit; None: those seen, and of scores those held out.

        Raises:
            SbiDaError: fewer objects in the first view than neighbours to look for.
        """
        reference, centre, scale = {}, {}, {}
        for name, features in seen.items():
            if features.ndim == 1:
                continue
            known = _there(features)
            others = known if scaled_by is None else _there(scaled_by[name])
            if len(known) <= NEIGHBOUR or len(others) <= NEIGHBOUR:
                continue
            centre[name], spread = _median_and_spread(others)
            scale[name] = np.maximum(spread, LEAST * np.maximum(known.std(0), 1e-9))
            reference[name] = _scaled(known, centre[name], scale[name]).astype(np.float32)
        if not reference:
            raise SbiDaError(f"what is normal is learned from more than {NEIGHBOUR} simulated objects")
        none = np.zeros(QUANTILES)
        plain = cls(reference, centre, scale, {name: np.array(0.0) for name in reference}, {}, none)
        middle = {}
        for name in reference:
            log = plain._of_view(name, held_out[name])
            middle[name] = np.array(np.median(log[np.isfinite(log)]) if np.isfinite(log).any() else 0.0)
        usual = held_out if scaled_by is None else scaled_by
        plain = cls(reference, centre, scale, middle, {}, none)
        scores, simulated = plain._scores(usual), plain._scores(held_out)
        unit = {NEIGHBOURS: np.array([0.0, 1.0])}
        for name, score in scores.items():
            if np.isfinite(score).sum() > NEIGHBOUR:
                known, spread = _median_and_spread(score[np.isfinite(score)])
                least = LEAST * np.nanstd(simulated[name]) if np.isfinite(simulated[name]).any() else 0.0
                unit[name] = np.array([known, max(float(spread), float(least), 1e-6)])
        fitted, levels = cls(reference, centre, scale, middle, unit, none), np.linspace(0, 1, QUANTILES)
        entropies = None if probabilities is None else np.quantile(entropy_score(probabilities), levels)
        return cls(reference, centre, scale, middle, unit, np.quantile(fitted.distances(held_out), levels), entropies)

    def distances(self, views: Views) -> np.ndarray:
        """How far an object lies from what is usual, by the score that makes most of it, in its spreads; shape ``(object,)``.

        Beside other scores the neighbourhoods count a little less.
        """
        scores = self._scores(views)
        found = {name: (scores[name] - middle) / spread for name, (middle, spread) in self.unit.items()}
        others = [np.isfinite(score) for name, score in found.items() if name != NEIGHBOURS]
        if others:
            found[NEIGHBOURS] = found[NEIGHBOURS] - HANDICAP * np.any(others, 0)
        farthest = np.fmax.reduce(list(found.values()))
        return np.where(np.isfinite(farthest), farthest, self.quantiles[-1])

    def _scores(self, views: Views) -> dict[str, np.ndarray]:
        return {NEIGHBOURS: self._neighbourhood(views)} | {name: score for name, score in views.items() if score.ndim == 1}

    def _neighbourhood(self, views: Views) -> np.ndarray:
        """Mean logarithm of the distance to the tenth neighbour over the views there are, shape ``(object,)``; NaN if there is none."""
        joined = np.stack([self._of_view(name, views[name]) for name in self.reference])
        counted = np.isfinite(joined).sum(0)
        return np.where(counted > 0, np.nansum(joined, 0) / np.maximum(counted, 1), np.nan)

    def _of_view(self, name: str, features: np.ndarray) -> np.ndarray:
        features = np.asarray(features, float)
        there = np.isfinite(features).all(1)
        found = np.full(len(features), np.nan)
        scaled = _scaled(features[there], self.centre[name], self.scale[name])
        found[there] = _log_distance(scaled, self.reference[name]) - float(self.middle[name])
        return found

    def __call__(self, views: Views) -> np.ndarray:
        """Scores: 0 to 1 within the simulations, above 1 beyond all of them; shape ``(object,)``."""
        score = self.distances(views)
        share = np.interp(score, self.quantiles, np.linspace(0, 1, len(self.quantiles)))
        return np.where(score > self.quantiles[-1], 1 + score - self.quantiles[-1], share)

    def arrays(self) -> dict[str, np.ndarray]:
        """What it consists of."""
        parts = {f"{what}.{k}": v for what in VIEWED for k, v in getattr(self, what).items()}
        parts["quantiles"] = self.quantiles
        return parts if self.entropies is None else parts | {"entropies": self.entropies}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Normality":
        """Inverse of :meth:`arrays`."""
        parts = {what: {k.removeprefix(f"{what}."): np.asarray(v) for k, v in arrays.items() if k.startswith(f"{what}.")}
                 for what in VIEWED}
        for what in ("reference", "unit"):
            if not parts[what]:
                raise KeyError(what)
        return cls(**parts, quantiles=np.asarray(arrays["quantiles"]), entropies=arrays.get("entropies"))


def _median_and_spread(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Along the first axis; the spread is that of a normal law with the same median absolute deviation."""
    middle = np.median(values, 0)
    return middle, 1.4826 * np.median(np.abs(values - middle), 0)


def _there(features: np.ndarray) -> np.ndarray:
    features = np.asarray(features, float)
    return features[np.isfinite(features).all(1)]


def _scaled(features: np.ndarray, centre: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.clip((features - centre) / scale, -WIDEST, WIDEST)


def _log_distance(features: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Logarithm of the distance to the tenth neighbour, shape ``(object,)``."""
    other = torch.from_numpy(reference).float()
    found = [
        torch.cdist(part, other).kthvalue(NEIGHBOUR, dim=1).values
        for part in torch.from_numpy(features).float().split(CHUNK)
    ]
    return np.log(np.maximum(torch.cat([torch.zeros(0), *found]).double().numpy(), 1e-9))
