"""The posterior of labels of which an object may have any number: a probability of each, independent given the object."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import expit, log_expit, xlogy

from sbi_da.errors import SbiDaError, UnknownNameError
from sbi_da.posteriors.noise import object_generator

__all__ = ["LabelPosterior"]


@dataclass(frozen=True)
class LabelPosterior:
    """Probabilities of labels of a set of objects.

    Attributes:
        ids: identifiers, shape ``(object,)``; an object's draws depend on its identifier and the seed only.
        labels: their names.
        log_odds: of each, shape ``(object, label)``.

    Raises:
        SbiDaError: shapes that do not fit, or log-odds that are NaN.
    """

    ids: np.ndarray
    labels: tuple[str, ...]
    log_odds: np.ndarray

    def __post_init__(self) -> None:
        odds = np.asarray(self.log_odds, float)
        if odds.shape != (len(self.ids), len(self.labels)):
            raise SbiDaError(f"a posterior of {len(self.ids)} objects and {len(self.labels)} labels got log-odds of shape {odds.shape}")
        if np.isnan(odds).any():
            raise SbiDaError("log-odds of labels are NaN: look at the inputs of those objects")
        object.__setattr__(self, "log_odds", odds)

    def __len__(self) -> int:
        return len(self.ids)

    def probabilities(self) -> xr.DataArray:
        """Probabilities that labels hold, dimensions ``(object, label)``."""
        coords = {"object": self.ids, "label": list(self.labels)}
        return xr.DataArray(expit(self.log_odds), dims=("object", "label"), coords=coords, name="probabilities")

    def log_prob(self, labels: Mapping[str, np.ndarray]) -> xr.DataArray:
        """Log-probability of labels, those that are not given left out.

        Args:
            labels: by name, 1, 0 or NaN where unknown, shape ``(object,)``.

        Raises:
            SbiDaError: other values, or not one for each object.
            UnknownNameError: no such label.
        """
        total = np.zeros(len(self))
        for name, values in labels.items():
            if name not in self.labels:
                raise UnknownNameError("label", name, list(self.labels))
            y, odds = np.asarray(values, float), self.log_odds[:, self.labels.index(name)]
            if y.shape != total.shape or not (np.isnan(y) | (y == 0) | (y == 1)).all():
                raise SbiDaError(f"{name}: one label for each of {len(self)} objects is needed, 0, 1 or NaN, got shape {y.shape}")
            total += np.where(np.isnan(y), 0.0, np.where(y == 1, log_expit(odds), log_expit(-odds)))
        return xr.DataArray(total, dims="object", coords={"object": self.ids}, name="log_prob")

    def sample(self, n: int = 1000, seed: int = 0) -> xr.Dataset:
        """Draw labels: one variable for each, of zeros and ones, dimensions ``(object, draw)``.

        Raises:
            SbiDaError: fewer draws than one.
        """
        if n < 1:
            raise SbiDaError(f"draws must be at least 1, not {n}")
        drawn, p = np.empty((len(self), n, len(self.labels)), np.int8), expit(self.log_odds)
        for i, identifier in enumerate(self.ids.tolist()):
            drawn[i] = object_generator(identifier, seed).random((n, len(self.labels))) < p[i]
        variables = {name: (("object", "draw"), drawn[..., k]) for k, name in enumerate(self.labels)}
        return xr.Dataset(variables, coords={"object": self.ids, "draw": np.arange(n)}, attrs={"seed": seed})

    def given(self, **fixed: Any) -> "LabelPosterior":
        """Refused: labels are independent given the object.

        Raises:
            SbiDaError: always.
        """
        raise SbiDaError(f"cannot hold {', '.join(fixed) or 'nothing'} fixed: labels are independent of each other here")

    def summary(self) -> xr.Dataset:
        """Probabilities, which labels hold more probably than not, and the entropy [nats] of all labels together."""
        p = expit(self.log_odds)
        out = xr.Dataset({"probabilities": self.probabilities()})
        out["holds"] = (("object", "label"), self.log_odds > 0)
        out["entropy"] = ("object", -(xlogy(p, p) + xlogy(1 - p, 1 - p)).sum(1), {"unit": "nat"})
        return out

    def columns(self) -> dict[str, np.ndarray]:
        """The same as columns of shape ``(object,)``: ``labels`` (which hold, joined by ``+``) and of each ``<label>_probability``."""
        holds = ["+".join(name for name, odds in zip(self.labels, row, strict=True) if odds > 0) for row in self.log_odds.tolist()]
        p = expit(self.log_odds)
        return {"labels": np.array(holds, dtype=np.str_)} | {f"{name}_probability": p[:, k] for k, name in enumerate(self.labels)}
