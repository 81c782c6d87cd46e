"""What simulated objects look like, to tell whether others look like them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import softplus

from sbi_da.alignment.features import Features
from sbi_da.artefact import fingerprint, read_artefact, write_artefact
from sbi_da.errors import ArtefactError
from sbi_da.estimator import Estimator
from sbi_da.records import OBSERVED
from sbi_da.trust.detection import FaultFinder
from sbi_da.trust.familiarity import Familiarity
from sbi_da.trust.prediction import CrossSurvey
from sbi_da.trust.tails import Tails

__all__ = ["PLACE", "Reference", "Statistics"]

PLACE = "trust"
"""Folder of the reference in that of a run."""
WHOLE, FAULT = "all", "fault"
SHARE = 0.9
"""Of false alarms that are left to the search for faults; the other p-values share the rest."""


@dataclass(frozen=True)
class Statistics:
    """What is measured of how strange objects are, before it is compared with simulated ones.

    Attributes:
        value: by name, shape ``(object,)``, NaN where there is nothing to say.
        group: by name, which simulated objects to compare with, same shape.
    """

    value: Mapping[str, np.ndarray]
    group: Mapping[str, np.ndarray]


class Reference(nn.Module):
    """Of one estimator.

    Args:
        estimator: whose features are looked at.
        width: of the network that predicts surveys from one another.
        fault_width: of the network that finds faults.
    """

    def __init__(self, estimator: Estimator, width: int = 128, fault_width: int = 256) -> None:
        super().__init__()
        self.surveys = estimator.surveys
        self.width, self.fault_width = width, fault_width
        index = estimator.layout.survey_index.tolist()
        self.predictor = CrossSurvey(index, len(self.surveys), width)
        self.finder = FaultFinder(index, len(self.surveys), fault_width)
        self.familiarity = Familiarity(estimator.network.context, len(self.surveys), estimator.network.width)
        self.tails: dict[str, Tails] = {}

    @property
    def columns(self) -> list[str]:
        """Names of the p-values."""
        return ["context", FAULT, *(f"{kind}_{name}" for kind in ("features", "conflict", FAULT) for name in self.surveys), WHOLE]

    def statistics(self, estimator: Estimator, features: Features, value: Tensor, error: Tensor, state: Tensor) -> Statistics:
        """How strange objects are.

        Args:
            estimator: the one this was learned for.
            features: of the objects.
            value: what was measured of them, shape ``(object, channel)``.
            error: same shape.
            state: same shape.
        """
        with torch.inference_mode():
            distance = self.familiarity(features.context, features.surveys).double().cpu().numpy()
            conflict, _, number = (x.cpu().numpy() for x in self.predictor(estimator.encoder, value, error, state))
            logits = self.finder(estimator.encoder, value, error, state)
            odds, each = (softplus(x.double()).cpu().numpy() for x in self.finder.log_odds(logits))
        present = features.present.cpu().numpy()
        seen = ((state == OBSERVED).double() @ self.predictor.own.double().mT).long().cpu().numpy()
        several = np.minimum(2, (seen > 0).sum(1))  # odds allow for what was measured, but one survey cannot disagree with itself
        values = {"context": np.where(present.any(1), distance[:, 0], np.nan), FAULT: np.where(seen.any(1), odds, np.nan)}
        groups = {"context": (seen > 0).sum(1), FAULT: several}
        for k, name in enumerate(self.surveys):
            values[f"features_{name}"] = np.where(present[:, k], distance[:, 1 + k], np.nan)
            groups[f"features_{name}"] = seen[:, k]
            values[f"conflict_{name}"] = np.where(number[:, k] > 0, conflict[:, k].astype(float), np.nan)
            groups[f"conflict_{name}"] = number[:, k]
            values[f"{FAULT}_{name}"] = np.where(seen[:, k] > 0, each[:, k], np.nan)
            groups[f"{FAULT}_{name}"] = several
        return Statistics(values, groups)

    def calibrate(self, found: Statistics, weight: np.ndarray) -> None:
        """Learn from simulated objects, of these weights ``(object,)``, how such statistics are distributed."""
        groups = {k: int(found.group[k].max(initial=0)) + 1 for k in found.value}
        self.tails = {k: Tails.fit(v, found.group[k], groups[k], weight) for k, v in found.value.items()}
        least = _least(self._each(found))
        self.tails[WHOLE] = Tails.fit(least, found.group[FAULT], 3, weight)

    def _each(self, found: Statistics) -> dict[str, np.ndarray]:
        return {k: self.tails[k](v, np.minimum(found.group[k], len(self.tails[k].slope) - 1)) for k, v in found.value.items()}

    def p_values(self, found: Statistics) -> dict[str, np.ndarray]:
        """Shares of simulated objects that are stranger, by :attr:`columns`, each of shape ``(object,)``; NaN where nothing can be said."""
        p = self._each(found)
        return {**p, WHOLE: self.tails[WHOLE](_least(p), found.group[FAULT])}

    def save(self, run: Path, estimator: Path) -> Path:
        """Write it into a run's folder; ``estimator`` is the artefact it belongs to."""
        weights = {k: v.contiguous() for k, v in self.state_dict().items()}
        for name, tails in self.tails.items():
            weights |= {f"tails.{name}.{k}": torch.from_numpy(np.ascontiguousarray(v)) for k, v in tails.arrays().items()}
        content = {"of": fingerprint(estimator), "width": self.width, "fault_width": self.fault_width, "surveys": self.surveys}
        return write_artefact(run / PLACE, content, weights, kind=PLACE)

    @classmethod
    def load(cls, run: Path, estimator: Estimator) -> "Reference | None":
        """That of a run; None where it has none.

        Raises:
            ArtefactError: altered, or learned for another estimator.
        """
        if not (run / PLACE).is_dir():
            return None
        content, weights = read_artefact(run / PLACE, PLACE)
        if content["of"] != fingerprint(run):
            raise ArtefactError(f"{run / PLACE}: learned for another estimator than the one in {run}: run sbi-da trust {run}")
        try:
            reference = cls(estimator, content["width"], content["fault_width"])
            tensors = load_file(weights)
            arrays = {k.removeprefix("tails."): v.numpy() for k, v in tensors.items() if k.startswith("tails.")}
            for name in reference.columns:
                reference.tails[name] = Tails(*(arrays[f"{name}.{part}"] for part in ("log_value", "log_p", "slope")))
            reference.load_state_dict({k: v for k, v in tensors.items() if not k.startswith("tails.")})
        except (KeyError, RuntimeError) as error:
            raise ArtefactError(f"{run / PLACE}: learned by another version of sbi-da: run sbi-da trust {run}") from error
        return reference.eval()


def _least(p: Mapping[str, np.ndarray]) -> np.ndarray:
    """How small the smallest p-value is for its share of false alarms, as a rising statistic, NaN where there is none."""
    names = [name for name in p if not name.startswith(f"{FAULT}_")]  # the odds of any fault hold those of single surveys
    every = np.stack([p[name] for name in names], axis=1)
    held, main = np.isfinite(every), np.array([name == FAULT for name in names])
    others = np.maximum(1, (held & ~main).sum(1, keepdims=True))
    least = np.where(held, every / np.where(main, SHARE, (1 - SHARE) / others), 1 / SHARE).min(1)
    return np.where(held.any(1), -np.log(SHARE * least), np.nan)
