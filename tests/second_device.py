"""A device that is not the processor, on any machine: its tensors are held by the processor, but refuse to be mixed with its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("lazy:0")  # a name that PyTorch knows, of a backend that it is built without


class There(torch.Tensor):
    """A tensor on the device."""

    @staticmethod
    def __new__(cls, held):
        options = {"strides": held.stride(), "dtype": held.dtype, "device": DEVICE}
        return torch.Tensor._make_wrapper_subclass(cls, held.shape, **options)

    def __init__(self, held):
        self.held = held

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {})


def _call(func, args, kwargs):
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
    there = [isinstance(x, There) for x in tensors]
    moves = func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
    if any(there) and not moves and any(x.ndim for x, on in zip(tensors, there, strict=True) if not on):
        raise RuntimeError(f"{func}: tensors on two devices")
    asked = kwargs.get("device")
    result_there = any(there) if asked is None else torch.device(asked).type == DEVICE.type
    kwargs = {**kwargs, "device": torch.device("cpu")} if asked is not None else kwargs
    args, kwargs = tree_map(lambda x: x.held if isinstance(x, There) else x, (args, kwargs))
    out = func(*args, **kwargs)
    return tree_map(lambda x: There(x) if isinstance(x, torch.Tensor) and result_there else x, out)


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _call(func, args, kwargs or {})


@contextmanager
def second_device() -> Iterator[torch.device]:
    """The device, while it is there; inference mode, which tensors of this kind cannot enter, only stops gradients meanwhile."""
    with _Mode(), mock.patch("torch.inference_mode", torch.no_grad):
        yield DEVICE
