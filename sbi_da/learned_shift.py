"""What a correction adds to a simulator's signals, told channel by channel, so that it can be doubted before it is believed."""

from dataclasses import dataclass

import numpy as np

from sbi_da.corrected import CorrectedSimulator
from sbi_da.layout import Layout

__all__ = ["LearnedShift"]


@dataclass(frozen=True)
class LearnedShift:
    """Shift of every channel at the objects it was learned from, real minus simulated.

    Attributes:
        channels: their names, ``survey.channel``.
        units: of each channel.
        shift: as expected at each object, shape ``(object, channel)``; one row of zeros where no shift was found.
        unknown: its standard deviation, up to the heavier tails of the law, same shape.
        scatter: among objects alike that the simulator lacks, shape ``(channel,)``; without labels also what cannot be seen of the shift.
    """

    channels: tuple[str, ...]
    units: tuple[str, ...]
    shift: np.ndarray
    unknown: np.ndarray
    scatter: np.ndarray

    @classmethod
    def of(cls, corrected: CorrectedSimulator, layout: Layout) -> "LearnedShift":
        """Of a correction learned for a layout."""
        found = corrected.discrepancy
        inputs = np.zeros((1, 0)) if found.processes is None else found.processes.x.numpy()
        own = found.scatter @ found.scatter.T
        factor = np.ones(len(inputs)) if found.inflation is None else found.inflation(inputs)
        unknown = np.diagonal(found.covariance(inputs) - own, axis1=-2, axis2=-1) if found.processes else np.zeros((1, len(own)))
        names = tuple(f"{survey.name}.{channel.name}" for survey in layout.surveys for channel in survey.channels)
        return cls(
            names, tuple(c.unit for c in layout.channels), found.expected(inputs),
            np.sqrt(factor[:, None] * np.maximum(unknown, 0.0)), np.sqrt(np.median(factor) * np.diagonal(own)),
        )

    def to_dict(self) -> dict[str, dict[str, float | str]]:
        """By channel, in its unit: median shift, its 16 and 84 % quantiles over objects, median standard deviation, scatter."""
        low, middle, high = np.percentile(self.shift, [16, 50, 84], axis=0)
        unknown = np.median(self.unknown, axis=0)
        return {
            name: {"shift": float(middle[k]), "q16": float(low[k]), "q84": float(high[k]), "unknown": float(unknown[k]),
                   "scatter": float(self.scatter[k]), "unit": self.units[k]}
            for k, name in enumerate(self.channels)
        }
