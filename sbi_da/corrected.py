"""A simulator corrected by what real objects of known parameters say about it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from sbi_da.alignment.discrepancy import Discrepancy, fit_discrepancy
from sbi_da.alignment.explanations import Hypotheses
from sbi_da.layout import Layout, Observations
from sbi_da.prior import Prior
from sbi_da.records import OBSERVED
from sbi_da.simulators import Simulator, Sky
from sbi_da.surveys import Channel, Survey

__all__ = ["CorrectedSimulator", "Explained", "Inputs", "correct"]

REFERENCE = 5000
"""Prior draws that set the scale of the inputs."""
MODEL_ERROR = 0.03
"""Scatter [mag] allowed for when the likelihood of a draw is divided out."""
LARGEST_RATIO = 10.0
"""Logarithm of the largest ratio of weights that this may bring."""


class CorrectedSimulator(Simulator):
    """The simulator with a discrepancy added to its signals.

    Args:
        simulator: what is corrected.
        discrepancy: shift and scatter of ``channels``.
        inputs: maps parameters to what the discrepancy depends on.
        channels: in the order of the discrepancy's columns.
    """

    def __init__(
        self, simulator: Simulator, discrepancy: Discrepancy, inputs: "Inputs", channels: Sequence[Channel]
    ) -> None:
        self.base, self.discrepancy, self.inputs = simulator, discrepancy, inputs
        self.channels = tuple(channels)
        self.parameters, self.derived = simulator.parameters, simulator.derived

    @property
    def prior(self) -> Prior:  # noqa: D102
        return self.base.prior

    def surveys(self) -> tuple[Survey, ...]:  # noqa: D102
        return self.base.surveys()

    def derive(self, theta: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:  # noqa: D102
        return self.base.derive(theta)

    def without_offsets(self) -> "CorrectedSimulator":  # noqa: D102
        return CorrectedSimulator(self.base.without_offsets(), self.discrepancy, self.inputs, self.channels)

    def offset_sd(self, channel: Channel) -> float:  # noqa: D102
        return self.base.offset_sd(channel)

    def at(self, theta: Mapping[str, np.ndarray], rng: np.random.Generator) -> "_CorrectedSky":  # noqa: D102
        sky = self.base.at(theta, rng)
        shift = self.discrepancy.sample(self.inputs(theta), rng)
        return _CorrectedSky(sky, {c: shift[:, k] for k, c in enumerate(self.channels)})


class _CorrectedSky:
    def __init__(self, sky: Sky, shift: Mapping[Channel, np.ndarray]) -> None:
        self._sky, self._shift = sky, shift

    def signal(self, channel: Channel) -> np.ndarray:
        signal = self._sky.signal(channel)
        return signal + self._shift[channel] if channel in self._shift else signal


class Inputs:
    """What a discrepancy may depend on: normal ranks, within the prior, of parameters and derived quantities.

    Args:
        simulator: its prior and derived quantities.
        names: which of them; all by default.
        seed: of the prior draws that define the ranks.
    """

    def __init__(self, simulator: Simulator, names: Sequence[str] | None = None, seed: int = 0) -> None:
        self.simulator = simulator
        theta = simulator.prior.sample(REFERENCE, np.random.default_rng(seed))
        everything = {**theta, **simulator.derive(theta)}
        self._sorted = {k: np.sort(everything[k]) for k in names or everything}

    def __call__(self, theta: Mapping[str, np.ndarray]) -> np.ndarray:
        """Shape ``(object, input)``."""
        everything = {**theta, **self.simulator.derive(theta)}
        levels = (np.arange(REFERENCE) + 0.5) / REFERENCE
        return np.stack([ndtri(np.interp(everything[k], known, levels)) for k, known in self._sorted.items()], axis=1)


@dataclass(frozen=True)
class Explained:
    """Real objects with what the simulator offers to explain them; arrays as in :func:`fit_discrepancy`."""

    inputs: Inputs
    hypotheses: Hypotheses
    value: np.ndarray
    noise: np.ndarray
    seen: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(
        cls, simulator: Simulator, layout: Layout, observed: Observations, theta: Mapping[str, np.ndarray],
        names: Sequence[str] | None = None, nuisances: int = 64, seed: int = 0, posterior: bool = False,
    ) -> "Explained":
        """Signals of the simulator at the parameters objects may have.

        Args:
            simulator: what explains.
            layout: channels.
            observed: what was measured.
            theta: parameters of the simulator's prior, each of shape ``(object, draw)``: one draw where they are known exactly.
            names: what a discrepancy may depend on, among parameters and derived quantities; all by default.
            nuisances: skies (companions, discs, offsets) tried for an object.
            seed: of all draws.
            posterior: whether the parameters are draws given labels and measurements. Their likelihood under the simulator as it is
                is then divided out, or it would count twice and hold every correction back.
        """
        inputs = Inputs(simulator, names, seed)
        n, draws = next(iter(theta.values())).shape
        repeats = max(1, nuisances // draws)
        flat = {k: np.repeat(v, repeats, axis=1).ravel() for k, v in theta.items()}
        sky = simulator.at(flat, np.random.default_rng(seed))
        signal = np.stack([sky.signal(c) for c in layout.channels], 1).reshape(n, draws * repeats, len(layout.channels))
        known = inputs({k: v.ravel() for k, v in theta.items()}).reshape(n, draws, -1)
        floor = np.array([c.noise.floor for c in layout.channels])
        scale = np.array([0.1 if c.kind == "parallax" else 1.0 for c in layout.channels])
        seen, noise = observed.state == OBSERVED, np.hypot(observed.error, floor)
        weight = np.zeros(signal.shape[:2])
        if posterior:
            spread = np.hypot(noise, MODEL_ERROR * scale)[:, None]
            distance = np.where(seen[:, None], (np.where(seen, observed.value, 0.0)[:, None] - signal) / spread, 0.0)
            fit = -0.5 * np.square(distance).sum(-1).reshape(n, draws, repeats)
            known_already = np.logaddexp.reduce(fit, axis=2) - np.log(repeats)
            best = known_already.max(1, keepdims=True)
            weight = -np.repeat(np.maximum(known_already, best - LARGEST_RATIO), repeats, axis=1)
        return cls(inputs, Hypotheses(known, signal, weight), observed.value, noise, seen, scale)

    def score(self, discrepancy: Discrepancy) -> np.ndarray:
        """How well a discrepancy explains what was measured, log-density per object."""
        return discrepancy.score(self.hypotheses, self.value, self.noise, self.seen)


def correct(
    simulator: Simulator, layout: Layout, explained: Explained, folds: int = 5, sampled: bool = False,
    groups: np.ndarray | None = None, seed: int = 0,
) -> CorrectedSimulator:
    """Learn the discrepancy from explained real objects (options as in :func:`fit_discrepancy`) and put it in place."""
    found = fit_discrepancy(
        explained.hypotheses, explained.value, explained.noise, explained.seen, explained.scale, folds=folds, sampled=sampled,
        groups=groups, seed=seed,
    )
    return CorrectedSimulator(simulator, found, explained.inputs, layout.channels)
