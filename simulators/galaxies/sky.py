"""The galaxies of :class:`~sbi_da.simulators.galaxies.simulator.Galaxies` as surveys see them: magnitudes and images."""

from collections.abc import Mapping

import numpy as np

from sbi_da.errors import SbiDaError
from sbi_da.surveys.card import Channel, Survey

from .colours import channel_magnitude, relative_flux
from .components import Anatomy
from .neighbours import Neighbours
from .rendering import Field

__all__ = ["GalaxySky"]


class GalaxySky:
    """Noise-free signals of a set of galaxies; made by :meth:`Galaxies.at`.

    Args:
        theta: parameters, each ``(object,)``.
        anatomy: what the galaxies are made of.
        neighbours: other sources in the field; seen in images, not in magnitudes.
    """

    def __init__(self, theta: Mapping[str, np.ndarray], anatomy: Anatomy, neighbours: Neighbours) -> None:
        self.theta = theta
        self.anatomy = anatomy
        self.neighbours = neighbours

    def __len__(self) -> int:
        return len(self.theta["magnitude"])

    def signal(self, channel: Channel) -> np.ndarray:
        """Total magnitude in ``channel``'s system at its wavelength, shape ``(object,)``, float64.

        Raises:
            SbiDaError: a channel that is no magnitude, or beyond the wavelengths known.
        """
        if channel.kind != "magnitude" or channel.wavelength is None:
            raise SbiDaError(f"channel {channel.name!r}: galaxies send magnitudes and images, no {channel.kind}")
        total = np.zeros(len(self))
        for rows in self.anatomy.rows:
            total += np.bincount(rows.object, rows.share * relative_flux(rows.colour, channel.wavelength), len(self))
        return channel_magnitude(self.theta["magnitude"], total, channel)

    def image(self, survey: Survey, rng: np.random.Generator) -> np.ndarray:
        """Noise-free images, shape ``(object, band, y, x)``, float32, in the flux units of each band's zero point.

        Args:
            survey: a survey with images.
            rng: draws the seeing of each object, good or bad in all bands alike.

        Raises:
            SbiDaError: a survey without images, or GalSim missing.
        """
        instrument = survey.image
        if instrument is None:
            raise SbiDaError(f"survey {survey.name!r} takes no images: its card needs an image section")
        bands = instrument.bands
        fwhm = np.array([b.psf_fwhm for b in bands]) * np.ones((len(self), 1))
        scatter = np.array([b.psf_scatter for b in bands])
        if scatter.any():
            fwhm = fwhm * 10 ** (scatter * rng.standard_normal((len(self), 1)))
        images = np.empty((len(self), len(bands), instrument.size, instrument.size), np.float32)
        if not len(self):
            return images
        field = Field(instrument, fwhm)
        sources = self.neighbours.added_to(self.anatomy, self.theta["magnitude"], instrument.size * instrument.pixel_scale)
        edges = [np.searchsorted(rows.object, np.arange(len(self) + 1)) for rows in sources.rows]
        flux_r = [rows.share * 10 ** (-0.4 * self.theta["magnitude"][rows.object]) for rows in sources.rows]
        light = [
            np.stack([10 ** (0.4 * b.zero_point) * relative_flux(rows.colour, b.wavelength) * share for b in bands], axis=1)
            for rows, share in zip(sources.rows, flux_r, strict=True)
        ]

        for i in range(len(self)):
            own = [slice(int(e[i]), int(e[i + 1])) for e in edges]
            flux = [f[s] for f, s in zip(light, own, strict=True)]
            images[i] = field.draw(sources, own, flux, fwhm[i], not scatter.any())
        return images
