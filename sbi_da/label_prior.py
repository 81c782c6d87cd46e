"""The prior of labels of which an object may have several: how often each holds where an estimator is trained."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sbi_da.errors import SbiDaError, UnknownNameError

__all__ = ["LabelPrior"]

UNKNOWN = -1.0
"""Code of a label that is not known of an object."""


@dataclass(frozen=True)
class LabelPrior:
    """Rates of labels that do not exclude each other.

    Attributes:
        rates: share of the objects that have it among those of which it is known, by label, between 0 and 1.
        objects: how many training objects have a known label.
    """

    rates: Mapping[str, float]
    objects: int

    def __post_init__(self) -> None:
        for name, rate in self.rates.items():
            if not 0 < rate < 1:
                raise SbiDaError(f"{name}: the rate of a label lies between 0 and 1, and is not {rate:g}")

    @classmethod
    def of_labels(cls, names: list[str], labels: Mapping[str, np.ndarray]) -> "LabelPrior":
        """Counted.

        Args:
            names: of the labels.
            labels: by name, each 0, 1 or NaN, shape ``(object,)``.

        Raises:
            SbiDaError: other values, or a label that all or none of the objects have.
        """
        codes = _codes(names, labels)
        rates = {}
        for k, name in enumerate(names):
            known = codes[codes[:, k] >= 0, k]
            if not len(known) or known.min() == known.max():
                what = "is unknown of every training object" if not len(known) else f"is {known[0]:g} of every training object"
                raise SbiDaError(f"{name}: the label {what}: add others or leave it out")
            rates[name] = float(known.mean())
        return cls(rates, int((codes >= 0).any(1).sum()))

    @property
    def names(self) -> list[str]:
        """The labels."""
        return list(self.rates)

    @property
    def columns(self) -> list[str]:
        """What records must hold: the labels."""
        return self.names

    def bounds(self, name: str) -> tuple[float, float]:
        """Of a label."""
        if name not in self.rates:
            raise UnknownNameError("label", name, self.names)
        return 0.0, 1.0

    def to_normal(self, theta: Mapping[str, np.ndarray]) -> np.ndarray:
        """Labels, shape ``(object, label)``: 1, 0, -1 where unknown; NaN of objects of which none is known."""
        codes = _codes(self.names, theta)
        return np.where((codes >= 0).any(1, keepdims=True), codes, np.nan)

    def log_prob(self, theta: Mapping[str, np.ndarray]) -> np.ndarray:
        """Log-probability of the known labels, shape ``(object,)``."""
        codes, rates = _codes(self.names, theta), np.array(list(self.rates.values()))
        return np.where(codes >= 0, np.log(np.where(codes == 1, rates, 1 - rates)), 0.0).sum(1)

    def to_dict(self) -> dict[str, Any]:
        """Plain content, for JSON."""
        return {"rates": dict(self.rates), "objects": self.objects}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "LabelPrior":
        """Inverse of :meth:`to_dict`."""
        return cls(dict(content["rates"]), content["objects"])


def _codes(names: list[str], labels: Mapping[str, np.ndarray]) -> np.ndarray:
    """Labels, shape ``(object, label)``; -1 where unknown."""
    columns = []
    for name in names:
        own = np.asarray(labels[name], float)
        wrong = ~np.isnan(own) & (own != 0) & (own != 1)
        if wrong.any():
            raise SbiDaError(f"{name}: a label is 0, 1 or empty, not {own[wrong][0]:g}: counts of votes have a target of their own, votes")
        columns.append(np.where(np.isnan(own), UNKNOWN, own))
    return np.stack(columns, -1)
