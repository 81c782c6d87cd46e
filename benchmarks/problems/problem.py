"""What a problem is: a simulator, a real instrument, a population."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Literal

import numpy as np

from sbi_da.distributions import Law
from sbi_da.errors import SbiDaError, UnknownNameError
from sbi_da.layout import Layout, Observations
from sbi_da.prior import Prior
from sbi_da.records import OBSERVED, Measurements, NothingMissing, Records
from sbi_da.records.missing import MissingLaw
from sbi_da.simulation import simulate
from sbi_da.simulators import Parameter, Simulator
from sbi_da.surveys import Channel, Noise, Survey

__all__ = ["Population", "Problem", "Toy"]

Population = Literal["real", "simulator"]


class Toy(Simulator):
    """A simulator whose channels are the entries of one vector.

    Args:
        laws: law of each parameter.
        vector: from parameters ``(object, parameter)`` to noise-free signals ``(object, channel)``.
        noise: standard deviation of each channel, shape ``(channel,)``.
        split: names of the surveys and how many of the channels, in order, each of them measures.
    """

    def __init__(
        self, laws: Mapping[str, Law], vector: Callable[[np.ndarray], np.ndarray], noise: np.ndarray, split: Mapping[str, int]
    ) -> None:
        self.parameters = tuple(Parameter(name, "", "parameter of a toy", law.bounds) for name, law in laws.items())
        self.vector, self.noise = vector, np.asarray(noise, float)
        self.columns = [f"{survey}_{k}" for survey, count in split.items() for k in range(count)]
        self._prior, self._split = Prior(laws), dict(split)

    @property
    def prior(self) -> Prior:  # noqa: D102
        return self._prior

    def surveys(self) -> tuple[Survey, ...]:  # noqa: D102
        laws = iter([Noise(points=float(sigma), scatter=0.0) for sigma in self.noise])
        return tuple(
            Survey(
                name=survey, title=survey, reference="toy",
                channels=tuple(
                    Channel(name=c, kind="scalar", unit="", column=c, error_column=f"{c}_error", noise=next(laws))
                    for c in (f"{survey}_{k}" for k in range(count))
                ),
            )
            for survey, count in self._split.items()
        )

    def at(self, theta: Mapping[str, np.ndarray], rng: np.random.Generator) -> "_Columns":  # noqa: D102
        values = self.vector(np.stack([np.asarray(theta[name], float) for name in self.prior.names], -1))
        return _Columns(dict(zip(self.columns, values.T, strict=True)))


class _Columns:
    def __init__(self, values: Mapping[str, np.ndarray]) -> None:
        self._values = values

    def signal(self, channel: Channel) -> np.ndarray:
        if channel.name not in self._values:
            raise UnknownNameError("channel", channel.name, list(self._values), "which this toy can send")
        return self._values[channel.name]


class Problem(ABC):
    """A simulator, a reality and the exact posterior of real objects.

    Args:
        name: short name.
        simulator: the simulator to train on.
        population: law of the parameters of real objects, within the simulator's prior; None: that prior.
        missing: missing-data law, the same in training and in reality.
    """

    def __init__(
        self, name: str, simulator: Toy, population: Prior | None = None, missing: MissingLaw | None = None
    ) -> None:
        self.name, self.simulator = name, simulator
        self.population = population or simulator.prior
        self.missing = missing or NothingMissing()

    @abstractmethod
    def recorded(self, theta: np.ndarray, simulated: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What reality records of objects ``(n, p)`` whose simulated twins have the values ``(n, channel)``, noise included."""

    @abstractmethod
    def log_likelihood(self, seen: Observations, theta: np.ndarray) -> np.ndarray:
        """Log-density, shape ``(n, m)``, of real values under parameters ``(n, m, p)`` inside the prior, real nuisances integrated out."""

    @abstractmethod
    def log_evidence(self, seen: Observations, prior: Prior) -> np.ndarray:
        """Log of the likelihood's mean over ``prior``, shape ``(n,)``."""

    @abstractmethod
    def draw(self, seen: Observations, prior: Prior, draws: int, rng: np.random.Generator) -> np.ndarray:
        """Draws ``(n, draws, p)`` of the posterior under ``prior``."""

    def twins(self, n: int, rng: np.random.Generator) -> tuple[Records, Records]:
        """Simulated and real records of the same ``n`` objects of the real population, with the same noise and the same gaps."""
        theta = self.population.sample(n, rng)
        surveys = self.simulator.surveys()
        simulated = simulate(self.simulator, surveys, n, rng, self.missing, theta=theta)
        values = Layout(surveys).read(simulated).value
        values = self.recorded(np.stack([theta[p] for p in self.simulator.prior.names], -1), values, rng)
        seen, start = {}, 0
        for survey in surveys:
            m = simulated.survey(survey.name)
            part = values[:, start : start + len(m.channels)]
            seen[survey.name] = Measurements(m.channels, m.units, part, m.error, m.state)
            start += len(m.channels)
        attrs = {"domain": "real", "problem": self.name, "missing": simulated.attrs["missing"]}
        return simulated, Records.build(seen, simulated.ids, simulated.parameters, attrs=attrs)

    def real(self, n: int, rng: np.random.Generator) -> Records:
        """``n`` real objects, their parameters with them."""
        return self.twins(n, rng)[1]

    def exact_log_prob(self, real: Records, theta: np.ndarray, population: Population = "real") -> np.ndarray:
        """Log-density of the exact posterior of real objects.

        Args:
            real: ``n`` objects seen by the real instrument.
            theta: parameters, shape ``(n, p)`` or, to ask for several of each object, ``(n, m, p)``; in the order of the prior.
            population: whose law of the parameters is the prior: that of real objects, or the simulator's.

        Returns:
            Shape ``(n,)`` or ``(n, m)``; ``-inf`` outside the prior's support.
        """
        names, seen, prior = self.simulator.prior.names, self._read(real), self._law(population)
        theta = np.asarray(theta, float)
        if theta.ndim not in (2, 3) or (theta.shape[0], theta.shape[-1]) != (len(real), len(names)):
            raise SbiDaError(
                f"{self.name}: theta has shape {theta.shape} and must be (n, p) or (n, m, p) with n = {len(real)} objects and "
                f"p = {len(names)} parameters ({', '.join(names)})"
            )
        asked = theta.reshape(len(real), -1, len(names))
        inside = np.clip(asked, *np.array([prior.bounds(p) for p in names]).T)
        log_prior = prior.log_prob({p: asked[..., i] for i, p in enumerate(names)})
        result = log_prior + self.log_likelihood(seen, inside) - self.log_evidence(seen, prior)[:, None]
        return result.reshape(theta.shape[:-1])

    def exact_sample(
        self, real: Records, draws: int, rng: np.random.Generator, population: Population = "real"
    ) -> np.ndarray:
        """Independent draws of the exact posteriors, shape ``(n, draws, p)``; arguments as for :meth:`exact_log_prob`."""
        return self.draw(self._read(real), self._law(population), draws, rng)

    def _law(self, population: str) -> Prior:
        laws = {"real": self.population, "simulator": self.simulator.prior}
        if population not in laws:
            raise UnknownNameError("population", population, list(laws), "whose law of the parameters is the prior")
        return laws[population]

    def _read(self, real: Records) -> Observations:
        seen = Layout(self.simulator.surveys()).read(real)
        if isinstance(self.missing, NothingMissing) and (seen.state != OBSERVED).any():
            lacking = self.simulator.columns[int((seen.state != OBSERVED).any(0).argmax())]
            raise SbiDaError(f"{self.name}: {lacking} is absent, and the posterior is exact for complete objects only: give all channels")
        return seen
