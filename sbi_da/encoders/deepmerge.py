"""The DeepMerge network: three convolutions and two dense layers, to which a head adds the third.

Table A1 of DeepMerge II (Ciprijanovic et al. 2021, MNRAS 506, 677): convolutions of 8, 16 and 32 filters with kernels of 5, 3 and
3 pixels, each followed by ReLU, batch normalisation and the maximum over 2x2 pixels, without dropout; then dense layers of 64 and
32 neurons with ReLU, and the classes. Images of 75 x 75 pixels in three bands become 2,592 numbers before the dense layers, and the
network with a head for two classes has 174,626 parameters.
"""

import torch
from torch import Tensor, nn

from sbi_da.errors import ConfigError

__all__ = ["DeepMerge"]

KERNELS = (5, 3, 3)


class DeepMerge(nn.Module):
    """All of DeepMerge but its last layer.

    Args:
        bands: of the images.
        size: pixels on a side; the dense layers are made for it.
        widths: filters of the three convolutions.
        dense: neurons of the dense layers, the last being the features; none leaves the flattened maps, on which a discrepancy
            between domains may act as well.

    Raises:
        ConfigError: other than three widths, numbers below one, or images below 8 pixels.
    """

    def __init__(self, bands: int, size: int, widths: tuple[int, ...] = (8, 16, 32), dense: tuple[int, ...] = (64, 32)) -> None:
        super().__init__()
        if len(widths) != len(KERNELS) or min(*widths, *dense) < 1:
            raise ConfigError(f"deepmerge: needs three widths and dense layers of at least one neuron, got {widths} and {dense}")
        if size < 2 ** len(KERNELS):
            raise ConfigError(f"deepmerge: images must have at least {2 ** len(KERNELS)} pixels on a side, these have {size}")
        layers: list[nn.Module] = []
        before = bands
        for width, kernel in zip(widths, KERNELS, strict=True):
            convolution = nn.Conv2d(before, width, kernel, padding=kernel // 2)
            layers += [convolution, nn.ReLU(inplace=True), nn.BatchNorm2d(width), nn.MaxPool2d(2)]
            before, size = width, size // 2
        layers.append(nn.Flatten())
        before *= size**2
        for width in dense:
            layers += [nn.Linear(before, width), nn.ReLU(inplace=True)]
            before = width
        self.layers = nn.Sequential(*layers)
        self.features = before

    def forward(self, images: Tensor) -> Tensor:
        """Features of shape ``(object, features)`` of images of shape ``(object, band, y, x)``."""
        out: Tensor = self.layers(images.contiguous(memory_format=torch.channels_last))
        return out
