"""The camera of a survey as its card states it: bands, pixels, point-spread function, noise, and how its images are shown."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Display", "ImageBand", "Imaging"]


class _Card(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageBand(_Card):
    """One passband of a camera.

    Attributes:
        name: short name, unique within the survey.
        wavelength: pivot wavelength in micron.
        zero_point: AB magnitude of one unit of flux (22.5: nanomaggies).
        psf_fwhm: full width at half maximum of the point-spread function, arcsec.
        psf_scatter: standard deviation of its logarithm among objects, dex.
        noise: standard deviation of the sky in one pixel, units of flux; zero for noise-free simulations.
        noise_scatter: standard deviation of its logarithm among objects, dex.
        gain: electrons per unit of flux, for the photon noise of the source; None: none is added.
    """

    name: str
    wavelength: float = Field(gt=0)
    zero_point: float = 22.5
    psf_fwhm: float = Field(ge=0)
    psf_scatter: float = Field(0.0, ge=0)
    noise: float = Field(ge=0)
    noise_scatter: float = Field(0.0, ge=0)
    gain: float | None = Field(None, gt=0)


class Display(_Card):
    """Colour composites after Lupton et al. (2004, PASP 116, 133), as image servers give them: bytes, not fluxes.

    Attributes:
        kind: the only one so far.
        softening: Q, how fast the scale turns from linear to logarithmic.
        stretch: flux at which the linear scale would saturate.
        scales: factors on the bands before they are joined, in the order of the bands.
    """

    kind: Literal["lupton"] = "lupton"
    softening: float = Field(8.0, gt=0)
    stretch: float = Field(gt=0)
    scales: tuple[float, ...] = ()


class Imaging(_Card):
    """A survey's images.

    Attributes:
        bands: in the order in which arrays hold them; of a colour composite red, green, blue.
        pixel_scale: arcsec.
        size: pixels on a side.
        psf: profile of the point-spread function.
        beta: slope of a Moffat profile.
        display: images are colour composites (0 to 1, or bytes) made this way; None: calibrated fluxes.
    """

    bands: tuple[ImageBand, ...] = Field(min_length=1)
    pixel_scale: float = Field(gt=0)
    size: int = Field(ge=8)
    psf: Literal["moffat", "gaussian"] = "moffat"
    beta: float = Field(3.0, gt=1)
    display: Display | None = None

    @model_validator(mode="after")
    def _check(self) -> "Imaging":
        names = self.band_names
        if len(set(names)) != len(names):
            raise ValueError("band names must be unique")
        if self.display is not None and len(self.bands) != 3:
            raise ValueError(f"a colour composite has three bands, not {len(names)}")
        if self.display is not None and self.display.scales and len(self.display.scales) != 3:
            raise ValueError("display.scales needs one factor a band")
        return self

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the bands, in order."""
        return tuple(band.name for band in self.bands)
