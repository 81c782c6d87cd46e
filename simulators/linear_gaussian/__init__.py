r"""A linear-Gaussian toy with an exact posterior under every pattern of missing modalities.

.. math:: \theta\sim N(0, I_3),\qquad x_k = A_k\theta + \sigma_k\,\varepsilon,\quad k = 1\dots 4

Given a set S of modalities the posterior is Gaussian with precision :math:`I + \sum_{k\in S} A_k^\top A_k/\sigma_k^2`.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from pydantic import Field

from sbi_da.distributions import Normal
from sbi_da.errors import UnknownNameError
from sbi_da.prior import Prior
from sbi_da.simulators import Parameter, Simulator
from sbi_da.surveys import Channel, Noise, Survey

__all__ = ["SIMULATOR", "LinearGaussian"]

NAMES = ("theta_1", "theta_2", "theta_3")
REACH = 8.0


class LinearGaussian(Simulator):
    """Four surveys of two channels each look at three parameters.

    Args:
        noise: standard deviation of every channel.
        seed: draws the four matrices.
    """

    parameters = tuple(Parameter(n, "", "standard normal", (-REACH, REACH), rf"$\theta_{n[-1]}$") for n in NAMES)

    def __init__(self, noise: Annotated[float, Field(gt=0)] = 0.5, seed: Annotated[int, Field(ge=0)] = 0) -> None:
        self.noise = noise
        rng = np.random.default_rng(seed)
        self.matrices = {f"modality_{k}": rng.standard_normal((2, len(NAMES))) / 1.2 for k in "abcd"}

    @property
    def prior(self) -> Prior:  # noqa: D102
        return Prior({n: Normal(mean=0, sd=1, low=-REACH, high=REACH) for n in NAMES})

    def surveys(self) -> tuple[Survey, ...]:  # noqa: D102
        law = Noise(points=self.noise, scatter=0.0)
        return tuple(
            Survey(
                name=name, title=f"Linear view {name[-1]}", reference="toy",
                channels=tuple(
                    Channel(
                        name=f"{name}_{row}", kind="scalar", unit="", column=f"{name}_{row}",
                        error_column=f"{name}_{row}_error", noise=law,
                    )
                    for row in (0, 1)
                ),
            )
            for name in self.matrices
        )

    def at(self, theta: Mapping[str, np.ndarray], rng: np.random.Generator) -> "_Views":  # noqa: D102
        stacked = np.stack([np.asarray(theta[n], float) for n in NAMES], axis=-1)
        return _Views({name: stacked @ matrix.T for name, matrix in self.matrices.items()})

    def exact_posterior(self, seen: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Mean ``(3,)`` and covariance ``(3, 3)`` given the values ``(2,)`` of some modalities."""
        precision, linear = np.eye(len(NAMES)), np.zeros(len(NAMES))
        for name, value in seen.items():
            matrix = self.matrices[name]
            precision = precision + matrix.T @ matrix / self.noise**2
            linear = linear + matrix.T @ np.asarray(value) / self.noise**2
        covariance = np.linalg.inv(precision)
        return covariance @ linear, covariance

    def patterns(self) -> Sequence[tuple[str, ...]]:
        """The 16 subsets of modalities, the empty one first."""
        names = tuple(self.matrices)
        return [tuple(n for i, n in enumerate(names) if code >> i & 1) for code in range(2 ** len(names))]


class _Views:
    def __init__(self, values: Mapping[str, np.ndarray]) -> None:
        self._values = values

    def signal(self, channel: Channel) -> np.ndarray:
        name, _, row = channel.name.rpartition("_")
        if name not in self._values or row not in ("0", "1"):
            known = [f"{view}_{i}" for view in self._values for i in (0, 1)]
            raise UnknownNameError("channel", channel.name, known, "which this toy can send")
        return self._values[name][:, int(row)]


SIMULATOR = LinearGaussian
