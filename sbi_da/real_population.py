"""The population of real objects, from what there is: labels, posteriors, or a catalogue."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sbi_da.alignment.population import PopulationFit, population_em, population_of_sample, weights_from_labels
from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.labels import all_known, labels_of
from sbi_da.records import Records
from sbi_da.records.channels import numbers
from sbi_da.records.columns import open_source
from sbi_da.simulators import Simulator

__all__ = ["parameter_scores", "population_of_labels", "population_of_posteriors", "population_of_table"]

OBJECTS, DRAWS = 1000, 200
"""Real objects, at most, whose posteriors are asked, and draws of each."""
FEWEST = 100
"""Rows of a catalogue, at least, that lie inside the prior."""


def population_of_labels(
    base: Estimator, simulator: Simulator, labelled: Records, theta: Mapping[str, np.ndarray]
) -> PopulationFit:
    """Of labelled objects, in normal scores of the inferred parameters.

    Args:
        base: infers them.
        simulator: derives them.
        labelled: the objects.
        theta: parameters of the simulator they may have, each of shape ``(object, draw)``.

    Raises:
        SbiDaError: too few objects.
    """
    z = parameter_scores(base, simulator, labelled, theta)
    z = z[np.isfinite(z).all((1, 2))]
    if not all_known(base, labels_of(base, labelled)):
        return _trusted(population_em(z), "labels", "give more labelled objects")
    found = weights_from_labels(np.zeros((2, z.shape[-1])), z[:, 0])
    reason = found.reason if "labels" in found.reason else ""
    return _trusted(PopulationFit(found.population, np.ones(len(z)), np.zeros(1), True, reason), "labels", "give more labelled objects")


def parameter_scores(
    base: Estimator, simulator: Simulator, labelled: Records, theta: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Normal scores of the inferred parameters of labelled objects, shape ``(object, draw, parameter)``; not finite outside the prior.

    Arguments as of :func:`population_of_labels`. Labels that are exact are kept as they are.
    """
    shape = next(iter(theta.values())).shape
    derived = simulator.derive({k: v.ravel() for k, v in theta.items()})
    known = {**theta, **{k: np.asarray(v).reshape(shape) for k, v in derived.items()}}
    known |= {k: np.broadcast_to(v[:, None], shape) for k, (v, error) in labels_of(base, labelled).items() if not error.any()}
    return base.prior.to_normal({k: known[k] for k in base.parameter_names})


def population_of_posteriors(base: Estimator, real: Records, seed: int = 0) -> PopulationFit:
    """The population that makes unlabelled objects most probable; it believes their posteriors.

    Raises:
        SbiDaError: the posteriors do not fix a population.
    """
    some = real.isel(np.sort(np.random.default_rng(seed).permutation(len(real))[:OBJECTS]))
    drawn = base(some).sample(DRAWS, seed)
    z = base.prior.to_normal({k: drawn[k].values for k in base.parameter_names})
    return _trusted(population_em(z[np.isfinite(z).all((1, 2))]), "posteriors", "give more real objects")


def population_of_table(base: Estimator, path: str | Path) -> PopulationFit:
    """The population of a catalogue with a column for each inferred parameter, in the parameter's own unit.

    Raises:
        SbiDaError: a column is missing, or fewer than a hundred rows lie inside the prior.
    """
    source = open_source(path)
    missing = [k for k in base.parameter_names if k not in source.names]
    if missing:
        raise SbiDaError(f"population: {source.title} has no column {', '.join(missing)}: name a column after every inferred parameter")
    z = base.prior.to_normal({k: numbers(source.column(k), f"{source.title}: column {k!r}") for k in base.parameter_names})
    inside = np.isfinite(z).all(1)
    if inside.sum() < FEWEST:
        raise SbiDaError(f"population: {int(inside.sum())} of {len(z)} rows of {source.title} lie inside the prior: at least {FEWEST} must")
    return _trusted(population_of_sample(z[inside]), str(path), "give another catalogue")


def _trusted(found: PopulationFit, origin: str, remedy: str) -> PopulationFit:
    if found.reason:
        raise SbiDaError(f"population: {origin}: {found.reason}: {remedy}, or take the population as the same")
    return found
