r"""Simulators and simulations of `sbi` here.

`sbi` knows a prior over a vector :math:`\theta` and a function from :math:`\theta` to a vector :math:`x`, noise included. Here that is a
:class:`~sbi_da.simulators.Simulator` whose surveys record the entries of :math:`x` as they are. Named in groups, the entries belong
to several surveys, and a missing-data law then decides in training which of them are there: one network answers for every subset.
The network sees values as they are, so :math:`x` should be of order one to ten: divide within the simulator where it is not.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sbi_da.errors import SbiDaError, UnknownNameError
from sbi_da.prior import Prior
from sbi_da.records import ABSENT, OBSERVED, Measurements, Records
from sbi_da.simulators import Parameter, Simulator
from sbi_da.surveys import Channel, Noise, Survey
from sbi_da.torch_prior import prior_from_torch

__all__ = ["SbiSimulator"]

Simulate = Callable[[Tensor], Any]


class SbiSimulator(Simulator):
    """A simulator and a prior as `sbi` takes them.

    Args:
        simulate: from parameters ``(object, parameter)``, float32, to data ``(object, entry)``, as sbi's ``process_simulator`` returns
            it. None where there are simulations only, see :meth:`records`; ``channels`` must then be given.
        prior: of ``torch.distributions`` or sbi, see :func:`~sbi_da.torch_prior.prior_from_torch`.
        names: of the parameters; ``theta_0``, ``theta_1``, ... by default.
        channels: names of the entries of x, in order, by survey where they belong to several, such as ``{"left": ["a", "b"], "right":
            ["c"]}``. By default ``x_0``, ``x_1``, ... of one survey ``x``; the simulator then runs once, for their number.
        error: quoted for every entry, in its unit. Nothing of this size is added to x; alignment takes it for the part of the noise of
            real measurements that the simulator did not know.

    Raises:
        SbiDaError: an unsupported prior; names that are too many, too few or not unique.
    """

    def __init__(
        self,
        simulate: Simulate | None,
        prior: Any,
        names: Sequence[str] | None = None,
        channels: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        error: float = 1e-6,
    ) -> None:
        self.simulate = simulate
        self._prior = prior_from_torch(prior, names)
        self.parameters = tuple(Parameter(n, "", "parameter of an sbi prior", self._prior.bounds(n), n) for n in self._prior.names)
        if channels is None:
            channels = [f"x_{i}" for i in range(self._width())]
        groups = dict(channels) if isinstance(channels, Mapping) else {"x": channels}
        self.channels = tuple(name for group in groups.values() for name in group)
        if not self.channels or len(set(self.channels)) != len(self.channels):
            raise SbiDaError(f"channels: give every entry of x a name of its own, not {', '.join(self.channels) or 'none'}")
        law = Noise(points=error, scatter=0.0, added=False)
        self._surveys = tuple(
            Survey(
                name=survey, title=survey, reference="an sbi simulator",
                channels=tuple(
                    Channel(name=n, kind="scalar", unit="", column=n, error_column=f"{n}_error", noise=law) for n in group
                ),
            )
            for survey, group in groups.items()
        )

    @property
    def prior(self) -> Prior:  # noqa: D102
        return self._prior

    def surveys(self) -> tuple[Survey, ...]:  # noqa: D102
        return self._surveys

    def at(self, theta: Mapping[str, np.ndarray], rng: np.random.Generator) -> "_Entries":
        """What the simulator returns; the generator seeds torch, NumPy and ``random`` while it runs.

        Raises:
            SbiDaError: data of another shape, or not finite.
        """
        x = self._run(np.stack([np.asarray(theta[n], float) for n in self._prior.names], -1), rng)
        if x.shape[1] != len(self.channels):
            raise SbiDaError(f"the simulator returns {x.shape[1]} entries and {len(self.channels)} are named: {', '.join(self.channels)}")
        lost = int((~np.isfinite(x)).any(1).sum())
        if lost:
            raise SbiDaError(
                f"the simulator returns NaN or infinity for {lost} of {len(x)} draws: simulate beforehand and train on records(theta, x)"
            )
        return _Entries(dict(zip(self.channels, x.T, strict=True)))

    def records(self, theta: Tensor | np.ndarray, x: Tensor | np.ndarray) -> Records:
        """Simulations made elsewhere as records to train on or to test with.

        Args:
            theta: parameters, shape ``(object, parameter)``.
            x: data, shape ``(object, entry)``; NaN is not observed. Where there is any, no missing-data law is applied to the records
                again, and objects of which all is NaN are left out of training and tests, as failed simulations.

        Raises:
            SbiDaError: arrays of other shapes, or infinite.
        """
        known, seen = (np.asarray(torch.as_tensor(a).detach().cpu().double()) for a in (theta, x))
        shapes = (len(known), len(self._prior.names)), (len(known), len(self.channels))
        if (known.shape, seen.shape) != shapes:
            raise SbiDaError(f"theta and x have shapes {known.shape} and {seen.shape}: {shapes[0]} and {shapes[1]} are needed")
        if not np.isfinite(known).all() or np.isinf(seen).any():
            raise SbiDaError("theta must be finite, and x finite or, where it is not observed, NaN")
        state = np.where(np.isnan(seen), ABSENT, OBSERVED).astype(np.uint8)
        measured, start = {}, 0
        for survey in self._surveys:
            mine = slice(start, start := start + len(survey.channels))
            error = np.broadcast_to(survey.channels[0].noise.sigma(np.zeros(1)), seen[:, mine].shape)
            units = ("",) * len(survey.channels)
            measured[survey.name] = Measurements(tuple(survey.channel_names), units, seen[:, mine], error, state[:, mine])
        attrs = {"domain": "simulated", "missing": "as_given" if (state == ABSENT).any() else "nothing"}
        parameters = dict(zip(self._prior.names, known.T, strict=True))
        return Records.build(measured, parameters=parameters, columns={"emptied": (state == ABSENT).all(1)}, attrs=attrs)

    def _width(self) -> int:
        if self.simulate is None:
            raise SbiDaError("channels: name the entries of x, there is no simulator to count them")
        rng = np.random.default_rng(0)
        return self._run(np.stack(list(self._prior.sample(2, rng).values()), -1), rng).shape[1]

    def _run(self, theta: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Data, shape ``(object, entry)``, float64, for parameters ``(object, parameter)``."""
        if self.simulate is None:
            raise SbiDaError("there are simulations only, and no simulator to run: use records(theta, x)")
        with seeded(int(rng.integers(2**31))), torch.no_grad():
            x = torch.as_tensor(self.simulate(torch.from_numpy(theta).float()))
        if x.ndim != 2 or len(x) != len(theta):
            raise SbiDaError(
                f"the simulator returns shape {tuple(x.shape)} for parameters of shape {theta.shape}: it must return one row of "
                "numbers for each (sbi's process_simulator sees to batches; images and series must be summarised or flattened)"
            )
        return x.cpu().double().numpy()


class _Entries:
    """Columns of x by name."""

    def __init__(self, values: Mapping[str, np.ndarray]) -> None:
        self._values = values

    def signal(self, channel: Channel) -> np.ndarray:
        if channel.name not in self._values:
            raise UnknownNameError("channel", channel.name, list(self._values), "which this simulator returns")
        return self._values[channel.name]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators of torch, NumPy and Python, and put them back afterwards."""
    states = np.random.get_state(), random.getstate()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(states[0])
            random.setstate(states[1])
