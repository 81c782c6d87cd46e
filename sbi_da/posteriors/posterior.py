"""The posterior an estimator returns: samples, densities, marginals, conditionals and summaries, as xarray."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from sbi_da.distributions import Law, distribution_from_dict
from sbi_da.errors import SbiDaError, UnknownNameError
from sbi_da.importance import low_ess
from sbi_da.posteriors.asking import Answering, Predicted, answers, asked_log_prob, sample_asked
from sbi_da.posteriors.conditioning import sample_given
from sbi_da.posteriors.noise import object_noise, resample
from sbi_da.posteriors.recalibration import RecalibratedHead
from sbi_da.prior import Prior

__all__ = ["Head", "Posterior", "objects_per_call"]

OVERSAMPLING = 4
"""Draws from which one is kept under another prior."""
QUANTILES = (0.05, 0.16, 0.5, 0.84, 0.95)
ROWS, MANY_ROWS = 4096, 65_536
"""Draws per network call: few enough to stay in the cache of a processor, and enough to keep a graphics processor busy."""
TOGETHER = 64
"""Objects per network call are a multiple of it: what does not fill a vector register is computed by other instructions, with other last
digits, so that an answer would depend on the place of its object."""


def objects_per_call(draws: int, device: torch.device) -> int:
    """Objects per network call when each has so many draws."""
    return max(TOGETHER, _rows(device) // draws // TOGETHER * TOGETHER)


def draws_per_call(objects: int, draws: int, device: torch.device) -> int:
    """Draws per network call of so many objects."""
    calls = -(-objects * draws // (2 * _rows(device)))
    return -(-draws // max(1, calls))


def _rows(device: torch.device) -> int:
    return ROWS if device.type == "cpu" else MANY_ROWS


class Head(Protocol):
    """A conditional law over normal scores; leading dimensions of scores or noise broadcast with those of contexts."""

    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """Log-density."""
        ...

    def transform(self, noise: Tensor, context: Tensor) -> Tensor:
        """Standard normal noise to draws."""
        ...


@dataclass(frozen=True)
class Posterior:
    """Posteriors of a set of objects under the training prior.

    Attributes:
        head: the law over normal scores.
        context: encoded objects, shape ``(object, context)``.
        prior: maps normal scores to parameters.
        ids: identifiers; an object's draws depend on its identifier and the seed only.
        units: unit of each parameter and derived quantity.
        derive: computes derived quantities from draws.
        derived: names of those to report.
        names: parameters reported (all unless :meth:`marginal` was called).
        fixed: parameters held by :meth:`given` at a value, or at one for each object, shape ``(object,)``.
        target: prior that replaces the training prior, see :meth:`under`.
        predicted: channels that the head can predict; None: none.
    """

    head: Head
    context: Tensor
    prior: Prior
    ids: np.ndarray
    units: Mapping[str, str] = field(default_factory=dict)
    derive: Callable[[Mapping[str, np.ndarray]], Mapping[str, np.ndarray]] | None = None
    derived: tuple[str, ...] = ()
    names: tuple[str, ...] | None = None
    fixed: Mapping[str, float | np.ndarray] = field(default_factory=dict)
    target: Prior | None = None
    predicted: Predicted | None = None

    def __len__(self) -> int:
        return len(self.context)

    @property
    def reported(self) -> list[str]:
        """Parameters, derived quantities and channels that samples hold."""
        return list(self.names) if self.names is not None else [*self.prior.names, *self.derived]

    def normal_scores(self, n: int, seed: int = 0) -> np.ndarray:
        """Draws in the prior's normal scores, shape ``(object, draw, parameter)``, float32."""
        size = len(self.prior.names)
        noise_size = getattr(self.head, "noise_size", size)
        out = np.empty((len(self), n, size), np.float32)
        device = self.context.device
        step = objects_per_call(n, device)
        with torch.inference_mode():
            for start in range(0, len(self), step):
                rows = slice(start, start + step)
                context = self.context[rows, None]
                noise = torch.from_numpy(object_noise(self.ids[rows], n, noise_size, seed)).to(device)
                each = draws_per_call(len(context), n, device)
                for first in range(0, n, each):
                    some = slice(first, first + each)
                    out[rows, some] = self.head.transform(noise[:, some], context).cpu().numpy()
        return out

    def quantities(self, z: np.ndarray) -> dict[str, np.ndarray]:
        """Parameters and derived quantities of normal scores ``(object, draw, parameter)``, in their own units, ``(object, draw)``."""
        theta = self.prior.from_normal(z)
        return {**theta, **self._derived(theta, np.ones(len(z), bool))} if self.derived else theta

    def sample(self, n: int = 1000, seed: int = 0) -> xr.Dataset:
        """Draw ``n`` samples per object.

        Returns:
            One variable per reported quantity, dimensions ``(object, draw)``, in its own unit; none lies outside the prior. After
            :meth:`given` or :meth:`under` also ``effective_sample_size``; where it is 0 the draws are NaN.
        """
        if n < 1:
            raise SbiDaError(f"draws must be at least 1, not {n}")
        theta, ess = self._theta(n, seed)
        values: dict[str, np.ndarray] = dict(theta)
        if set(self.reported) - set(values):
            values |= self._derived(theta, np.ones(len(self), bool) if ess is None else ess > 0)
        data = {k: (("object", "draw"), values[k], {"units": self._units().get(k, "")}) for k in self.reported}
        out = xr.Dataset(data, coords={"object": self.ids, "draw": np.arange(n)}, attrs={"seed": seed})
        if ess is not None:
            out["effective_sample_size"] = ("object", ess)
            low = ess < low_ess(n)
            if low.any():
                warnings.warn(
                    f"effective sample size below {low_ess(n):g} for {low.sum()} of {len(ess)} objects (lowest "
                    f"{ess.min():.0f}): the condition or the prior lies in the tail of their posteriors, use the draws with care",
                    stacklevel=2,
                )
        return out

    def _theta(self, n: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
        """Draws of parameters, of channels if any are reported, and, where they were weighted, effective sample sizes."""
        if self.target is None:
            channels = self._channels()
            whole = set(self.prior.names) <= set(self.reported) or bool(set(self.derived) & set(self.reported))
            wanted = self.prior.names if whole else self.prior.with_ancestors(k for k in self.reported if k in self.prior.names)
            if (self.fixed or channels or not whole) and answers(self):
                return sample_asked(self, n, seed, wanted, channels)
            if channels:
                raise SbiDaError(f"{self._why()}{channels[0]} cannot be predicted")
            if self.fixed:
                return sample_given(self, n, seed)
            return self.prior.from_normal(self.normal_scores(n, seed)), None
        theta, inner = replace(self, target=None, names=(*self.prior.names, *self._channels()))._theta(OVERSAMPLING * n, seed)
        log_weight = self.target.log_prob(theta) - self.prior.log_prob(theta)
        chosen, ess = resample(np.where(np.isnan(log_weight), -np.inf, log_weight), n, self.ids, seed)
        kept = {k: np.take_along_axis(v, chosen, axis=1) for k, v in theta.items()}
        kept = {k: np.where(ess[:, None] > 0, v, np.nan) for k, v in kept.items()}
        return kept, ess if inner is None else np.minimum(ess, inner)

    def _derived(self, theta: Mapping[str, np.ndarray], valid: np.ndarray) -> dict[str, np.ndarray]:
        if self.derive is None:
            raise SbiDaError(f"derived quantities {', '.join(self.derived)} need the simulator, which is not installed")
        shape = next(iter(theta.values())).shape
        out = {k: np.full(shape, np.nan) for k in self.derived}
        found = self.derive({k: v[valid].reshape(-1) for k, v in theta.items()})
        for name in self.derived:
            out[name][valid] = np.asarray(found[name]).reshape(-1, shape[1])
        return out

    def log_prob(self, theta: Mapping[str, Any]) -> xr.DataArray:
        """Log-density in the parameters' own units, ``-inf`` outside the prior.

        Args:
            theta: every reported parameter that is not known, each of shape ``(object,)`` or ``(object, draw)``.

        Returns:
            Same shape.

        Raises:
            SbiDaError: a density that the head does not have, or a parameter that is missing.
        """
        names = [k for k in self.reported if k not in self.fixed and (self.names is not None or k in self.prior.names)]
        others = [k for k in names if k not in self.prior.names]
        if others or self.target is not None:
            what = f"of {others[0]}" if others else "under another prior"
            raise SbiDaError(f"there is no density {what}: sample it instead")
        whole = not self.fixed and set(names) == set(self.prior.names)
        if not whole and not answers(self):
            raise SbiDaError(
                f"{self._why()}there is no density of marginals or conditionals: sample them, or train with network.head=flow_matching "
                "(network.matching.questions=parameters) or network.head=mixture"
            )
        if not names:
            raise SbiDaError("log_prob: everything that is reported is known, there is no density")
        for name in names:
            if name not in theta:
                raise SbiDaError(f"log_prob needs all of {', '.join(names)}: {name!r} is missing")
        values = {k: np.asarray(theta[k], float) for k in names}
        shape = values[names[0]].shape
        if len(shape) not in (1, 2) or shape[0] != len(self):
            raise SbiDaError(f"theta must have shape (object,) or (object, draw) with {len(self)} objects, not {shape}")
        if not whole:
            found = asked_log_prob(self, {k: v.reshape(len(self), -1) for k, v in values.items()}, names).reshape(shape)
            return self._labelled(found)
        z = self.prior.to_normal(values)
        inside = np.isfinite(z).all(-1)
        scores = torch.from_numpy(np.where(inside[..., None], z, 0.0)).float().reshape(len(self), -1, z.shape[-1])
        out = np.empty(scores.shape[:2])
        device, count = self.context.device, max(1, scores.shape[1])
        step = objects_per_call(count, device)
        with torch.inference_mode():
            for start in range(0, len(self), step):
                rows = slice(start, start + step)
                context = self.context[rows, None]
                each = draws_per_call(len(context), count, device)
                for first in range(0, count, each):
                    some = slice(first, first + each)
                    out[rows, some] = self.head.log_prob(scores[rows, some].to(device), context).cpu().numpy()
        with np.errstate(invalid="ignore"):
            density = out.reshape(shape) + self.prior.log_jacobian(values, np.where(inside[..., None], z, 0.0))
        return self._labelled(np.where(inside, density, -np.inf))

    def _labelled(self, density: np.ndarray) -> xr.DataArray:
        dims = ("object", "draw")[: density.ndim]
        return xr.DataArray(density, dims=dims, coords={"object": self.ids}, name="log_prob")

    def _units(self) -> dict[str, str]:
        return {**self.units, **(dict(zip(self.predicted.names, self.predicted.units, strict=True)) if self.predicted else {})}

    def _why(self) -> str:
        """Why the head does not answer what others of its kind would; empty where it is the kind."""
        if isinstance(self.head, RecalibratedHead):
            return "posteriors recalibrated by labelled objects are known as a whole only: "
        unknown = {p for name in self.fixed for p in self.prior.parents(name)} - set(self.fixed)
        told = unknown and isinstance(self.head, Answering)
        return f"what is given depends on {', '.join(sorted(unknown))}, give it too: " if told else ""

    def _channels(self) -> list[str]:
        """Channels that are reported."""
        return [k for k in self.reported if self.predicted and k in self.predicted.names]

    def marginal(self, names: Sequence[str]) -> "Posterior":
        """The posterior of some of the parameters, derived quantities, or channels that were not measured, as ``survey.channel``.

        Of a channel it is the law of what the survey would measure, noise included, if it detected the object.

        Raises:
            UnknownNameError: none of these.
            SbiDaError: a channel that the head has not learned to predict.
        """
        known = [*self.prior.names, *self.derived, *(self.predicted.names if self.predicted else ())]
        for name in names:
            if name not in known:
                if "." in name and self.predicted is None:
                    raise SbiDaError(
                        f"{name}: this head predicts no channels: train with network.head=flow_matching network.matching.questions=channels"
                    )
                raise UnknownNameError("parameter", name, known)
        if not names:
            raise SbiDaError("marginal: name at least one parameter")
        for name in names:
            if self.predicted and self.predicted.measured is not None and name in self.predicted.names:
                taken = int(self.predicted.measured[:, self.predicted.names.index(name)].sum())
                if taken:
                    raise SbiDaError(f"{name} was measured of {taken} of {len(self)} objects: leave it out of the records to predict it")
        return replace(self, names=tuple(names))

    def given(self, **values: float | np.ndarray) -> "Posterior":
        """The posterior conditional on some parameters being known: by the head if it has learned to answer that, else by resampling.

        Args:
            values: of parameters, one for all objects or one for each, shape ``(object,)``.

        Raises:
            SbiDaError: an unknown or derived parameter, or a value outside the prior.
        """
        for name, value in values.items():
            if name in self.derived:
                raise SbiDaError(f"given {name}: a derived quantity cannot be held; infer it as a parameter")
            low, high = self.prior.bounds(name)
            if np.shape(value) not in ((), (len(self),)):
                raise SbiDaError(f"given {name}: one value, or one for each of {len(self)} objects, not shape {np.shape(value)}")
            wrong = np.ravel(~((np.asarray(value) >= low) & (np.asarray(value) <= high)))
            if wrong.any():
                raise SbiDaError(f"given {name}={np.ravel(value)[wrong][0]}: the prior allows {low:g} to {high:g}")
        fixed = {**self.fixed, **values}
        if len(fixed) == len(self.prior.names) and self.predicted is None:
            raise SbiDaError("given: at least one parameter must stay free")
        return replace(self, fixed=fixed)

    def under(self, **laws: Law | Mapping[str, Any]) -> "Posterior":
        """The posterior under another prior, by importance resampling of draws under the training prior.

        Args:
            laws: by parameter, a law or its plain content, such as ``av={"kind": "exponential", "scale": 0.5, "high": 10}``,
                within the bounds of the one it replaces. Samples then carry ``effective_sample_size``.
        """
        made = {
            k: law if isinstance(law, Law) else distribution_from_dict(law, f"prior.{k}") for k, law in laws.items()
        }
        return replace(self, target=(self.target or self.prior).replaced(made))

    def summary(self, n: int = 1000, seed: int = 0) -> xr.Dataset:
        """Mean, standard deviation and 5, 16, 50, 84, 95 % quantiles, dimensions ``(object, parameter)``, from ``n`` draws."""
        drawn = self.sample(n, seed)[self.reported].to_array("parameter").transpose("object", "parameter", "draw")
        out = xr.Dataset({"mean": drawn.mean("draw"), "sd": drawn.std("draw", ddof=1)})
        for q in QUANTILES:
            out[f"q{round(100 * q):02d}"] = drawn.quantile(q, "draw").drop_vars("quantile")
        out.coords["unit"] = ("parameter", [self._units().get(k, "") for k in self.reported])
        return out

    def arviz(self, n: int = 1000, seed: int = 0) -> xr.DataTree:
        """Samples as ArviZ wants them: group ``posterior`` with dimensions ``(chain, draw, object)``."""
        return xr.DataTree.from_dict({"/posterior": self.sample(n, seed).expand_dims("chain").transpose("chain", "draw", "object")})
