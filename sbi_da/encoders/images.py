r"""Images to tokens: one per survey, by an image encoder of its own.

Colour composites enter as they are, fluxes after :math:`\operatorname{arsinh}(f / \sigma)` with :math:`\sigma` the sky noise on the
survey's card, linear in the sky and logarithmic in the galaxy; both then standardised per band. Bands that an object lacks are zeros,
their absence a part of the token; objects without any band never reach the encoder.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from sbi_da.encoders.domain_norm import convert, domains
from sbi_da.encoders.freezing import freeze
from sbi_da.encoders.morphometry import measure, summary_count
from sbi_da.encoders.registry import image_encoder, portable
from sbi_da.surveys import Display, Survey
from sbi_da.surveys.display import decompose

__all__ = ["ImageConfig", "ImageTokens", "Pictures", "runnable"]

WIDEST = 6.0
"""Measured summaries are cut so many scales from the centre."""
Pictures = Mapping[str, tuple[Tensor, Tensor]]
"""Of each survey: pixels ``(object, band, y, x)`` and which bands are there, boolean, ``(object, band)``."""


class ImageConfig(BaseModel):
    """How images are encoded.

    Attributes:
        kind: name of the encoder.
        options: its arguments.
        domain_norm: batch statistics of simulated and of real objects are kept apart.
        frozen: names of the encoder's parts that are not trained.
        measured: what :mod:`sbi_da.encoders.morphometry` measures joins the encoder's features.
    """

    model_config = ConfigDict(extra="forbid")
    kind: str = "compact"
    options: dict[str, Any] = {}
    domain_norm: bool = False
    frozen: list[str] = Field(default_factory=list)
    measured: bool = False


def runnable(config: ImageConfig) -> tuple[ImageConfig, bool]:
    """The config of encoders that run here: a steerable one without escnn in its plain form; and whether that is so."""
    if config.kind != "steerable" or find_spec("escnn") is not None:
        return config, False
    kept = {k: v for k, v in config.options.items() if k in ("group", "width")}
    return config.model_copy(update={"kind": "plain_steerable", "options": kept}), True


class ImageTokens(nn.Module):
    """Tokens of the surveys that have images.

    Args:
        surveys: all surveys of the estimator; those without images get no token.
        config: the encoder, one of its kind for each survey.
        width: token width.
        summary: width of the sum over measurements.
    """

    def __init__(self, surveys: Sequence[Survey], config: ImageConfig, width: int, summary: int) -> None:
        super().__init__()
        self.names = [survey.name for survey in surveys]
        self.width, self.summary = width, summary
        self.encoders, self.project, self.wide = nn.ModuleDict(), nn.ModuleDict(), nn.ModuleDict()
        self.softening: dict[str, list[float] | None] = {}
        self.displays: dict[str, Display | None] = {}
        self.apart, self.measured = config.domain_norm, config.measured
        self.blind = False
        """Whether measured summaries are withheld for now, so that the encoders have to see for themselves."""
        for survey in surveys:
            imaging = survey.image
            if imaging is None:
                continue
            bands = len(imaging.bands)
            encoder = image_encoder(config.kind, bands, imaging.size, config.options)
            if config.domain_norm:
                convert(encoder)
            for part in config.frozen:
                freeze(encoder.get_submodule(part))
            features: int = getattr(encoder, "features")  # noqa: B009 - a module's attributes are tensors to mypy
            if config.measured:
                count = summary_count(bands)
                features += count
                self.register_buffer(f"summary_center_{survey.name}", torch.zeros(count))
                self.register_buffer(f"summary_scale_{survey.name}", torch.ones(count))
            self.encoders[survey.name] = encoder
            self.displays[survey.name] = imaging.display
            self.project[survey.name] = nn.Linear(features + bands, width)
            self.wide[survey.name] = nn.Linear(features + bands, summary)
            flux = imaging.display is None
            self.softening[survey.name] = [band.noise or 1.0 for band in imaging.bands] if flux else None
            self.register_buffer(f"center_{survey.name}", torch.zeros(bands))
            self.register_buffer(f"scale_{survey.name}", torch.ones(bands))

    def take_pretrained(self, other: "ImageTokens") -> None:
        """Take over from another the weights that are no result of training alone: of backbones, and of encoders with frozen parts."""
        for name, encoder in self.encoders.items():
            if getattr(encoder, "pretrainable", False) or not all(p.requires_grad for p in encoder.parameters()):
                encoder.load_state_dict(other.encoders[name].state_dict())

    def portable(self, config: ImageConfig) -> tuple[ImageConfig, dict[str, Tensor]]:
        """What an artefact needs so that it runs anywhere.

        Returns:
            The config that rebuilds the encoders without hub or folder; and where an encoder needs a package to be trained but not to
            be run, the weights of its plain form by the names they have in an estimator.
        """
        options = config.options
        exported: dict[str, Tensor] = {}
        for name, encoder in self.encoders.items():
            plain, kind, options = portable(encoder, config.kind, config.options)
            if kind != config.kind:
                options = config.options
                exported |= {f"images.encoders.{name}.{k}": v for k, v in plain.state_dict().items()}
        return config.model_copy(update={"options": options}), exported

    def _stretched(self, name: str, pixels: Tensor) -> Tensor:
        softening = self.softening[name]
        return pixels if softening is None else torch.asinh(pixels / pixels.new_tensor(softening)[:, None, None])

    def fit(self, pictures: Pictures) -> None:
        """Take centres and scales of the bands from a sample."""
        for name, (pixels, seen) in pictures.items():
            center, scale = self.get_buffer(f"center_{name}"), self.get_buffer(f"scale_{name}")
            for band in range(seen.shape[1]):
                sample = self._stretched(name, pixels[seen[:, band]])[:, band]
                if sample.numel() > 1:
                    center[band], scale[band] = sample.mean(), sample.std().clamp_min(1e-6)
            rows = seen.any(1)
            if self.measured and bool(rows.any()):
                found = self.summaries(name, pixels[rows], seen[rows])
                middle = found.median(0).values
                self.get_buffer(f"summary_center_{name}").copy_(middle)
                self.get_buffer(f"summary_scale_{name}").copy_((1.4826 * (found - middle).abs().median(0).values).clamp_min(1e-3))

    def summaries(self, name: str, pixels: Tensor, seen: Tensor) -> Tensor:
        """What is measured of images of a survey, in linear fluxes, as it is; bands that are not there are zeros."""
        known = torch.where(seen[..., None, None], pixels, 0.0)
        display = self.displays[name]
        return measure(known if display is None else decompose(known, display))

    def standardised(self, name: str, pixels: Tensor, seen: Tensor) -> Tensor:
        """What the encoder of a survey sees; zeros where a band is not there."""
        center, scale = (self.get_buffer(f"{what}_{name}")[:, None, None] for what in ("center", "scale"))
        known = torch.where(seen[..., None, None], pixels, 0.0)
        return torch.where(seen[..., None, None], (self._stretched(name, known) - center) / scale, 0.0)

    def forward(self, pictures: Pictures, objects: int, real: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Encode.

        Args:
            pictures: of the surveys; one that is missing is absent for all.
            objects: how many there are.
            real: which are real, boolean, shape ``(object,)``; None: none.

        Returns:
            Tokens, shape ``(object, survey, width)``; whether each is present; and their sum, ``(object, summary)``.
        """
        like = next(self.parameters())
        tokens, total = like.new_zeros(objects, len(self.names), self.width), like.new_zeros(objects, self.summary)
        present = torch.zeros(objects, len(self.names), dtype=torch.bool, device=like.device)
        for name, (pixels, seen) in pictures.items():
            if name not in self.encoders:
                continue
            rows = seen.any(1).nonzero()[:, 0]
            if len(rows) == 0:
                continue
            encoder, column = self.encoders[name], self.names.index(name)
            ready = self.standardised(name, pixels[rows], seen[rows])
            if self.apart:
                side = torch.zeros(len(rows), dtype=torch.bool, device=rows.device) if real is None else real[rows]
                with domains(encoder, side):
                    found = encoder(ready)
            else:
                found = encoder(ready)
            parts = [found, seen[rows].to(found.dtype)]
            if self.measured:
                center, scale = (self.get_buffer(f"summary_{what}_{name}") for what in ("center", "scale"))
                told = ((self.summaries(name, pixels[rows], seen[rows]) - center) / scale).clamp(-WIDEST, WIDEST)
                parts.append(torch.zeros_like(told) if self.blind else told)
            found = torch.cat(parts, 1)
            tokens = tokens.index_put((rows, torch.full_like(rows, column)), self.project[name](found).to(tokens.dtype))
            total = total.index_add(0, rows, self.wide[name](found).to(total.dtype))
            present[rows, column] = True
        return tokens, present, total
