"""The prior of the parameters a config chooses to infer."""

from collections.abc import Sequence

import numpy as np

from sbi_da.distributions import Law, Tabulated
from sbi_da.errors import UnknownNameError
from sbi_da.prior import Prior
from sbi_da.simulators import Simulator

__all__ = ["inference_prior"]

DRAWS = 200_000


def inference_prior(simulator: Simulator, names: Sequence[str], seed: int = 0) -> Prior:
    """The simulator's prior restricted to ``names``.

    Where the chosen parameters carry all their laws and limits depend on, the laws are exact. For derived quantities, and for
    parameters whose law or limits depend on one that is not chosen, the one-dimensional marginal is tabulated from draws.
    """
    known = [p.name for p in (*simulator.parameters, *simulator.derived)]
    for name in names:
        if name not in known:
            raise UnknownNameError("parameter", name, known)
    prior = simulator.prior
    chosen = set(names)
    exact = [
        n for n in prior.names
        if n in chosen and set(prior.laws[n].given) <= chosen and (n not in prior.limits or set(prior.limits[n].given) <= chosen)
    ]
    tabulated = [n for n in names if n not in exact]
    laws: dict[str, Law] = {n: prior.laws[n] for n in exact}
    if tabulated:
        theta = prior.sample(DRAWS, np.random.default_rng(seed))
        theta = {**theta, **simulator.derive(theta)}
        for name in tabulated:
            laws[name] = Tabulated.from_draws(theta[name], simulator.parameter(name).bounds)
    return Prior(laws, {n: prior.limits[n] for n in exact if n in prior.limits})
