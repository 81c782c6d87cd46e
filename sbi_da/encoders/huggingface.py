"""Networks of the Hugging Face model hub as image encoders, with their weights where the hub or a folder has them.

``resnet18`` and ``resnet50`` (He et al. 2016, arXiv 1512.03385) are known here by their sizes, so that they can be made without the hub;
any other vision model that ``transformers`` builds by itself is named by its hub name or by a folder that its ``save_pretrained`` wrote.
Weights trained on ImageNet want three bands: for another number of bands :math:`B`, the first convolution's kernels become their mean
over the three, times :math:`3 / B`, the same for every band, and train even if the layers around them are frozen, because summed bands
have no colour. Only safetensors files are read, never pickles, and no code that a model's page brings.
"""

import importlib
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sbi_da.encoders.freezing import freeze
from sbi_da.errors import ConfigError, SbiDaError

__all__ = ["KNOWN", "HuggingFace", "ResNet18", "ResNet50"]

KNOWN: dict[str, dict[str, Any]] = {
    "microsoft/resnet-18": {
        "model_type": "resnet", "layer_type": "basic", "depths": [2, 2, 2, 2], "hidden_sizes": [64, 128, 256, 512], "embedding_size": 64,
    },
    "microsoft/resnet-50": {
        "model_type": "resnet", "layer_type": "bottleneck", "depths": [3, 4, 6, 3], "hidden_sizes": [256, 512, 1024, 2048],
        "embedding_size": 64,
    },
}
"""Architectures that need no hub."""
STAGES = ("encoder.stages", "encoder.layers", "encoder.layer", "stages", "layers", "layer", "blocks")
"""Where models keep their stages or blocks, the first that is there."""


