"""An alignment run: a trained estimator, real objects and labels in, an aligned and judged estimator out."""

import copy
import json
import time
import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from sbi_da.aligning import AlignmentModule, Paired, ThreeStreams
from sbi_da.alignment.gate import Verdict, judge_by_explanation, judge_by_labels
from sbi_da.alignment.population import PopulationFit, population_em, weights_from_labels
from sbi_da.alignment.registry import PAIR_TERMS
from sbi_da.alignment_config import AlignmentConfig
from sbi_da.config import Config, TrainingConfig
from sbi_da.corrected import Explained, correct
from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.fitting import fit
from sbi_da.labels import draw_parameters, label_log_score, labels_of
from sbi_da.layout import Scalars
from sbi_da.records import ABSENT, Records, split_by_group
from sbi_da.simulation import simulate
from sbi_da.simulators import Simulator, get_simulator
from sbi_da.sources import PopulationWeights, ReweightedSource, SimulatorSource, Source

__all__ = ["OUTPUTS", "Aligned", "align"]

OUTPUTS = ("estimator", "alignment.json", "logs")
"""What a run writes."""
UNLABELLED = 500
"""Unlabelled objects a correction is learned from."""
JUDGES = 20
"""Labelled objects, at least, that are held out to judge where there are twice as many: fewer are too often wrong."""
DRAWS, NUISANCES = (8, 32), (64, 256)
"""Draws of a labelled object's parameters, and skies that may explain it: fewest and most."""
ALL_DRAWS, ALL_NUISANCES = 6400, 51_200
"""Of all labelled objects together, between these bounds."""
LARGEST_RATIO = 5.0
"""Logarithm of the largest ratio of a deployed population to the prior."""
TWINS = 8
"""Simulated twins per labelled object."""


@dataclass(frozen=True)
class Aligned:
    """Outcome of :func:`align`.

    Attributes:
        estimator: the one to use: the aligned one, or where the gate closed the one it started from.
        candidate: the aligned one in any case.
        verdict: what the gate found.
    """

    estimator: Estimator
    candidate: Estimator
    verdict: Verdict


