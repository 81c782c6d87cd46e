"""A simulator corrected by what real objects of known parameters say about it."""

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import ndtri

from sbi_da.alignment.discrepancy import Basis, Discrepancy, Hypotheses, fit_discrepancy
from sbi_da.layout import Layout, Scalars
from sbi_da.prior import Prior
from sbi_da.records import OBSERVED
from sbi_da.simulators import Simulator, Sky
from sbi_da.surveys import Channel, Survey

__all__ = ["CorrectedSimulator", "correct"]

REFERENCE = 5000
"""Prior draws that set the scale of the inputs."""


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
        self.reference = self(theta)

    def __call__(self, theta: Mapping[str, np.ndarray]) -> np.ndarray:
        """Shape ``(object, input)``."""
        everything = {**theta, **self.simulator.derive(theta)}
        levels = (np.arange(REFERENCE) + 0.5) / REFERENCE
        return np.stack([ndtri(np.interp(everything[k], known, levels)) for k, known in self._sorted.items()], axis=1)


def correct(
    simulator: Simulator,
    layout: Layout,
    scalars: Scalars,
    theta: Mapping[str, np.ndarray],
    names: Sequence[str] | None = None,
    nuisances: int = 64,
    seed: int = 0,
) -> CorrectedSimulator:
    """Learn the discrepancy from real objects of known parameters.

    Args:
        simulator: what is corrected.
        layout: channels.
        scalars: what was measured.
        theta: parameters of the simulator's prior, each of shape ``(object, draw)``: one draw where they are known exactly.
        names: what the discrepancy may depend on, among parameters and derived quantities; all by default.
        nuisances: skies (companions, discs, offsets) tried as explanations of an object.
        seed: of all draws.
    """
    rng = np.random.default_rng(seed)
    inputs = Inputs(simulator, names, seed)
    shape = next(iter(theta.values())).shape
    repeats = max(1, nuisances // shape[1])
    flat = {k: np.repeat(v, repeats, axis=1).ravel() for k, v in theta.items()}
    sky = simulator.at(flat, rng)
    signal = np.stack([sky.signal(c) for c in layout.channels], 1).reshape(shape[0], -1, len(layout.channels))
    known = inputs(flat).reshape(*signal.shape[:2], -1)
    seen = scalars.state == OBSERVED
    floor = np.array([c.noise.floor for c in layout.channels])
    scale = np.array([0.1 if c.kind == "parallax" else 1.0 for c in layout.channels])
    found = fit_discrepancy(
        Basis.of(inputs.reference, seed=seed), Hypotheses(known, signal, np.zeros(signal.shape[:2])), scalars.value,
        np.hypot(scalars.error, floor), seen, scale, seed=seed,
    )
    return CorrectedSimulator(simulator, found, inputs, layout.channels)
