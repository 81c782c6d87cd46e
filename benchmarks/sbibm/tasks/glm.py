r"""A spiking neuron.

In each of 100 bins a spike is seen with probability :math:`1/(1 + e^{-\psi_t})`, :math:`\psi = V\theta`: the first parameter is the
offset, the other nine filter a white-noise stimulus over the last nine bins. The data are the sufficient statistics :math:`V^T y` of the
spikes :math:`y`: their number and the spike-triggered sums. The likelihood is that of the spikes,

.. math:: \log L = \theta\cdot x - \sum_t \log(1 + e^{\psi_t}),

up to a factor of :math:`x` alone, the number of spike trains with these sums. The prior is :math:`\theta_1\sim N(0, 2)` and, for the
filter, :math:`N(0, (F^TF)^{-1})` with :math:`F` a second difference whose diagonal grows: filters are smooth.
"""

import numpy as np
import torch
from torch import Tensor

from benchmarks.sbibm.priors import Affine, Gaussian
from benchmarks.sbibm.tasks.task import Task
from benchmarks.sbibm.tempering import tempered
from sbi_da.errors import SbiDaError

__all__ = ["BernoulliGlm", "design"]

BINS, FILTER = 100, 9


def design() -> Tensor:
    """The matrix ``V``, shape ``(bin, parameter)``: ones, then the stimulus delayed by 0, 1, ... 8 bins."""
    stimulus = torch.from_numpy(np.random.RandomState(42).standard_normal(BINS))
    columns = [torch.ones(BINS, dtype=torch.float64)]
    for delay in range(FILTER):
        columns.append(torch.cat([torch.zeros(delay, dtype=torch.float64), stimulus[: BINS - delay]]))
    return torch.stack(columns, -1)


def covariance() -> Tensor:
    """Of the prior."""
    step = torch.eye(FILTER, dtype=torch.float64) - torch.diag(torch.ones(FILTER - 1, dtype=torch.float64), -1)
    smooth = step @ step + torch.diag((torch.arange(FILTER, dtype=torch.float64) / FILTER).sqrt())
    return torch.block_diag(torch.tensor([[2.0]], dtype=torch.float64), torch.linalg.inv(smooth.T @ smooth))


class BernoulliGlm(Task):
    """Ten parameters, ten sufficient statistics."""

    name, data, prior = "bernoulli_glm", 1 + FILTER, Gaussian(covariance())

    def __init__(self) -> None:
        self.design = design()

    def simulate(self, theta: Tensor, generator: torch.Generator) -> Tensor:  # noqa: D102
        chance = torch.sigmoid(theta @ self.design.T)
        spikes = torch.rand(chance.shape, generator=generator, dtype=torch.float64) < chance
        return spikes.double() @ self.design

    def log_likelihood(self, theta: Tensor, x: Tensor) -> Tensor:
        """Up to a function of the data alone."""
        silence = torch.nn.functional.softplus(theta @ self.design.T).sum(-1)
        return (theta * x).sum(-1) - silence

    def draw(self, known: Tensor, values: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """Parameters by tempered particles where the data are known.

        Raises:
            SbiDaError: some of the data are known and others are not; spike trains cannot be counted then.
        """
        theta_known, x_known = known[: self.parameters], known[self.parameters :]
        theta, x = values[: self.parameters], values[self.parameters :]
        if not x_known.any():
            drawn = self.prior.given(theta_known, theta, n, generator)
            return torch.cat([drawn, self.simulate(drawn, generator)], -1)
        if not x_known.all():
            raise SbiDaError(f"{self.name}: the data are known all or not at all, as sums over the same spikes")
        drawn = theta.expand(n, -1).clone()
        if not theta_known.all():
            place = Affine(self.prior.covariance, theta_known, theta)
            z = tempered(lambda z: self.log_likelihood(place(z), x), int((~theta_known).sum()), n, generator)
            drawn = place(z)
        return torch.cat([drawn, x.expand(n, -1)], -1)
