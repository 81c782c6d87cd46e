"""How an estimator takes simulated and real objects: figures that raise alarms where no labels judge, and a picture of contexts."""

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.figure import Figure

from sbi_da.diagnostics.domains import domain_auc
from sbi_da.estimator import Estimator
from sbi_da.layout import Observations
from sbi_da.plots import latent_figure
from sbi_da.records import Records
from sbi_da.sources import Examples, PopulationWeights

__all__ = ["DomainFigures", "context_figure", "domain_figures"]

ROWS, DRAWS = 500, 100
"""Real objects whose posteriors are drawn, and draws of each."""


@dataclass(frozen=True)
class DomainFigures:
    """Figures of one estimator.

    Attributes:
        nll: of simulated objects [nats].
        contraction: of the posteriors of real objects, mean over parameters of 1 - variance, that of the prior being one.
        auc: of a probe that tells contexts of real objects from those of simulated ones weighted to their population; None: no
            weights to be trusted.
    """

    nll: float
    contraction: float
    auc: float | None


def domain_figures(
    estimator: Estimator, simulated: Examples, real: Records, weights: PopulationWeights | None = None
) -> DomainFigures:
    """Figures of simulated and real objects.

    Args:
        estimator: whose.
        simulated: by its simulator, from the prior.
        real: unlabelled.
        weights: of simulated objects by normal scores ``(object, parameter)``, all zero where they are not to be trusted; None: none known.
    """
    context = estimator.encode(simulated.observed)
    with torch.inference_mode():
        nll = -estimator.head.log_prob(torch.from_numpy(simulated.z).float(), context).double().numpy()
    some = real.isel(np.sort(np.random.default_rng(0).permutation(len(real))[:ROWS]))
    drawn = estimator(some).sample(DRAWS)
    z = estimator.prior.to_normal({k: drawn[k].values for k in estimator.parameter_names})
    weight = np.zeros(len(simulated)) if weights is None else weights(simulated.z)
    auc = None
    if weight.any():
        on_real = estimator.encode(estimator.layout.read(real), real=True)
        auc = domain_auc(context.numpy(), on_real.numpy(), weight, permutations=100, replicates=100).value
    return DomainFigures(float(nll.mean()), float(1 - z.clip(-6, 6).var(1).mean()), auc)


def context_figure(
    base: Estimator, aligned: Estimator, before: Observations, after: Observations, real: Observations, corrected: bool
) -> Figure:
    """Contexts of simulated and real objects, before and after alignment, with the AUC of a probe that tells them apart.

    Args:
        base: the estimator as it was.
        aligned: as it is.
        before: simulated objects.
        after: objects of the simulator the aligned one was trained on.
        real: real objects.
        corrected: whether that simulator is a corrected one, whose objects pass as real.
    """
    def seen(estimator: Estimator, observed: Observations, as_real: bool) -> np.ndarray:
        return np.asarray(estimator.told.fused(estimator.encode(observed, real=as_real)))

    sides = [
        (seen(base, before, False), seen(base, real, True)),
        (seen(aligned, after, corrected), seen(aligned, real, True)),
    ]
    auc = [domain_auc(*side, permutations=100, replicates=100).value for side in sides]
    return latent_figure(sides[0], sides[1], auc=auc, names=("before alignment", "after alignment"))
