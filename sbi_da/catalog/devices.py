"""What computes."""

import torch

from sbi_da.errors import SbiDaError

__all__ = ["usable"]


def usable(name: str | None) -> str:
    """The device of this name; None: a graphics processor if there is one.

    Raises:
        SbiDaError: there is no such device here, or it is of a kind that was not tried.
    """
    if name is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
        raise SbiDaError(f"device {name!r}: is none of cpu, cuda, cuda:1 ...")
    if kind == "cuda" and int(number or 0) >= torch.cuda.device_count():
        raise SbiDaError(f"device {name!r}: PyTorch sees {torch.cuda.device_count()} such devices here: use cpu")
    return name
