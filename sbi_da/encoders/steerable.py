r"""A convolutional network whose features do not change when the image is turned, nor, if wanted, mirrored.

Every channel of an ordinary network becomes a field on a group :math:`G`: C_N, the turns by multiples of :math:`2\pi/N`, or D_N, these and
the mirror images. Turning the image permutes the values of a field over :math:`G` and turns its map, so that the mean over the map
followed by the maximum over the group stays as it is (Weiler & Cesa 2019, arXiv 1911.08251; Cohen & Welling 2016, arXiv 1602.07576).
That holds if every filter :math:`K` between two fields obeys

.. math:: K(g x) = \rho_{out}(g)\, K(x)\, \rho_{in}(g)^{-1}, \qquad g \in G,

so a filter is a sum :math:`\sum_b w_b B_b` over a basis of the solutions, which ``escnn`` supplies once, and the :math:`w_b` are what is
learnt. Batch normalisation has one gain and one set of statistics per field. Summed up, the filters are those of an ordinary convolution:
:meth:`SteerableCNN.export` gives a :class:`PlainSteerable`, which needs nothing but its sizes to be made.

The network is that of *From Simulations to Surveys* (arXiv 2511.18590): four layers of w, 2w, 4w and 4w fields with kernels of 5, 3, 3
and 3 pixels and strides 2, 2, 1 and 1. With C8 it has 320,368 parameters for w = 16 and 720,168 for w = 24; the published 370,294 and
778,286 include a head 4w-256-128-3 and three scales of the logits. Turning by 90 degrees is exact on pixels if N is a multiple of four and
the pixels kept by a stride lie symmetrically, which they do on odd sides only: a map of even side is first averaged over 2 x 2
neighbours at every position, which takes one pixel off it. Turns in between are as exact as the pixels allow.
"""

import copy
import importlib
import re
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sbi_da.errors import ConfigError, SbiDaError

__all__ = ["PlainSteerable", "SteerableCNN", "SteerableConvolution"]

KERNELS = (5, 3, 3, 3)
STRIDES = (2, 2, 1, 1)
WIDTHS = (1, 2, 4, 4)
"""Fields of each layer as multiples of the first's."""


