"""The posterior of a classifier: the discrete counterpart of :class:`~sbi_da.posteriors.posterior.Posterior`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from scipy.special import log_softmax, xlogy

from sbi_da.alignment.label_shift import ClassFractions, bbse, correct, label_shift_em
from sbi_da.errors import SbiDaError, UnknownNameError
from sbi_da.posteriors.noise import object_generator

__all__ = ["ClassPosterior"]


@dataclass(frozen=True)
class ClassPosterior:
    """Class probabilities of a set of objects under a reference prior.

    Attributes:
        ids: identifiers, shape ``(object,)``; an object's draws depend on its identifier and the seed only.
        classes: names, in the order of the codes.
        log_probabilities: shape ``(object, class)``; normalised when the posterior is made.
        fractions: of the classes under the prior that the probabilities assume, shape ``(class,)``, sum one.
        name: of the class as a quantity.

    Raises:
        SbiDaError: shapes that do not fit, or log-probabilities that are NaN or all minus infinity.
    """

    ids: np.ndarray
    classes: tuple[str, ...]
    log_probabilities: np.ndarray
    fractions: np.ndarray
    name: str = "class"

    def __post_init__(self) -> None:
        log_p, fractions = np.asarray(self.log_probabilities, float), np.asarray(self.fractions, float)
        shape = (len(self.ids), len(self.classes))
        if log_p.shape != shape or fractions.shape != shape[1:]:
            raise SbiDaError(
                f"a class posterior of {shape[0]} objects and {shape[1]} classes needs log-probabilities of that shape and as many "
                f"fractions, got {log_p.shape} and {fractions.shape}"
            )
        if not (fractions >= 0).all() or not fractions.sum() > 0:
            raise SbiDaError(f"fractions of the classes must be positive, got {fractions.tolist()}")
        if np.isnan(log_p).any() or not np.isfinite(log_p.max(1, initial=-np.inf)).all():
            raise SbiDaError("class log-probabilities are NaN or allow no class: look at the inputs of those objects")
        object.__setattr__(self, "log_probabilities", log_softmax(log_p, axis=1))
        object.__setattr__(self, "fractions", fractions / fractions.sum())

    def __len__(self) -> int:
        return len(self.ids)

    def probabilities(self) -> xr.DataArray:
        """Probabilities, dimensions ``(object, class)``."""
        return xr.DataArray(
            np.exp(self.log_probabilities),
            dims=("object", "class"),
            coords={"object": self.ids, "class": list(self.classes)},
            name="probabilities",
        )

    def log_prob(self, codes: np.ndarray | Sequence[str]) -> xr.DataArray:
        """Log-probability of one class for each object.

        Args:
            codes: integer codes or names, shape ``(object,)``.

        Raises:
            SbiDaError: a class that is none, or not one for each object.
        """
        chosen = self._codes(codes)
        values = np.take_along_axis(self.log_probabilities, chosen[:, None], 1)[:, 0]
        return xr.DataArray(values, dims="object", coords={"object": self.ids}, name="log_prob")

    def sample(self, n: int = 1000, seed: int = 0) -> xr.Dataset:
        """Draw classes.

        Returns:
            One variable of integer codes, dimensions ``(object, draw)``, whose attribute ``classes`` names them.

        Raises:
            SbiDaError: fewer draws than one.
        """
        if n < 1:
            raise SbiDaError(f"draws must be at least 1, not {n}")
        cumulative = np.exp(self.log_probabilities).cumsum(1)
        codes = np.empty((len(self), n), np.int64)
        for i, (identifier, steps) in enumerate(zip(self.ids.tolist(), cumulative, strict=True)):
            uniform = object_generator(identifier, seed).random(n) * steps[-1]
            codes[i] = np.searchsorted(steps, uniform, side="right")  # right: an impossible class is never drawn
        variable = (("object", "draw"), codes, {"classes": list(self.classes)})
        return xr.Dataset({self.name: variable}, coords={"object": self.ids, "draw": np.arange(n)}, attrs={"seed": seed})

    def under(self, fractions: Mapping[str, float] | np.ndarray | ClassFractions) -> "ClassPosterior":
        """The posterior under other fractions of the classes, by Bayes' theorem.

        Args:
            fractions: by name (every class), in the order of the codes, or as estimated by :meth:`population`.

        Raises:
            SbiDaError: fractions that are none, or a class that was absent under the present ones.
            UnknownNameError: a class this posterior does not know.
        """
        if isinstance(fractions, ClassFractions):
            target = fractions.fractions
        elif isinstance(fractions, Mapping):
            for key in fractions:
                if key not in self.classes:
                    raise UnknownNameError("class", key, list(self.classes))
            missing = [k for k in self.classes if k not in fractions]
            if missing:
                raise SbiDaError(f"no fraction given for {', '.join(missing)}: give one for every class")
            target = np.array([fractions[k] for k in self.classes], float)
        else:
            target = np.asarray(fractions, float)
        probabilities = correct(np.exp(self.log_probabilities), self.fractions, target)
        with np.errstate(divide="ignore"):  # a class that cannot occur has log-probability minus infinity
            return replace(self, log_probabilities=np.log(probabilities), fractions=target)

    def population(
        self,
        source_probabilities: np.ndarray | None = None,
        source_labels: np.ndarray | None = None,
        replicates: int = 200,
        seed: int = 0,
    ) -> ClassFractions:
        """Fractions of the classes among these objects, with uncertainties.

        By maximum likelihood from the probabilities, which must be calibrated; with labelled source objects, by their confusion instead.

        Args:
            source_probabilities: of labelled source objects not trained on, under :attr:`fractions`, shape ``(n, class)``.
            source_labels: their codes, shape ``(n,)``.
            replicates: bootstrap resamples.
            seed: of the resampling.

        Raises:
            SbiDaError: labels without probabilities or the other way about, or arrays that do not fit.
        """
        own = np.exp(self.log_probabilities)
        if (source_probabilities is None) != (source_labels is None):
            raise SbiDaError("fractions by confusion need both the probabilities and the labels of source objects")
        if source_probabilities is None or source_labels is None:
            return label_shift_em(own, self.fractions, replicates, seed)
        return bbse(source_probabilities, source_labels, own, replicates, seed)

    def given(self, **fixed: Any) -> "ClassPosterior":
        """Refused: a class posterior has one parameter.

        Raises:
            SbiDaError: always.
        """
        raise SbiDaError(
            f"cannot hold {', '.join(fixed) or 'nothing'} fixed: a class posterior has one parameter, {self.name}; leave out given(), "
            "or change the fractions of the classes by under()"
        )

    def summary(self) -> xr.Dataset:
        """Most probable class, its probability, the entropy [nats] and all probabilities of each object."""
        probabilities = self.probabilities()
        p = probabilities.values
        best = p.argmax(1)
        names = np.array(self.classes, dtype=np.str_)
        out = xr.Dataset({"probabilities": probabilities})
        out["most_probable"] = ("object", names[best])
        out["probability"] = ("object", p[np.arange(len(p)), best])
        out["entropy"] = ("object", -xlogy(p, p).sum(1), {"unit": "nat"})
        return out

    def columns(self) -> dict[str, np.ndarray]:
        """The same as columns of a table, each of shape ``(object,)``.

        Returns:
            ``<name>`` (the most probable class), ``<name>_probability``, ``<name>_entropy`` [nats] and ``<name>_p_<class>``.
        """
        told = self.summary()
        p = told["probabilities"].values
        found = {self.name: told["most_probable"].values, f"{self.name}_probability": told["probability"].values}
        found[f"{self.name}_entropy"] = told["entropy"].values
        return found | {f"{self.name}_p_{c}": p[:, k] for k, c in enumerate(self.classes)}

    def _codes(self, codes: np.ndarray | Sequence[str]) -> np.ndarray:
        """Integer codes of classes given by code or name."""
        given = np.asarray(codes)
        if given.shape != (len(self),):
            raise SbiDaError(f"one class for each of {len(self)} objects is needed, got shape {given.shape}")
        if given.dtype.kind in "iu":
            if not ((given >= 0) & (given < len(self.classes))).all():
                raise SbiDaError(f"class codes run from 0 to {len(self.classes) - 1}, got {given.min()} to {given.max()}")
            return given.astype(np.int64)
        known = {k: i for i, k in enumerate(self.classes)}
        for value in given.tolist():
            if value not in known:
                raise UnknownNameError("class", str(value), list(self.classes))
        return np.array([known[k] for k in given.tolist()], np.int64)