def align(
    base: Estimator,
    labelled: Records | None,
    real: Records | None = None,
    config: AlignmentConfig | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    threads: int | None = None,
    progress: bool = False,
    simulator: Simulator | None = None,
) -> Aligned:
    """Align an estimator with real objects and judge whether that helped.

    Args:
        base: trained on simulations; it is not changed.
        labelled: real objects whose parameters, or some of them, are known; a share is held out to judge.
        real: unlabelled real objects, for distribution terms.
        config: what to do; by default the simulator is corrected.
        out: folder of the run; None: nothing is written.
        seed: of splits, draws and training.
        threads: torch threads; None leaves torch's own choice.
        progress: show a progress bar.
        simulator: what the estimator was trained on; by default the one it names.

    Raises:
        SbiDaError: what is asked for needs objects that were not given, or too few of them can be used.
    """
    config = config or AlignmentConfig()
    experiment = Config.model_validate(base.metadata["config"])
    simulator = simulator or get_simulator(experiment.simulator.name, **experiment.simulator.options)
    _check(base, simulator, labelled, real, config)
    if threads:
        torch.set_num_threads(threads)
    started = time.perf_counter()
    task = _Task(base, simulator, experiment, config, real, seed, out, progress)
    candidate = copy.deepcopy(base)
    candidate.adapt(config.adapter)
    if labelled is None:
        lesson, seen = _without_labels(task)
        _train(task, candidate, lesson, config.epochs)
        verdict = seen or Verdict(False, False, "no labelled objects to judge by")
    else:
        taught, judges = _split(labelled, config.held_out, seed)
        _train(task, candidate, _lesson(task, taught), config.epochs)
        verdict = judge_by_labels(label_log_score(base, judges), label_log_score(candidate, judges))
        if verdict.kept and config.refit:
            _train(replace(task, out=None), candidate, _lesson(task, labelled), max(1, config.epochs // 2))
    if not verdict.kept:
        warnings.warn(f"alignment is not used: {verdict.reason}", stacklevel=2)
    chosen = candidate if verdict.kept else copy.deepcopy(base)
    chosen.metadata["alignment"] = {
        "config": config.model_dump(mode="json"), "verdict": verdict.to_dict(), "seconds": time.perf_counter() - started,
        "labelled": 0 if labelled is None else len(labelled), "unlabelled": 0 if real is None else len(real), "seed": seed,
    }
    if out is not None:
        folder = Path(out)
        chosen.save(folder / "estimator")
        partial = folder / "alignment.partial"
        partial.write_text(json.dumps(chosen.metadata["alignment"], indent=1))
        partial.replace(folder / "alignment.json")
    return Aligned(chosen, candidate, verdict)


@dataclass(frozen=True)
class _Task:
    """What stays the same throughout a run."""

    base: Estimator
    simulator: Simulator
    experiment: Config
    config: AlignmentConfig
    real: Records | None
    seed: int
    out: str | Path | None
    progress: bool


@dataclass(frozen=True)
class _Lesson:
    """What real objects teach: a simulator, pairs, a population."""

    simulator: Simulator
    paired: Paired | None = None
    population: PopulationFit | None = None


def _check(
    base: Estimator, simulator: Simulator, labelled: Records | None, real: Records | None, config: AlignmentConfig
) -> None:
    if simulator.prior.names == base.prior.names and simulator.prior.to_dict() != base.prior.to_dict():
        raise SbiDaError("the simulator's prior is not the one the estimator was trained under: was the simulator changed since?")
    needs_labels = config.needs_pairs or config.population == "labels"
    if labelled is None and (needs_labels or (config.correction and real is None)):
        raise SbiDaError("this alignment needs labelled real objects: give some, or switch pairs, labelled and population off")
    if config.needs_real and real is None:
        raise SbiDaError("the terms of this alignment need unlabelled real objects: give some")


def _lesson(task: _Task, labelled: Records) -> _Lesson:
    """Learn from labelled objects what the config asks for."""
    base, simulator, config, seed = task.base, task.simulator, task.config, task.seed
    if not (config.correction or config.needs_pairs or config.population == "labels"):
        return _Lesson(simulator)
    draws, nuisances = (int(np.clip(total // len(labelled), *each)) for total, each in ((ALL_DRAWS, DRAWS), (ALL_NUISANCES, NUISANCES)))
    drawn = draw_parameters(base, simulator, labelled, draws, seed)
    used = np.flatnonzero(drawn.used)
    if len(used) < 5:
        reached = f"{len(used)} of {len(labelled)} labelled objects have labels the simulator can reach"
        raise SbiDaError(f"only {reached}: at least 5 are needed")
    some, theta = labelled.isel(used), {k: v[used] for k, v in drawn.theta.items()}
    corrected, paired, population = simulator, None, None
    if config.correction:
        names = list(dict.fromkeys([*labels_of(base, some), *base.parameter_names]))
        scalars = base.layout.read(some)
        explained = Explained.of(simulator, base.layout, scalars, theta, names, nuisances, seed, drawn.posterior)
        corrected = correct(simulator, base.layout, explained, seed=seed)
    if config.needs_pairs:
        paired = _paired(base, simulator, some, theta, seed)
    if config.population == "labels":
        population = _population(base, some, theta, simulator)
        if population.reason:
            raise SbiDaError(f"population: labels: {population.reason}: give more labelled objects, or take the population as the same")
    return _Lesson(corrected, paired, population)


def _train(task: _Task, candidate: Estimator, lesson: _Lesson, epochs: int) -> None:
    """Train a candidate on, in place."""
    config, experiment, layout = task.config, task.experiment, candidate.layout
    training = TrainingConfig(
        epochs=epochs, steps_per_epoch=config.steps_per_epoch, batch=config.batch, learning_rate=config.learning_rate,
        warmup=50, gradient_clip=experiment.training.gradient_clip, weight_decay=experiment.training.weight_decay,
        validation=min(4000, experiment.training.validation), patience=epochs,
    )
    what = (lesson.simulator, layout.surveys, task.base.prior, experiment.missing, experiment.proposal)
    source: Source = SimulatorSource(*what, experiment.training.simulations, task.seed + 1)
    if config.deploy and lesson.population is not None:
        source = ReweightedSource(source, _deployed_weights(lesson.population))
    validation = SimulatorSource(*what, None, task.seed + 1_000_003)
    streams = ThreeStreams(
        source, validation, training, None if task.real is None or not config.needs_real else layout.read(task.real), lesson.paired,
        None if lesson.population is None else _term_weights(lesson.population),
        TWINS if any(PAIR_TERMS[spec.kind].several for spec in config.pairs) else 1, task.seed,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)
        module = AlignmentModule(candidate.train(), training, source.weighted, config)
        module.learn_level(source)
        fit(module, streams, training, task.out, task.progress)
    for parameter in candidate.parameters():
        parameter.requires_grad_(True)
    candidate.eval()


def _without_labels(task: _Task) -> tuple[_Lesson, Verdict | None]:
    """The simulator corrected, if the config asks for it, by unlabelled objects, and whether they show that."""
    if not task.config.correction or task.real is None:
        return _Lesson(task.simulator), None
    corrected, seen = _unlabelled(task.base, task.simulator, task.real, task.seed)
    return _Lesson(corrected), seen


def _unlabelled(base: Estimator, simulator: Simulator, real: Records, seed: int) -> tuple[Simulator, Verdict]:
    """Correct the simulator by what its own posteriors leave unexplained of real objects, and see whether that is visible.

    The draws' own likelihood is not divided out here: without labels that would let a correction explain a shifted population.
    """
    rows = np.random.default_rng(seed).permutation(len(real))[:UNLABELLED]
    some = real.isel(np.sort(rows))
    drawn = draw_parameters(base, simulator, some, 8, seed, labels={})
    used = np.flatnonzero(drawn.used)
    held = used[::5]
    taught = np.setdiff1d(used, held)

    def explained(which: np.ndarray) -> Explained:
        theta = {k: v[which] for k, v in drawn.theta.items()}
        scalars = base.layout.read(some.isel(which))
        return Explained.of(simulator, base.layout, scalars, theta, base.parameter_names, 64, seed)

    found = correct(simulator, base.layout, explained(taught), folds=0, sampled=True, seed=seed)
    judges = explained(held)
    without = found.discrepancy.without_shift()
    return found, judge_by_explanation(judges.score(without), judges.score(found.discrepancy))


def _split(labelled: Records, held_out: float, seed: int) -> tuple[Records, Records]:
    """Objects to learn from and objects to judge by: a share, or up to half of all until there are :data:`JUDGES` of these."""
    taught, judges = split_by_group(labelled, (1 - held_out, held_out), seed)
    share = held_out
    while len(judges) < JUDGES and share < 0.5:
        share = min(0.5, 1.1 * share)
        taught, judges = split_by_group(labelled, (1 - share, share), seed)
    return taught, judges


def _paired(base: Estimator, simulator: Simulator, some: Records, theta: dict[str, np.ndarray], seed: int) -> Paired:
    """Labelled objects with twins: simulated at their parameters, with their channels."""
    layout = base.layout
    scalars = layout.read(some)
    pick = np.random.default_rng(seed).integers(next(iter(theta.values())).shape[1], size=(len(some), TWINS))
    flat = {k: np.take_along_axis(v, pick, axis=1).ravel() for k, v in theta.items()}
    twin = layout.read(simulate(simulator, layout.surveys, len(some) * TWINS, seed, theta=flat))
    state = np.where(np.repeat(scalars.state, TWINS, 0) == ABSENT, ABSENT, twin.state).astype(twin.state.dtype)
    first = {k: v[:, 0] for k, v in theta.items()}
    known = {**first, **simulator.derive(first), **{k: v for k, (v, _) in labels_of(base, some).items()}}
    z = base.prior.to_normal({k: known[k] for k in base.parameter_names})
    return Paired(scalars, Scalars(twin.value, twin.error, state), np.where(np.isfinite(z), z, 0.0), TWINS)


def _population(base: Estimator, some: Records, theta: dict[str, np.ndarray], simulator: Simulator) -> PopulationFit:
    """The population of labelled objects, in normal scores."""
    shape = next(iter(theta.values())).shape
    derived = simulator.derive({k: v.ravel() for k, v in theta.items()})
    known = {**theta, **{k: np.asarray(v).reshape(shape) for k, v in derived.items()}}
    exact = {k: v[:, None] for k, (v, error) in labels_of(base, some).items() if not error.any()}
    z = base.prior.to_normal({k: np.broadcast_to(exact.get(k, known[k]), known[k].shape) for k in base.parameter_names})
    z = z[np.isfinite(z).all((1, 2))]
    if not all(k in exact for k in base.parameter_names):
        return population_em(z)
    found = weights_from_labels(np.zeros((2, z.shape[-1])), z[:, 0])
    reason = found.reason if "labels" in found.reason else ""
    return PopulationFit(found.population, np.ones(len(z)), np.zeros(1), True, reason)


def _term_weights(population: PopulationFit) -> PopulationWeights:
    """Weights of simulated objects in distribution terms; all zero, which switches the terms off, where they are not to be trusted."""

    def weights(z: np.ndarray) -> np.ndarray:
        found = population.weights(z)
        return found.weights if found.trusted else np.zeros(len(z))

    return weights


def _deployed_weights(population: PopulationFit) -> PopulationWeights:
    """Density of the population over the prior's."""

    def weights(z: np.ndarray) -> np.ndarray:
        log_normal = -0.5 * np.square(z).sum(1) - 0.5 * z.shape[1] * np.log(2 * np.pi)
        return np.asarray(np.exp(np.minimum(population.population.log_prob(z) - log_normal, LARGEST_RATIO)))

    return weights