class SteerableConvolution(nn.Module):
    """Convolution between fields, or from scalar bands to fields, without a bias.

    The basis is part of the state: weights mean nothing without it.

    Args:
        group: such as ``C8`` or ``D4``.
        inputs: fields, or bands.
        outputs: fields.
        kernel: pixels on a side, odd.
        stride: in pixels.
        scalars: whether the inputs are bands.

    Raises:
        SbiDaError: ``escnn`` is not installed.
    """

    basis: Tensor

    def __init__(self, group: str, inputs: int, outputs: int, kernel: int, stride: int = 1, scalars: bool = False) -> None:
        super().__init__()
        self.stride, self.padding = stride, kernel // 2
        basis = _basis(group, kernel, scalars)
        self.register_buffer("basis", basis)
        # Filters whose squares sum to 2 over a value's inputs keep the variance through a ReLU (He et al. 2015, arXiv 1502.01852).
        spread = (2 * basis.shape[1] / (inputs * float(basis.square().sum()))) ** 0.5
        self.weight = nn.Parameter(torch.randn(outputs, inputs, len(basis)) * spread)

    def filters(self) -> Tensor:
        """The filters of the ordinary convolution, shape ``(output field x group, input field x group, kernel, kernel)``."""
        filters = torch.einsum("oib,bghyx->ogihyx", self.weight, self.basis)
        return filters.flatten(2, 3).flatten(0, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Convolve maps of shape ``(object, input field x group, y, x)``."""
        return nn.functional.conv2d(x, self.filters(), stride=self.stride, padding=self.padding)


class _Layers(nn.Module):
    """What the steerable network and the plain one share: all but how a convolution comes by its filters."""

    def __init__(self, bands: int, size: int, group: str, width: int) -> None:
        super().__init__()
        if width < 1:
            raise ConfigError(f"steerable: width must be positive, got {width}")
        if size < 8:
            raise ConfigError(f"steerable: images must have at least 8 pixels on a side, these have {size}")
        self.group, self.width, self.order = group, width, _order(group)
        fields = [bands] + [width * times for times in WIDTHS]
        self.convolutions = nn.ModuleList(
            self._convolution(fields[k], fields[k + 1], KERNELS[k], STRIDES[k], k == 0) for k in range(len(KERNELS))
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(count) for count in fields[1:])
        self.features = fields[-1]

    @abstractmethod
    def _convolution(self, inputs: int, outputs: int, kernel: int, stride: int, scalars: bool) -> nn.Module: ...

    def forward(self, images: Tensor) -> Tensor:
        """Features of shape ``(object, features)`` of square images of shape ``(object, band, y, x)``."""
        x = images.contiguous(memory_format=torch.channels_last)
        for convolution, norm, stride in zip(self.convolutions, self.norms, STRIDES, strict=True):
            if stride > 1 and x.shape[-1] % 2 == 0:
                x = nn.functional.avg_pool2d(x, 2, stride=1)
            x = convolution(x)
            # One normalisation per field: its values over the group count as further pixels.
            count, _, rows, columns = x.shape
            x = norm(x.reshape(count, -1, self.order * rows, columns)).relu().reshape(x.shape)
        return x.mean((2, 3)).unflatten(1, (self.features, self.order)).amax(2)


class SteerableCNN(_Layers):
    """The network as it is trained.

    Args:
        bands: of the images.
        size: pixels on a side.
        group: C and the number of turns, or D and the number of turns for their mirror images too.
        width: fields of the first layer; the features are four times as many.

    Raises:
        ConfigError: a group or sizes that cannot be.
        SbiDaError: ``escnn`` is not installed.
    """

    def __init__(self, bands: int, size: int, group: str = "C8", width: int = 16) -> None:
        super().__init__(bands, size, group, width)
        self.bands, self.size = bands, size

    def _convolution(self, inputs: int, outputs: int, kernel: int, stride: int, scalars: bool) -> nn.Module:
        return SteerableConvolution(self.group, inputs, outputs, kernel, stride, scalars)

    def export(self) -> "PlainSteerable":
        """The same network of ordinary convolutions, in evaluation."""
        plain = PlainSteerable(self.bands, self.size, self.group, self.width)
        with torch.no_grad():
            for own, made in zip(self.convolutions, plain.convolutions, strict=True):
                assert isinstance(own, SteerableConvolution) and isinstance(made, nn.Conv2d)
                made.weight.copy_(own.filters())
        plain.norms = copy.deepcopy(self.norms)
        return plain.to(self.norms[0].get_parameter("weight").device).eval()


class PlainSteerable(_Layers):
    """A trained :class:`SteerableCNN` with its filters summed up; trained any further, it would lose the symmetry.

    Args:
        bands: of the images.
        size: pixels on a side.
        group: of the steerable network.
        width: of the steerable network.

    Raises:
        ConfigError: a group or sizes that cannot be.
    """

    def __init__(self, bands: int, size: int, group: str = "C8", width: int = 16) -> None:
        super().__init__(bands, size, group, width)

    def _convolution(self, inputs: int, outputs: int, kernel: int, stride: int, scalars: bool) -> nn.Module:
        before = inputs if scalars else inputs * self.order
        return nn.Conv2d(before, outputs * self.order, kernel, stride=stride, padding=kernel // 2, bias=False)


def _order(group: str) -> int:
    """How many elements a group has."""
    if not re.fullmatch(r"[CD][1-9][0-9]?", group):
        raise ConfigError(f"steerable: group must be C or D and a number of turns, such as C8 or D4, got {group!r}")
    return int(group[1:]) * (2 if group[0] == "D" else 1)


def _basis(group: str, kernel: int, scalars: bool) -> Tensor:
    """Filters from one field, or one scalar band, to one field: shape ``(basis, output group, input group, kernel, kernel)``."""
    escnn = _escnn()
    turns = int(group[1:])
    order = _order(group)
    with _exact_decomposition():
        plane = escnn.gspaces.flipRot2dOnR2(N=turns) if group[0] == "D" else escnn.gspaces.rot2dOnR2(N=turns)
        given = escnn.nn.FieldType(plane, [plane.trivial_repr if scalars else plane.regular_repr])
        taken = escnn.nn.FieldType(plane, [plane.regular_repr])
        convolution = escnn.nn.R2Conv(given, taken, kernel_size=kernel, bias=False, initialize=False)
    filters = []
    with torch.no_grad():
        for unit in torch.eye(convolution.weights.numel()):
            convolution.weights.copy_(unit)
            filters.append(convolution.expand_parameters()[0].clone())
    return torch.stack(filters).reshape(-1, order, 1 if scalars else order, kernel, kernel)


def _escnn() -> Any:
    try:
        importlib.import_module("escnn.gspaces")
        importlib.import_module("escnn.nn")
        return importlib.import_module("escnn")
    except (ImportError, AttributeError) as error:
        raise SbiDaError(
            "image encoder 'steerable': cannot import escnn, which wants NumPy below 2 and a Fortran compiler: in an environment of its "
            "own, pip install -c constraints-equivariant.txt 'sbi-da[equivariant]'; an exported network ('plain_steerable') runs without"
        ) from error


@contextmanager
def _exact_decomposition() -> Iterator[None]:
    """Have escnn take the exact decomposition that it takes where scikit-learn is absent.

    The approximate one is random, and scikit-learn since 1.2 refuses the matrices that escnn 1.0.11 hands it for D_N.
    """
    numerical: Any = importlib.import_module("escnn.group._numerical")
    before = numerical.randomized_svd
    numerical.randomized_svd = None
    try:
        yield
    finally:
        numerical.randomized_svd = before
