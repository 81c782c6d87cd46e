"""Image encoders by the names configs use.

An image encoder is a module with a typed ``__init__`` that takes ``bands`` and ``size``, given by the survey, and options; an integer
attribute ``features``; and ``forward(images)`` from ``(object, band, y, x)`` to ``(object, features)``. Pixels arrive standardised
per band, and bands that an object lacks as zeros. Packages that only one of them needs are imported when that one is built.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from sbi_da.encoders.cnn import CNN, CompactCNN
from sbi_da.encoders.deepmerge import DeepMerge
from sbi_da.encoders.huggingface import HuggingFace, ResNet18, ResNet50
from sbi_da.encoders.steerable import PlainSteerable, SteerableCNN
from sbi_da.errors import ConfigError, UnknownNameError
from sbi_da.schema import build

__all__ = ["IMAGE_ENCODERS", "image_encoder", "portable"]

IMAGE_ENCODERS: dict[str, type[nn.Module]] = {
    "compact": CompactCNN,
    "cnn": CNN,
    "deepmerge": DeepMerge,
    "steerable": SteerableCNN,
    "plain_steerable": PlainSteerable,
    "resnet18": ResNet18,
    "resnet50": ResNet50,
    "huggingface": HuggingFace,
}


def image_encoder(kind: str, bands: int, size: int, options: Mapping[str, Any] | None = None) -> nn.Module:
    """A new encoder.

    Args:
        kind: a name in :data:`IMAGE_ENCODERS`.
        bands: of the survey's images.
        size: pixels on a side of the survey's images.
        options: what a config says.

    Raises:
        UnknownNameError: no encoder of that name.
        ConfigError: options it does not have, or images it cannot take.
        SbiDaError: a package it needs is not there.
    """
    if kind not in IMAGE_ENCODERS:
        raise UnknownNameError("image encoder", kind, list(IMAGE_ENCODERS))
    if bands < 1 or size < 1:
        raise ConfigError(f"image encoder {kind!r}: images must have at least one band and one pixel, got {bands} and {size}")
    return build(IMAGE_ENCODERS[kind], options or {}, f"image encoder {kind!r}", given={"bands": bands, "size": size})


def portable(encoder: nn.Module, kind: str, options: Mapping[str, Any] | None = None) -> tuple[nn.Module, str, dict[str, Any]]:
    """An encoder in the form in which an artefact keeps it, and what makes an empty one of that form anywhere.

    A steerable encoder becomes one of ordinary convolutions, in evaluation; a pretrained one names its architecture, so that it
    needs neither hub nor folder. All others stay as they are.

    Args:
        encoder: a trained encoder.
        kind: its name in :data:`IMAGE_ENCODERS`.
        options: with which it was made.

    Returns:
        The encoder to save, its kind, and its options.
    """
    if isinstance(encoder, SteerableCNN):
        return encoder.export(), "plain_steerable", {"group": encoder.group, "width": encoder.width}
    if isinstance(encoder, HuggingFace):
        return encoder, kind, dict(encoder.rebuild)
    return encoder, kind, dict(options or {})