class HuggingFace(nn.Module):
    """A vision model and the mean of its last maps, or what it pools itself.

    ``rebuild`` holds the options that make the same network again without hub or folder, to be filled with saved weights.

    Args:
        bands: of the images.
        size: pixels on a side.
        model: name on the hub, or a folder.
        pretrained: whether to load its weights; otherwise they are random.
        trainable_stages: how many of the last stages (in a transformer, blocks) train, with whatever follows them; everything before is
            frozen, the statistics of its batch normalisation too. All train if not given.
        resize: pixels on a side to which images are resampled before they enter.
        architecture: the model's configuration, for a network that is not pretrained: then neither hub nor folder is asked.

    Raises:
        ConfigError: options that contradict each other or the model.
        SbiDaError: ``transformers`` is not installed, or the model or its weights cannot be had.
    """

    pretrainable = True
    """Its weights are worth keeping where a network starts anew."""

    def __init__(
        self,
        bands: int,
        size: int,
        model: str = "microsoft/resnet-18",
        pretrained: bool = True,
        trainable_stages: int | None = None,
        resize: int | None = None,
        architecture: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if pretrained and architecture is not None:
            raise ConfigError(f"{model}: pretrained weights bring their architecture: leave `architecture` out, or set pretrained: false")
        if resize is not None and resize < 1:
            raise ConfigError(f"{model}: resize must be a positive number of pixels, got {resize}")
        self.resize = resize
        self.network = _pretrained(model, bands) if pretrained else _random(model, bands, architecture)
        self._freeze(model, bands, trainable_stages)
        self.features = self._width(model, bands, size)
        self.rebuild: dict[str, Any] = {
            "model": model, "pretrained": False, "trainable_stages": trainable_stages, "resize": resize,
            "architecture": self.network.config.to_dict(),
        }

    def _freeze(self, model: str, bands: int, trainable: int | None) -> None:
        if trainable is None:
            return
        place = next((name for name in STAGES if isinstance(_part(self.network, name), nn.ModuleList)), None)
        stages = _part(self.network, place) if place else None
        if place is None or not isinstance(stages, nn.ModuleList):
            raise ConfigError(f"{model}: found no stages to freeze: leave trainable_stages out")
        if not 0 <= trainable <= len(stages):
            raise ConfigError(f"{model}: has {len(stages)} stages, so trainable_stages must lie between 0 and that, got {trainable}")
        first = _first(self.network)
        parts: list[nn.Module] = list(stages[: len(stages) - trainable])
        embedding = [child for name, child in self.network.named_children() if name in ("embedder", "embeddings", "patch_embed", "stem")]
        for part in parts + embedding:
            freeze(part)
        if bands != 3:
            first.weight.requires_grad_(True)

    def _width(self, model: str, bands: int, size: int) -> int:
        mode = self.training
        self.eval()
        try:
            with torch.no_grad():
                features = self(torch.zeros(1, bands, size, size))
        except (ValueError, RuntimeError) as error:
            raise ConfigError(
                f"{model}: cannot take images of {self.resize or size} pixels on a side ({' '.join(str(error).split())}): give `resize`"
            ) from error
        # All of it: from_pretrained leaves a network in evaluation.
        self.train(mode)
        return int(features.shape[1])

    def forward(self, images: Tensor) -> Tensor:
        """Features of shape ``(object, features)`` of images of shape ``(object, band, y, x)``."""
        if self.resize is not None and self.resize != images.shape[-1]:
            side = (self.resize, self.resize)
            images = nn.functional.interpolate(images, side, mode="bilinear", align_corners=False, antialias=True)
        output = self.network(pixel_values=images.contiguous(memory_format=torch.channels_last))
        pooled: Tensor | None = getattr(output, "pooler_output", None)
        if pooled is not None:
            return pooled.flatten(1)
        last: Tensor = output.last_hidden_state
        return last.mean((2, 3)) if last.dim() == 4 else last.mean(1)


class _ResNet(HuggingFace):
    """One of :data:`KNOWN` by its hub name; of that architecture even where a folder is given."""

    known: ClassVar[str]

    def __init__(
        self,
        bands: int,
        size: int,
        model: str | None = None,
        pretrained: bool = True,
        trainable_stages: int | None = None,
        resize: int | None = None,
    ) -> None:
        sizes = KNOWN[self.known]
        super().__init__(bands, size, model or self.known, pretrained, trainable_stages, resize, None if pretrained else sizes)
        # The name alone brings the architecture back, so that it must not be another one.
        found = self.rebuild.pop("architecture")
        for key, value in sizes.items():
            if found.get(key) != value:
                raise ConfigError(
                    f"{self.rebuild['model']}: is not {self.known} ({key} is {found.get(key)}, not {value}): "
                    "use the encoder 'huggingface' for it"
                )


class ResNet18(_ResNet):
    """ResNet-18, 512 features; see :class:`HuggingFace`. ``model`` may be a folder that holds its weights."""

    known = "microsoft/resnet-18"


class ResNet50(_ResNet):
    """ResNet-50, 2,048 features; see :class:`HuggingFace`. ``model`` may be a folder that holds its weights."""

    known = "microsoft/resnet-50"


def _transformers() -> Any:
    try:
        return importlib.import_module("transformers")
    except ImportError as error:
        raise SbiDaError("networks of Hugging Face need the package transformers: pip install 'sbi-da[backbones]'") from error


def _random(model: str, bands: int, architecture: dict[str, Any] | None) -> Any:
    transformers = _transformers()
    known = architecture if architecture is not None else KNOWN.get(model)
    if known is None:
        try:
            known = transformers.AutoConfig.from_pretrained(model).to_dict()
        except (OSError, ValueError) as error:
            raise _missing(model, "configuration", "a folder that save_pretrained wrote, or `architecture`", error) from error
    if known.get("model_type") not in transformers.CONFIG_MAPPING:
        raise ConfigError(f"{model}: transformers knows no model_type {known.get('model_type')!r}: see that key in the model's config.json")
    options = {key: value for key, value in known.items() if key != "model_type"} | {"num_channels": bands}
    try:
        return transformers.AutoModel.from_config(transformers.AutoConfig.for_model(known["model_type"], **options))
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{model}: transformers cannot build its architecture ({' '.join(str(error).split())})") from error


def _pretrained(model: str, bands: int) -> Any:
    transformers = _transformers()
    try:
        network = transformers.AutoModel.from_pretrained(model, use_safetensors=True)
    except (OSError, ValueError) as error:
        instead = "a folder with config.json and model.safetensors, or `pretrained: false` for random ones"
        raise _missing(model, "weights", instead, error) from error
    first = _first(network)
    if bands != first.in_channels:
        with torch.no_grad():
            first.weight = nn.Parameter((first.weight.mean(1, keepdim=True) * (first.in_channels / bands)).repeat(1, bands, 1, 1))
        first.in_channels = network.config.num_channels = bands
        for part in network.modules():
            # Models compare what they are given with the number they were made for.
            if isinstance(getattr(part, "num_channels", None), int):
                part.num_channels = bands
    return network


def _missing(model: str, what: str, instead: str, error: Exception) -> SbiDaError:
    reason = str(error).split("\n")[0].strip()
    where = "in that folder" if Path(model).is_dir() else "on the hub or in its cache"
    return SbiDaError(f"{model}: no {what} could be read {where} ({reason}): give {instead}")


def _first(network: nn.Module) -> nn.Conv2d:
    first = next((part for part in network.modules() if isinstance(part, nn.Conv2d)), None)
    if first is None:
        raise SbiDaError(f"{type(network).__name__} does not begin with a convolution: only vision models can encode images")
    return first


def _part(network: nn.Module, name: str) -> nn.Module | None:
    try:
        return network.get_submodule(name)
    except AttributeError:
        return None
