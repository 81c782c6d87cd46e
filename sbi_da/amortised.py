"""Mixture posteriors of real objects to train on: RoPE in its amortised form (Senouf et al. 2025, arXiv:2508.15593)."""

import numpy as np

from sbi_da.aligning import Paired
from sbi_da.alignment.mixture import BankMixture, couple
from sbi_da.alignment_config import MixtureSpec
from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.layout import Observations
from sbi_da.records import ABSENT, Records
from sbi_da.simulators import Simulator
from sbi_da.sources import PopulationWeights, SimulatorSource

__all__ = ["mixture_draws"]

LARGEST = 4000
"""Real objects, at most, that are coupled with a bank."""
DRAWS = 16
"""From the posterior of each."""


def mixture_draws(
    estimator: Estimator, simulator: Simulator, real: Records, spec: MixtureSpec, weights: PopulationWeights | None = None,
    corrected: bool = False, seed: int = 0,
) -> Paired:
    """Real objects with draws from their mixture posteriors.

    Objects with the same surveys are coupled together, with simulations that lack the channels they lack.

    Args:
        estimator: its contexts are coupled, its posteriors of simulations are mixed.
        simulator: of the bank.
        real: real objects.
        spec: how they are coupled.
        weights: population of real objects over the prior, of normal scores ``(simulation, parameter)``; None: they are the same.
        corrected: whether the simulator is a corrected one, whose objects take the branch of real ones.
        seed: of all draws.

    Raises:
        SbiDaError: no simulation of a bank has a weight to be trusted.
    """
    rng = np.random.default_rng(seed)
    layout = estimator.layout
    observed = layout.read(real.isel(np.sort(rng.permutation(len(real))[:LARGEST])))
    source = SimulatorSource(simulator, layout.surveys, estimator.prior, seed=seed)
    present = observed.state != ABSENT
    surveys = np.stack([present[:, layout.survey_index == k].any(1) for k in range(len(layout.surveys))], 1)
    z = np.empty((len(observed), DRAWS, len(estimator.parameter_names)))
    for k, pattern in enumerate(np.unique(surveys, axis=0)):
        rows = np.flatnonzero((surveys == pattern).all(1))
        bank = source.examples(spec.bank, k)
        seen = (bank.observed.state != ABSENT).any(1)  # a source has objects that nobody looked at
        simulated, bank_z = bank.observed.take(seen), bank.z[seen]
        state = np.where(present[rng.choice(rows, len(bank_z))], simulated.state, ABSENT).astype(simulated.state.dtype)
        contexts = estimator.encode(Observations(simulated.value, simulated.error, state), real=corrected)
        masses = None if weights is None else contexts.new_tensor(weights(bank_z))
        if masses is not None and not masses.any():
            raise SbiDaError("the population of real objects is too far from the simulated one to weigh a bank: switch one of the two off")
        asked = estimator.told.fused(estimator.encode(observed.take(rows), real=True))
        shares = couple(asked, estimator.told.fused(contexts), spec.gamma, spec.tau, masses)
        drawn = BankMixture(estimator.density[1], contexts, shares).sample(DRAWS, z.shape[2], seed + k)
        z[rows] = np.clip(drawn.numpy(), -8, 8)
    return Paired(observed, None, z)
