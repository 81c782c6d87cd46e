r"""Batch normalisation with statistics of their own for simulated and for real objects.

A row :math:`x` of domain :math:`d` becomes

.. math:: \gamma\,\frac{x - \mu_d}{\sqrt{\sigma_d^2 + \epsilon}} + \beta

where in training :math:`\mu_d, \sigma_d^2` are those of the batch's rows of that domain, and afterwards their running means (Chang et al.
2019, arXiv 1906.03950, as DeepAstroUDA uses it). With one set of statistics, a batch of both would be normalised by a mixture that no
batch of one of them has later; and a normalisation that has seen real objects is no longer the simulations' alone. The gain and the
shift are shared by default, so that the layers after it see both domains on the same footing; or each domain has its own.

Which rows are real is said for the duration of a forward pass, and by nothing else::

    with domains(network, real):
        features = network(images)

Until real rows have been seen in training, real rows are normalised by the simulated statistics, as an ordinary network would.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import Tensor, nn

from sbi_da.encoders.freezing import freeze, is_frozen
from sbi_da.errors import SbiDaError

__all__ = ["DomainBatchNorm", "DomainBatchNorm1d", "DomainBatchNorm2d", "convert", "domains"]

M = TypeVar("M", bound=nn.Module)


class DomainBatchNorm(nn.Module):
    """Batch normalisation per domain; see the 1d and 2d forms.

    Args:
        channels: of the input, in its second dimension.
        separate: a gain and a shift for each domain, rather than shared ones.
        eps: added to the variance.
        momentum: weight of a batch in the running statistics.
    """

    dimensions: tuple[int, ...] = ()
    """How many dimensions an input may have."""
    running_mean: Tensor
    running_var: Tensor
    batches: Tensor

    def __init__(self, channels: int, separate: bool = False, eps: float = 1e-5, momentum: float = 0.1) -> None:
        super().__init__()
        self.channels, self.separate, self.eps, self.momentum = channels, separate, eps, momentum
        self.weight = nn.Parameter(torch.ones(1 + separate, channels))
        self.bias = nn.Parameter(torch.zeros(1 + separate, channels))
        self.register_buffer("running_mean", torch.zeros(2, channels))
        self.register_buffer("running_var", torch.ones(2, channels))
        self.register_buffer("batches", torch.zeros(2, dtype=torch.long))
        self.real: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the rows of each domain.

        In training, a domain with a single value per channel in the batch has no variance: its running statistics serve, and stay.

        Args:
            x: shape ``(row, channel, ...)``, simulated and real rows in any order.

        Raises:
            SbiDaError: outside :func:`domains`, or with as many rows as its mask has not.
        """
        name = type(self).__name__
        if x.dim() not in self.dimensions:
            raise SbiDaError(f"{name}: takes inputs of {' or '.join(map(str, self.dimensions))} dimensions, got {x.dim()}")
        if self.real is None:
            raise SbiDaError(f"{name}: which rows are real? Run the network inside `with domains(network, real):`")
        if len(self.real) != len(x):
            raise SbiDaError(f"{name}: `domains` was told of {len(self.real)} rows and the network was given {len(x)}")
        rows = [(~self.real).nonzero()[:, 0], self.real.nonzero()[:, 0]]
        for domain in (0, 1):
            if len(rows[domain]) == len(x):
                return self._normalise(x, domain)
        parts = [self._normalise(x[rows[domain]], domain) for domain in (0, 1)]
        return torch.cat(parts)[torch.cat(rows).argsort()]

    def _normalise(self, x: Tensor, domain: int) -> Tensor:
        weight, bias = self.weight[domain * self.separate], self.bias[domain * self.separate]
        measured = self.training and x.numel() > self.channels
        if measured:
            with torch.no_grad():
                self.batches[domain] += 1
            mean, variance = self.running_mean[domain], self.running_var[domain]
        else:
            known = self.batches[domain] > 0
            mean = torch.where(known, self.running_mean[domain], self.running_mean[0])
            variance = torch.where(known, self.running_var[domain], self.running_var[0])
        return nn.functional.batch_norm(x, mean, variance, weight, bias, measured, self.momentum, self.eps)

    def extra_repr(self) -> str:
        """What is printed in the parentheses."""
        return f"{self.channels}, separate={self.separate}, eps={self.eps}, momentum={self.momentum}"


