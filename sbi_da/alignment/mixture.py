r"""Posteriors as mixtures over simulations that real objects are coupled to (RoPE: Wehenkel et al. 2024, arXiv 2405.08719).

Where reality carries less information than the simulator, no embedding of one object can widen its posterior; belonging to
several simulations can. A plan :math:`P` couples n real contexts with a bank of m simulated ones,

.. math:: \min_P \langle P, C\rangle + \gamma\langle P, \log P\rangle + \rho\,\mathrm{KL}(P^\top 1 \,\|\, 1/m),\qquad P 1 = 1/n,

with :math:`C_{ij} = \|z_i - h_j\|^2/d`, and the posterior of object i is :math:`\sum_j n P_{ij}\, q(\theta\mid h_j)`. With
:math:`\tau = \rho/(\rho+\gamma) = 1` the real objects as a whole are held to the population of the bank, which must then be
theirs; with :math:`\tau \to 0` each object is on its own (a softmax over the bank). The answer for one object depends on the batch it
is in: fix the batch before comparing objects, or train an estimator on draws from the mixtures (:mod:`sbi_da.amortised`).
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from sbi_da.alignment.plan import entropic_plan
from sbi_da.alignment.term import normalised, squared_distances
from sbi_da.errors import SbiDaError

__all__ = ["BankMixture", "couple"]


def couple(real: Tensor, bank: Tensor, gamma: float = 0.5, tau: float = 1.0, masses: Tensor | None = None) -> Tensor:
    """Weights of the bank's simulations for each real object.

    Args:
        real: contexts, shape ``(n, width)``.
        bank: contexts, shape ``(m, width)``.
        gamma: entropic regularisation, as a fraction of the mean cost.
        tau: from 0 (each object alone) to 1 (the batch has the population of the bank).
        masses: of the bank's simulations, which make its population; None: all alike. Shape ``(m,)``.

    Returns:
        Shape ``(n, m)``, rows sum to one.
    """
    if not 0 <= tau <= 1 or not gamma > 0:
        raise SbiDaError(f"couple: needs 0 <= tau <= 1 and gamma > 0, not {tau:g} and {gamma:g}")
    cost = squared_distances(real, bank)
    epsilon = gamma * float(cost.mean())
    masses = normalised(masses, bank)
    if tau == 0:
        return torch.softmax(masses.log() - cost / epsilon, dim=1)
    rho = None if tau == 1 else epsilon * tau / (1 - tau)
    plan = entropic_plan(cost, normalised(None, real), masses, epsilon, rho_b=rho)
    return plan / plan.sum(1, keepdim=True)


class Law(Protocol):
    """A conditional law over normal scores, such as a posterior head."""

    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """Log-density."""
        ...

    def transform(self, noise: Tensor, context: Tensor) -> Tensor:
        """Standard normal noise to draws."""
        ...


@dataclass(frozen=True)
class BankMixture:
    """Mixture posteriors of a batch of objects, over normal scores.

    Attributes:
        head: q(z | h).
        bank: contexts of the simulations, shape ``(m, width)``.
        weights: shape ``(object, m)``, rows sum to one.
    """

    head: Law
    bank: Tensor
    weights: Tensor

    def log_prob(self, z: Tensor, chunk: int = 64) -> Tensor:
        """Log-density of scores ``(object, parameter)``, shape ``(object,)``."""
        pieces = [z.new_zeros(0)]
        with torch.inference_mode():
            for rows in torch.arange(len(z)).split(chunk):
                own = z[rows][:, None].expand(-1, len(self.bank), -1)
                each = self.head.log_prob(own, self.bank.expand(len(rows), -1, -1))
                pieces.append(torch.logsumexp(each + self.weights[rows].clamp_min(1e-30).log(), dim=1))
        return torch.cat(pieces)

    def sample(self, n: int, parameters: int, seed: int = 0) -> Tensor:
        """Draws of normal scores, shape ``(object, n, parameter)``."""
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        noise = torch.randn(*chosen.shape, getattr(self.head, "noise_size", parameters), generator=generator)
        with torch.inference_mode():
            return self.head.transform(noise, self.bank[chosen])
