"""The layers of a head that is not a flow: a context to some numbers."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sbi_da.errors import SbiDaError

__all__ = ["perceptron", "start_biases"]


def perceptron(context: int, outputs: int, hidden: Sequence[int] = (), dropout: float = 0.0) -> nn.Sequential:
    """Linear layers with ReLUs between, and dropout before the last.

    Args:
        context: width of what goes in.
        outputs: width of what comes out.
        hidden: widths between; none: a linear map.
        dropout: probability at which a unit before the last layer is dropped in training.

    Raises:
        SbiDaError: a width below one, or a dropout outside [0, 1).
    """
    if min((context, outputs, *hidden)) < 1 or not 0 <= dropout < 1:
        raise SbiDaError(f"a head needs widths of one or more and a dropout in [0, 1), got {context=}, {outputs=}, {hidden=}, {dropout=}")
    layers: list[nn.Module] = []
    for before, after in zip((context, *hidden), hidden, strict=False):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Dropout(dropout), nn.Linear((context, *hidden)[-1], outputs))


def start_biases(layers: nn.Sequential, biases: Tensor) -> None:
    """Set the biases of the last layer, shape ``(output,)``, so that training starts at a law that sees no object."""
    last = layers[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.bias.copy_(biases)