class DomainBatchNorm1d(DomainBatchNorm):
    """For inputs of shape ``(row, channel)`` or ``(row, channel, position)``."""

    dimensions = (2, 3)


class DomainBatchNorm2d(DomainBatchNorm):
    """For inputs of shape ``(row, channel, y, x)``."""

    dimensions = (4,)


KINDS: dict[type[nn.Module], type[DomainBatchNorm]] = {nn.BatchNorm1d: DomainBatchNorm1d, nn.BatchNorm2d: DomainBatchNorm2d}


@contextmanager
def domains(module: nn.Module, real: Tensor) -> Iterator[None]:
    """Tell the normalisations inside a module which rows are real, until the block ends.

    Args:
        module: may hold none, in which case this does nothing.
        real: shape ``(row,)``, boolean: one per row of what the module is given.

    Raises:
        SbiDaError: not a boolean vector.
    """
    if real.dtype != torch.bool or real.dim() != 1:
        raise SbiDaError(f"domains: which rows are real must be a boolean vector, got {real.dtype} of shape {tuple(real.shape)}")
    norms = [part for part in module.modules() if isinstance(part, DomainBatchNorm)]
    before = [norm.real for norm in norms]
    for norm in norms:
        norm.real = real
    try:
        yield
    finally:
        for norm, outer in zip(norms, before, strict=True):
            norm.real = outer


def convert(module: M, separate: bool = False) -> M:
    """Give every batch normalisation inside a module statistics per domain.

    Both domains start from what the module has learnt; what is frozen stays so.

    Args:
        module: changed in place.
        separate: a gain and a shift for each domain, rather than shared ones.

    Returns:
        The module.

    Raises:
        SbiDaError: a batch normalisation that cannot be converted, naming it; or none at all.
    """
    found = [name for name, part in module.named_modules() if isinstance(part, nn.modules.batchnorm._NormBase)]
    if found in ([], [""]):
        raise SbiDaError(f"domain-specific batch normalisation: {type(module).__name__} holds no batch normalisation to make specific")
    for name in found:
        norm = module.get_submodule(name)
        if type(norm) not in KINDS or norm.weight is None or norm.running_mean is None or norm.momentum is None:
            raise SbiDaError(
                f"domain-specific batch normalisation: {name} is {norm}: only BatchNorm1d and BatchNorm2d with gains, "
                "running statistics and a momentum can be converted"
            )
    for name in found:
        parent, _, child = name.rpartition(".")
        setattr(module.get_submodule(parent), child, _converted(module.get_submodule(name), separate))
    return module


def _converted(norm: nn.Module, separate: bool) -> DomainBatchNorm:
    assert isinstance(norm, nn.modules.batchnorm._BatchNorm)
    new = KINDS[type(norm)](norm.num_features, separate, norm.eps, float(norm.momentum or 0.0)).to(norm.weight.device, norm.weight.dtype)
    with torch.no_grad():
        for own, learnt in ((new.weight, norm.weight), (new.bias, norm.bias)):
            own.copy_(learnt.expand_as(own))
            own.requires_grad_(learnt.requires_grad)
        assert norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None
        new.running_mean.copy_(norm.running_mean.expand_as(new.running_mean))
        new.running_var.copy_(norm.running_var.expand_as(new.running_var))
        new.batches[0] = norm.num_batches_tracked
    new.training = norm.training
    return freeze(new) if is_frozen(norm) else new
