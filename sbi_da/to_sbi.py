"""Estimators of this package in `sbi`'s hands: what its diagnostics and plots ask of a posterior.

Data are vectors x, laid out as :mod:`sbi_da.vectors` says: values, or values and errors, with NaN or a number that stands for it where
nothing was observed. Draws follow torch's seed. Densities are in the parameters' units; no gradient goes through them.
"""

from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.posteriors import Posterior
from sbi_da.records import Records
from sbi_da.torch_prior import TorchPrior, within_rounding
from sbi_da.vectors import MISSING, records_of, vectors_of

__all__ = ["SbiPosterior", "draws_of"]


class SbiPosterior:
    """An estimator as sbi's functions take a posterior.

    Args:
        estimator: of a density over parameters, from scalar channels.
        x: the observation meant where none is given, shape ``(entry,)``.
        missing: a number that stands for a value that is not observed, beside NaN.
        real: whether the data are real objects, for which an aligned estimator has a branch of its own.

    Raises:
        SbiDaError: the estimator infers classes, votes or labels, or reads images.
    """

    def __init__(self, estimator: Estimator, x: Any = None, missing: float = MISSING, real: bool = False) -> None:
        density, _ = estimator.density
        if estimator.layout.cameras:
            raise SbiDaError(f"images of {', '.join(estimator.layout.cameras)} do not fit into a vector x: query the estimator itself")
        self.estimator, self.missing, self.real = estimator, missing, real
        self.prior = TorchPrior(density)
        self.device = self._device = "cpu"
        self._x: Tensor | None = None
        if x is not None:
            self.set_default_x(x)

    @property
    def parameters(self) -> list[str]:
        """Names of the parameters, in the order of the last dimension of draws."""
        return self.prior.wrapped.names

    @property
    def default_x(self) -> Tensor | None:
        """The observation meant where none is given, shape ``(1, entry)``."""
        return self._x

    def set_default_x(self, x: Any) -> "SbiPosterior":
        """Take ``x``, shape ``(entry,)``, where none is given."""
        self.records(x)
        self._x = torch.atleast_2d(torch.as_tensor(x))
        return self

    def sample(self, sample_shape: Any = (), x: Any = None, show_progress_bars: bool = True) -> Tensor:
        """Draws given one observation, shape ``(*sample_shape, parameter)``, float32."""
        return self.sample_batched(sample_shape, self._one(x), show_progress_bars)[..., 0, :]

    def sample_batched(self, sample_shape: Any, x: Any, show_progress_bars: bool = True) -> Tensor:
        """Draws given each of several observations, shape ``(*sample_shape, object, parameter)``, float32.

        Args:
            sample_shape: draws of each.
            x: observations, shape ``(object, entry)``.
            show_progress_bars: as sbi passes it; there is none to show.
        """
        shape = torch.Size(sample_shape)
        posterior = self.estimator(self.records(x)).marginal(self.parameters)  # without derived quantities
        drawn = draws_of(posterior, shape.numel(), int(torch.randint(2**31, ())))
        return drawn.reshape(*shape, *drawn.shape[1:])

    def log_prob(self, theta: Any, x: Any = None, norm_posterior: bool = True, track_gradients: bool = False) -> Tensor:
        """Log-density given one observation, shape ``(n,)``; always normalised, ``-inf`` outside the prior.

        Args:
            theta: shape ``(n, parameter)`` or ``(parameter,)``.
            x: the observation, shape ``(entry,)``.
            norm_posterior: as sbi passes it; no posterior here leaks out of its prior.
            track_gradients: refused when true.
        """
        theta = torch.atleast_2d(torch.as_tensor(theta))
        return self.log_prob_batched(theta[:, None], self._one(x), norm_posterior, track_gradients)[:, 0]

    def log_prob_batched(self, theta: Any, x: Any, norm_posterior: bool = True, track_gradients: bool = False) -> Tensor:
        """Log-densities given each of several observations, shape ``(*sample_shape, object)``.

        Args:
            theta: shape ``(*sample_shape, object, parameter)``.
            x: observations, shape ``(object, entry)``.
            norm_posterior: see :meth:`log_prob`.
            track_gradients: refused when true.
        """
        if track_gradients:
            raise SbiDaError("track_gradients: densities have no gradients here; refine a maximum with map(), or by differences")
        records = self.records(x)
        values = torch.as_tensor(theta).detach().cpu().double().numpy()
        if values.ndim < 2 or values.shape[-2:] != (len(records), len(self.parameters)):
            raise SbiDaError(
                f"theta has shape {values.shape} for {len(records)} observations: (..., {len(records)}, {len(self.parameters)}) is needed"
            )
        flat = np.moveaxis(values.reshape(-1, *values.shape[-2:]), 0, 1)
        columns = within_rounding(self.prior.wrapped, {name: flat[..., i] for i, name in enumerate(self.parameters)})
        density = self.estimator(records).log_prob(columns).values
        return torch.from_numpy(density.T.reshape(values.shape[:-1])).float()

    def potential(self, theta: Any, x: Any = None, track_gradients: bool = False) -> Tensor:
        """The same as :meth:`log_prob`."""
        return self.log_prob(theta, x, track_gradients=track_gradients)

    def map(self, x: Any = None, num_init_samples: int = 1000, num_iter: int = 1000) -> Tensor:
        """The parameters of highest density, shape ``(1, parameter)``: the best of some draws, then a simplex search from there."""
        x, prior = self._one(x), self.prior.wrapped
        drawn = self.sample((num_init_samples,), x)
        best = drawn[self.log_prob(drawn, x).argmax()].double().numpy()
        posterior = self.estimator(self.records(x))

        def negative(z: np.ndarray) -> float:
            return -float(posterior.log_prob(prior.from_normal(z[None])).values[0])

        start = prior.to_normal(within_rounding(prior, {n: best[i : i + 1] for i, n in enumerate(self.parameters)}))[0]
        found = minimize(negative, start, method="Nelder-Mead", options={"maxiter": num_iter, "xatol": 1e-4, "fatol": 1e-5}).x
        theta = prior.from_normal(found[None])
        return torch.from_numpy(np.stack([theta[name] for name in self.parameters], -1)).float()

    def records(self, x: Any) -> Records:
        """Observations, shape ``(object, entry)`` or ``(entry,)``, as records; see :func:`sbi_da.vectors.records_of`."""
        return records_of(self.estimator.layout, x, self.missing, "real" if self.real else "simulated")

    def tensors(self, records: Records) -> tuple[Tensor, Tensor]:
        """Records with known parameters as sbi's ``thetas``, ``(object, parameter)``, and ``xs``, ``(object, entry)``, errors included.

        What is not observed is :attr:`missing`, as is the error of a limit.
        """
        absent = [name for name in self.parameters if name not in records.parameters]
        if absent:
            raise SbiDaError(f"the records lack {', '.join(absent)}: diagnostics need the true parameters")
        theta = np.stack([records.parameters[name] for name in self.parameters], -1)
        x = vectors_of(self.estimator.layout, records, self.missing)
        return torch.from_numpy(theta).float(), torch.from_numpy(x).float()

    def _one(self, x: Any) -> Any:
        x = self._x if x is None else x
        if x is None:
            raise SbiDaError("x: give the observation, or set it with set_default_x")
        x = torch.atleast_2d(torch.as_tensor(x))
        if len(x) != 1:
            raise SbiDaError(f"x holds {len(x)} observations where one is meant: use sample_batched or log_prob_batched")
        return x


def draws_of(posterior: Posterior, n: int = 1000, seed: int = 0) -> Tensor:
    """Draws of a posterior's reported quantities as sbi's plots and tests take them, shape ``(draw, object, quantity)``, float32."""
    drawn = posterior.sample(n, seed)
    return torch.from_numpy(np.stack([drawn[name].values.T for name in posterior.reported], -1)).float()
