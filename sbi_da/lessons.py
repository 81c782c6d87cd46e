"""What real objects teach an estimator: a corrected simulator, pairs with simulated twins, a population."""

from dataclasses import dataclass, replace

import numpy as np

from sbi_da.aligning import Paired
from sbi_da.alignment.discrepancy import LARGEST
from sbi_da.alignment.gate import Verdict, judge_by_explanation
from sbi_da.alignment.population import PopulationFit
from sbi_da.alignment_config import AlignmentConfig
from sbi_da.corrected import CorrectedSimulator, Explained, correct
from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.labels import LabelledDraws, draw_parameters, labels_of
from sbi_da.layout import Observations
from sbi_da.real_population import parameter_scores, population_of_labels
from sbi_da.records import ABSENT, Records
from sbi_da.simulation import simulate
from sbi_da.simulators import Simulator
from sbi_da.sources import PopulationWeights

__all__ = ["TWINS", "Lesson", "ask_again", "learn_from_labels", "learn_without_labels"]

UNLABELLED, EVERY = 1000, 4
"""Unlabelled objects, at most, that a correction is learned from; one that leaves out every fourth is judged by these."""
HIDDEN = 2.0
"""Without labels: what a correction cannot see, as a multiple of what it sees."""
DRAWS, NUISANCES = (16, 32), (64, 256)
"""Draws of a labelled object's parameters, and skies that may explain it: fewest and most."""
ALL_DRAWS, ALL_NUISANCES = 6400, 51_200
"""Of all labelled objects together, between these bounds."""
LARGEST_RATIO = 5.0
"""Logarithm of the largest ratio of a deployed population to the prior."""
TWINS = 8
"""Simulated twins per labelled object."""


@dataclass(frozen=True)
class Lesson:
    """What real objects teach.

    Attributes:
        simulator: to train on: corrected, or as it was.
        paired: labelled objects with their twins.
        population: of the labelled objects.
        open: whether the pairs hold parameters that labels did not fix and a posterior filled in.
    """

    simulator: Simulator
    paired: Paired | None = None
    population: PopulationFit | None = None
    open: bool = False

    def term_weights(self) -> PopulationWeights | None:
        """Weights of simulated objects in distribution terms; all zero, which switches the terms off, where they are not to be trusted."""
        population = self.population
        if population is None:
            return None

        def weights(z: np.ndarray) -> np.ndarray:
            found = population.weights(z)
            return found.weights if found.trusted else np.zeros(len(z))

        return weights

    def deployed_weights(self) -> PopulationWeights | None:
        """Density of the population over the prior's."""
        population = self.population
        if population is None:
            return None

        def weights(z: np.ndarray) -> np.ndarray:
            log_normal = -0.5 * np.square(z).sum(1) - 0.5 * z.shape[1] * np.log(2 * np.pi)
            return np.asarray(np.exp(np.minimum(population.population.log_prob(z) - log_normal, LARGEST_RATIO)))

        return weights


