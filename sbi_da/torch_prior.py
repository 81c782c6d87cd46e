"""Priors of ``torch.distributions``, as `sbi` takes them, and the priors of this package: either as the other."""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor
from torch import distributions as td
from torch.distributions import constraints

from sbi_da.distributions import Exponential, Family, Law, Normal, Uniform
from sbi_da.distributions.linear_normal import REACH, multivariate_normal
from sbi_da.errors import SbiDaError
from sbi_da.prior import Prior

__all__ = ["TorchPrior", "prior_from_torch"]

SUPPORTED = (
    "uniform, normal, exponential, gamma (chi squared), beta, half-normal, log-normal and Laplace laws, independent or one a parameter "
    "(sbi's BoxUniform and MultipleIndependent), and multivariate normals"
)


def _exponential(rate: float) -> Law:
    return Exponential(scale=1 / rate, high=35 / rate)


def _normal(mean: float, sd: float) -> Law:
    return Normal(mean=mean, sd=sd, low=mean - REACH * sd, high=mean + REACH * sd)


LAWS: list[tuple[type[td.Distribution], tuple[str, ...], Callable[..., Law]]] = [
    (td.Uniform, ("low", "high"), lambda low, high: Uniform(low=low, high=high)),
    (td.Normal, ("loc", "scale"), _normal),
    (td.Exponential, ("rate",), _exponential),
    (td.Gamma, ("concentration", "rate"), lambda a, rate: Family.whole("gamma", (a,), scale=1 / rate)),
    (td.Beta, ("concentration1", "concentration0"), lambda a, b: Family.whole("beta", (a, b))),
    (td.HalfNormal, ("scale",), lambda sd: Family.whole("half_normal", scale=sd)),
    (td.LogNormal, ("loc", "scale"), lambda mean, sd: Family.whole("log_normal", (sd,), scale=float(np.exp(mean)))),
    (td.Laplace, ("loc", "scale"), lambda centre, width: Family.whole("laplace", location=centre, scale=width)),
]
"""Laws of one parameter: class, its arguments, and the law they make."""


def prior_from_torch(prior: Any, names: Sequence[str] | None = None) -> Prior:
    """The same prior as a map to independent normals; laws without limits are cut where 1e-15 of them is left.

    Args:
        prior: a ``torch.distributions.Distribution`` over a vector of parameters, a sequence of such, one after the other, or what
            sbi's ``process_prior`` returns for one of them.
        names: of the parameters; by default ``theta_0``, ``theta_1``, ...

    Raises:
        SbiDaError: a law that is not supported; the message lists those that are. A wrong number of names, or names twice.
    """
    size = sum(map(_size, _parts(prior)))
    names = [f"theta_{i}" for i in range(size)] if names is None else list(names)
    if len(names) != size or len(set(names)) != size:
        raise SbiDaError(f"the prior has {size} parameters: give as many different names, not {', '.join(names) or 'none'}")
    laws: dict[str, Law] = {}
    for part in _parts(prior):
        mine = names[len(laws) : len(laws) + _size(part)]
        laws |= _laws(part, mine)
    return Prior(laws)


def _parts(prior: Any) -> list[td.Distribution]:
    """The distributions a prior is made of, out of sbi's wrappers."""
    if isinstance(prior, Sequence):
        return [part for each in prior for part in _parts(each)]
    if not isinstance(prior, td.Distribution):
        _refuse(prior)
    several, wrapped = getattr(prior, "dists", None), getattr(prior, "prior", None)
    if isinstance(several, Sequence):  # sbi's MultipleIndependent
        return _parts(several)
    return _parts(wrapped) if isinstance(wrapped, td.Distribution) else [prior]  # what sbi's process_prior puts around a prior


def _size(part: td.Distribution) -> int:
    return (part.batch_shape + part.event_shape).numel()


def _laws(part: td.Distribution, names: Sequence[str]) -> dict[str, Law]:
    base = part
    while isinstance(base, td.Independent):
        base = base.base_dist
    if isinstance(base, td.MultivariateNormal | td.LowRankMultivariateNormal) and base.batch_shape.numel() == 1:
        size = len(names)
        mean, covariance = (v.detach().cpu().double().numpy() for v in (base.mean, base.covariance_matrix))
        return multivariate_normal(names, mean.reshape(size), covariance.reshape(size, size))
    for kind, keys, law in LAWS:
        if isinstance(base, kind):
            columns = [getattr(base, key).detach().cpu().double().reshape(-1).tolist() for key in keys]
            return {name: law(*row) for name, *row in zip(names, *columns, strict=True)}
    _refuse(base)


def _refuse(prior: Any) -> NoReturn:
    raise SbiDaError(f"a prior of type {type(prior).__name__} is not supported; supported are {SUPPORTED}")


class TorchPrior(td.Distribution):
    """A prior of this package as ``torch.distributions`` has them, to be used with `sbi`.

    Draws follow torch's seed. Densities are of single precision and have no gradients.

    Args:
        prior: joint prior of D parameters, whose order is that of the last dimension.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}

    def __init__(self, prior: Prior) -> None:
        self.wrapped = prior
        super().__init__(event_shape=torch.Size([len(prior.names)]), validate_args=False)

    @property
    def support(self) -> constraints.Constraint:
        """The box around the prior's support."""
        low, high = zip(*(self.wrapped.bounds(name) for name in self.wrapped.names), strict=True)
        return constraints.independent(constraints.interval(torch.tensor(low), torch.tensor(high)), 1)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws, shape ``(*sample_shape, D)``, float32."""
        z = torch.randn(*torch.Size(sample_shape), len(self.wrapped.names), dtype=torch.float64).numpy()
        theta = self.wrapped.from_normal(z)
        return torch.from_numpy(np.stack([theta[name] for name in self.wrapped.names], -1)).float()

    def log_prob(self, value: Tensor) -> Tensor:
        """Log-density of ``value``, shape ``(..., D)``; ``-inf`` outside the support; shape ``(...)``."""
        columns = np.moveaxis(value.detach().cpu().double().numpy(), -1, 0)
        theta = within_rounding(self.wrapped, dict(zip(self.wrapped.names, columns, strict=True)))
        return torch.from_numpy(self.wrapped.log_prob(theta)).float()


def within_rounding(prior: Prior, theta: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parameters with values that only single precision has put beyond the prior's bounds put back on them."""
    kept = {}
    for name, value in theta.items():
        low, high = prior.bounds(name)
        slack = 2.0**-23 * max(abs(low), abs(high))
        kept[name] = np.where((value >= low - slack) & (value <= high + slack), np.clip(value, low, high), value)
    return kept
