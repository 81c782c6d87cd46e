r"""Convolutional encoders of images: a plain one, and a compact residual one for two processor cores.

``cnn`` is the plain network of *From Simulations to Surveys* (arXiv 2511.18590): blocks of twice (3x3 convolution, batch
normalisation, ReLU) and 2x2 maximum pooling, then the mean over the image. ``compact`` is a residual network (He et al. 2016,
arXiv 1512.03385) that leaves full resolution at its first layer: a 5x5 convolution of stride 2, a mean over 2x2 pixels, and stages of
residual blocks

.. math:: x \mapsto a\big(P x + N_2 W_2\, a(N_1 W_1 x)\big)

with 3x3 convolutions :math:`W`, normalisations :math:`N`, the activation :math:`a`, and :math:`P` the identity or a 1x1 convolution where
the width changes. Between stages stands a mean over 2x2 pixels rather than a stride, so that what lies above the new Nyquist frequency is
damped and not folded down (Zhang 2019, arXiv 1904.11486). The mean over the image is taken last. Images are laid out with the bands
innermost, which changes no number and makes processors a third faster.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from sbi_da.errors import ConfigError

__all__ = ["CNN", "Activation", "CompactCNN", "Normalisation"]

Activation = Literal["relu", "silu", "gelu"]
Normalisation = Literal["batch", "group"]
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}
CHANNELS_PER_GROUP = 8


class CNN(nn.Module):
    """Blocks of two convolutions and a maximum over 2x2 pixels; then the mean over the image.

    Args:
        bands: of the images.
        size: pixels on a side.
        widths: channels of each block; the last is the number of features.

    Raises:
        ConfigError: no block, a width below one, or images too small for that many blocks.
    """

    def __init__(self, bands: int, size: int, widths: tuple[int, ...] = (64, 128)) -> None:
        super().__init__()
        _check("cnn", widths, size, 2 ** len(widths))
        layers: list[nn.Module] = []
        before = bands
        for width in widths:
            for inputs in (before, width):
                layers += [nn.Conv2d(inputs, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            layers.append(nn.MaxPool2d(2))
            before = width
        self.layers = nn.Sequential(*layers)
        self.features = widths[-1]

    def forward(self, images: Tensor) -> Tensor:
        """Features of shape ``(object, features)`` of images of shape ``(object, band, y, x)``."""
        mean: Tensor = self.layers(images.contiguous(memory_format=torch.channels_last)).mean((2, 3))
        return mean


class CompactCNN(nn.Module):
    """A residual network for processors: about 13 million multiplications for an image of 64 x 64 pixels in three bands.

    Args:
        bands: of the images.
        size: pixels on a side.
        widths: channels of each stage; the last is the number of features.
        blocks: residual blocks of each stage.
        activation: between the layers.
        normalisation: ``batch``, or ``group``: over groups of eight channels within an image, the same in training and afterwards, and
            blind to which other objects share the batch.

    Raises:
        ConfigError: widths and blocks that do not fit together or the images, or widths that groups of eight do not divide.
    """

    def __init__(
        self,
        bands: int,
        size: int,
        widths: tuple[int, ...] = (24, 48, 96),
        blocks: tuple[int, ...] = (1, 2, 2),
        activation: Activation = "silu",
        normalisation: Normalisation = "batch",
    ) -> None:
        super().__init__()
        _check("compact", widths, size, 2 ** (len(widths) + 1))
        if len(blocks) != len(widths) or min(blocks) < 1:
            raise ConfigError(f"compact: blocks must be {len(widths)} positive numbers, one per width, got {blocks}")
        if normalisation == "group" and any(width % CHANNELS_PER_GROUP for width in widths):
            raise ConfigError(f"compact: group normalisation needs widths that are multiples of {CHANNELS_PER_GROUP}, got {widths}")
        self.stem = nn.Sequential(
            nn.Conv2d(bands, widths[0], 5, stride=2, padding=2, bias=False), _norm(normalisation, widths[0]), ACTIVATIONS[activation]()
        )
        stages: list[nn.Module] = []
        before = widths[0]
        for width, count in zip(widths, blocks, strict=True):
            stages.append(nn.AvgPool2d(2))
            for index in range(count):
                stages.append(_Residual(width if index else before, width, activation, normalisation))
            before = width
        self.stages = nn.Sequential(*stages)
        self.features = widths[-1]

    def forward(self, images: Tensor) -> Tensor:
        """Features of shape ``(object, features)`` of images of shape ``(object, band, y, x)``."""
        mean: Tensor = self.stages(self.stem(images.contiguous(memory_format=torch.channels_last))).mean((2, 3))
        return mean


class _Residual(nn.Module):
    """Two 3x3 convolutions beside a path that is the identity where the width stays."""

    def __init__(self, inputs: int, width: int, activation: str, normalisation: str) -> None:
        super().__init__()
        self.path: nn.Module = nn.Identity() if inputs == width else nn.Conv2d(inputs, width, 1, bias=False)
        self.inner = nn.Sequential(
            nn.Conv2d(inputs, width, 3, padding=1, bias=False), _norm(normalisation, width), ACTIVATIONS[activation](),
            nn.Conv2d(width, width, 3, padding=1, bias=False), _norm(normalisation, width),
        )
        last = self.inner[-1]
        # Below one, so that the sum of the two paths does not grow with depth; not zero, or the layers inside would not learn at first.
        nn.init.constant_(last.get_parameter("weight"), 0.5)
        self.activation = ACTIVATIONS[activation]()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.activation(self.path(x) + self.inner(x))
        return out


def _norm(kind: str, width: int) -> nn.Module:
    return nn.BatchNorm2d(width) if kind == "batch" else nn.GroupNorm(width // CHANNELS_PER_GROUP, width)


def _check(kind: str, widths: tuple[int, ...], size: int, least: int) -> None:
    if not widths or min(widths) < 1:
        raise ConfigError(f"{kind}: widths must be one or more positive numbers, got {widths}")
    if size < least:
        raise ConfigError(f"{kind}: {len(widths)} widths need images of at least {least} pixels on a side, these have {size}: give fewer")
