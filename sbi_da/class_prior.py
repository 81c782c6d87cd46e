"""The prior of a class: names and fractions. What a normal score is to a continuous parameter, its code is to a class."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sbi_da.errors import SbiDaError, UnknownNameError

__all__ = ["ClassPrior"]


@dataclass(frozen=True)
class ClassPrior:
    """Fractions of the classes of one parameter where an estimator is trained.

    Attributes:
        name: of the parameter.
        classes: their names; an object's value is the position of its class.
        fractions: positive, sum to one.
        objects: how many training objects they were counted in; None: they are exact.
    """

    name: str
    classes: tuple[str, ...]
    fractions: tuple[float, ...]
    objects: int | None = None

    def __post_init__(self) -> None:
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise SbiDaError(f"{self.name}: needs two or more different classes, not {', '.join(self.classes) or 'none'}")
        wrong = len(self.fractions) != len(self.classes) or not all(f > 0 for f in self.fractions)
        if wrong or abs(sum(self.fractions) - 1) > 1e-6:
            raise SbiDaError(f"{self.name}: needs one positive fraction a class that sum to one, not {list(self.fractions)}")

    @classmethod
    def of_labels(cls, name: str, classes: tuple[str, ...], codes: np.ndarray) -> "ClassPrior":
        """Fractions of labelled objects; codes that are NaN are left out.

        Raises:
            SbiDaError: a class without objects, or a code that is none.
        """
        known = codes[np.isfinite(codes)]
        if not np.isin(known, np.arange(len(classes))).all():
            raise SbiDaError(f"{name}: codes must be whole numbers from 0 to {len(classes) - 1}")
        counts = np.bincount(known.astype(int), minlength=len(classes))
        if not counts.all():
            raise SbiDaError(f"{name}: no training object of class {classes[int(counts.argmin())]!r}: add some or drop the class")
        return cls(name, classes, tuple((counts / counts.sum()).tolist()), int(counts.sum()))

    @property
    def names(self) -> list[str]:
        """The parameter's name, in a list."""
        return [self.name]

    @property
    def counts(self) -> np.ndarray:
        """Training objects of each class, shape ``(class,)``; where their number is not bounded, per ten thousand."""
        return np.array(self.fractions) * (self.objects or 10_000)

    @property
    def columns(self) -> list[str]:
        """What records must hold: the class."""
        return [self.name]

    def bounds(self, name: str) -> tuple[float, float]:
        """First and last code."""
        if name != self.name:
            raise UnknownNameError("parameter", name, self.names)
        return 0.0, float(len(self.classes) - 1)

    def to_normal(self, theta: Mapping[str, np.ndarray]) -> np.ndarray:
        """Codes, shape ``(..., 1)``; NaN where they are no class."""
        codes = np.asarray(theta[self.name], float)
        known = np.isin(codes, np.arange(len(self.classes)))
        return np.where(known, codes, np.nan)[..., None]

    def log_prob(self, theta: Mapping[str, np.ndarray]) -> np.ndarray:
        """Log of the fractions, ``-inf`` where a code is no class; shape ``(...)``."""
        codes = self.to_normal(theta)[..., 0]
        known = np.isfinite(codes)
        return np.where(known, np.log(np.asarray(self.fractions))[np.where(known, codes, 0).astype(int)], -np.inf)

    def to_dict(self) -> dict[str, Any]:
        """Plain content, for JSON."""
        return {"name": self.name, "classes": list(self.classes), "fractions": list(self.fractions), "objects": self.objects}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "ClassPrior":
        """Inverse of :meth:`to_dict`."""
        return cls(content["name"], tuple(content["classes"]), tuple(content["fractions"]), content["objects"])