def learn_from_labels(base: Estimator, simulator: Simulator, labelled: Records, config: AlignmentConfig, seed: int = 0) -> Lesson:
    """Learn from labelled objects what the config asks for.

    Args:
        base: the estimator to align.
        simulator: what it was trained on.
        labelled: real objects whose parameters, or some of them, are known.
        config: what to learn.
        seed: of all draws.

    Raises:
        SbiDaError: fewer than five objects can be used, or too few for a population.
    """
    if not (config.correction or config.needs_pairs or config.population == "labels"):
        return Lesson(simulator)
    if len(labelled) > LARGEST and not config.needs_pairs:
        labelled = labelled.isel(np.sort(np.random.default_rng(seed).permutation(len(labelled))[:LARGEST]))
    nuisances = int(np.clip(ALL_NUISANCES // len(labelled), *NUISANCES))
    drawn, some = _explained_by(base, simulator, labelled, seed)
    theta = drawn.theta
    corrected, paired, population = simulator, None, None
    if config.correction:
        names = list(dict.fromkeys([*labels_of(base, some), *base.parameter_names]))
        observed = base.layout.read(some)
        explained = Explained.of(simulator, base.layout, observed, theta, names, nuisances, seed, drawn.posterior)
        corrected = correct(simulator, base.layout, explained, groups=some.columns.get("group"), seed=seed)
    if config.needs_pairs:
        paired = _paired(base, corrected, some, theta, seed)
    if config.population == "labels":
        population = population_of_labels(base, simulator, some, theta)
    return Lesson(corrected, paired, population, drawn.posterior and paired is not None)


def ask_again(lesson: Lesson, base: Estimator, simulator: Simulator, labelled: Records, asked: Estimator, seed: int = 0) -> Lesson:
    """The lesson, with what labels leave open in its pairs drawn from an estimator that has learned: a step of EM.

    The base's posteriors are wrong in the way that is to be mended, and hold draws back from labels with errors.

    Args:
        lesson: learned with the base.
        base: the estimator to align.
        simulator: what it was trained on.
        labelled: as the lesson was learned from.
        asked: the estimator whose posteriors fill in.
        seed: of all draws.
    """
    drawn, some = _explained_by(asked, simulator, labelled, seed)
    return replace(lesson, paired=_paired(base, lesson.simulator, some, drawn.theta, seed))


def _explained_by(estimator: Estimator, simulator: Simulator, labelled: Records, seed: int) -> tuple[LabelledDraws, Records]:
    """Draws of the parameters of those objects whose labels can be reached, and these objects."""
    draws = int(np.clip(ALL_DRAWS // len(labelled), *DRAWS))
    drawn = draw_parameters(estimator, simulator, labelled, draws, seed)
    used = np.flatnonzero(drawn.used)
    if len(used) < 5:
        reached = f"{len(used)} of {len(labelled)} labelled objects to learn from have labels the simulator can reach"
        raise SbiDaError(f"only {reached}: at least 5 are needed; give more objects, or their labels larger errors")
    return replace(drawn, theta={k: v[used] for k, v in drawn.theta.items()}, used=drawn.used[used]), labelled.isel(used)


def learn_without_labels(base: Estimator, simulator: Simulator, real: Records, seed: int = 0) -> tuple[Lesson, Verdict]:
    """Correct the simulator by what its own posteriors leave unexplained of real objects, and see whether that is visible.

    The draws' own likelihood is not divided out here: without labels that would let a correction explain a shifted population. What is
    judged has not seen its judges; the lesson has learned from all. A scatter stands for what other parameters could mimic.
    """
    rows = np.random.default_rng(seed).permutation(len(real))[:UNLABELLED]
    some = real.isel(np.sort(rows))
    drawn = draw_parameters(base, simulator, some, 8, seed, labels={})
    used = np.flatnonzero(drawn.used)
    held = used[::EVERY]
    taught = np.setdiff1d(used, held)

    def explained(which: np.ndarray) -> Explained:
        theta = {k: v[which] for k, v in drawn.theta.items()}
        observed = base.layout.read(some.isel(which))
        return Explained.of(simulator, base.layout, observed, theta, base.parameter_names, 64, seed)

    judged, found = (
        correct(simulator, base.layout, explained(which), folds=0, sampled=True, seed=seed) for which in (taught, used)
    )
    judges = explained(held)
    without = judged.discrepancy.without_shift()
    wide = CorrectedSimulator(simulator, found.discrepancy.with_hidden(HIDDEN), found.inputs, found.channels)
    return Lesson(wide), judge_by_explanation(judges.score(without), judges.score(judged.discrepancy))


def _paired(base: Estimator, simulator: Simulator, some: Records, theta: dict[str, np.ndarray], seed: int) -> Paired:
    """Labelled objects with twins: simulated at their parameters, with their channels. None of them lies outside the prior."""
    layout = base.layout
    observed = layout.read(some)
    pick = np.random.default_rng(seed).integers(next(iter(theta.values())).shape[1], size=(len(some), TWINS))
    flat = {k: np.take_along_axis(v, pick, axis=1).ravel() for k, v in theta.items()}
    twin = layout.read(simulate(simulator, layout.surveys, len(some) * TWINS, seed, theta=flat))
    state = np.where(np.repeat(observed.state, TWINS, 0) == ABSENT, ABSENT, twin.state).astype(twin.state.dtype)
    z = parameter_scores(base, simulator, some, theta)
    inside = np.isfinite(z).all(2)
    order = np.argsort(~inside, axis=1, kind="stable")
    order = np.take_along_axis(order, np.arange(z.shape[1])[None] % np.maximum(1, inside.sum(1))[:, None], axis=1)  # those inside, again
    z = np.take_along_axis(z, order[:, :, None], axis=1)
    kept = inside.any(1)
    rows = np.repeat(kept, TWINS)
    return Paired(observed.take(kept), Observations(twin.value[rows], twin.error[rows], state[rows]), z[kept], TWINS)
