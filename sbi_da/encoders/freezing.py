"""Layers that stay as they are while the rest of a network trains."""

from typing import TypeVar

from torch import nn

__all__ = ["freeze", "is_frozen"]

M = TypeVar("M", bound=nn.Module)


def freeze(module: M) -> M:
    """Keep a module as it is, whatever is done to the network around it.

    No parameter takes gradients, and every layer inside works as in evaluation even when the network is in training, so that the
    statistics of batch normalisation neither follow the batch nor move, and nothing is dropped. Gradients still pass through.

    Args:
        module: changed in place.

    Returns:
        The module.
    """
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    for part in module.modules():
        # train() on any parent reaches every part, so the mode is set back where it is read: before the forward pass of each.
        part.register_forward_pre_hook(_as_in_evaluation)
        part.training = False
    return module


def is_frozen(module: nn.Module) -> bool:
    """Whether :func:`freeze` was applied to this module, or to one that holds it."""
    return _as_in_evaluation in module._forward_pre_hooks.values()


def _as_in_evaluation(part: nn.Module, _: object) -> None:
    part.training = False
