"""An alignment run: a trained estimator, real objects and labels in, an aligned and judged estimator out."""

import copy
import json
import time
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from sbi_da.aligning import AlignmentModule, ThreeStreams
from sbi_da.alignment.gate import FEWEST, Verdict, judge_by_labels, judge_without_labels
from sbi_da.alignment.population import PopulationFit
from sbi_da.alignment.registry import PAIR_TERMS
from sbi_da.alignment_config import AlignmentConfig, Weighting
from sbi_da.amortised import mixture_draws
from sbi_da.atomic import whole_folder
from sbi_da.config import Config, TrainingConfig
from sbi_da.corrected import CorrectedSimulator
from sbi_da.domain_figures import context_figure, domain_figures
from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.fitting import fit
from sbi_da.labels import invertible_head, label_log_score, label_noise
from sbi_da.learned_shift import LearnedShift
from sbi_da.lessons import TWINS, Lesson, ask_again, learn_from_labels, learn_without_labels
from sbi_da.plots import shift_figure
from sbi_da.posteriors.recalibration import Recalibration, fit_recalibration, gain_of_recalibration
from sbi_da.real_population import population_of_posteriors, population_of_table
from sbi_da.records import Records
from sbi_da.simulators import Simulator, get_simulator
from sbi_da.sources import Examples, ReweightedSource, SimulatorSource, Source

__all__ = ["OUTPUTS", "Aligned", "align"]

OUTPUTS = ("estimator", "alignment.json", "contexts.png", "correction.png", "logs")
"""What a run writes."""
JUDGES = 40
"""Held-out labelled objects, at least, that judge alone: where the share held out is less, halves learn and judge in turn."""
FEWEST_UNLABELLED = 50
"""Unlabelled objects, at least, that a correction is learned from and judged by."""
COMPARED = 2000
"""Simulated objects, and real ones at most, that are compared where there are no labels."""


@dataclass(frozen=True)
class Aligned:
    """Outcome of :func:`align`.

    Attributes:
        estimator: the one to use: the aligned one, or where the gate closed the one it started from.
        candidate: the aligned one in any case.
        verdict: what the gate found of the same alignment with some of the labels.
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
        labelled: real objects whose parameters, or some of them, are known. What is judged has not seen the objects that it is judged
            by; once judged, it learns from them too.
        real: unlabelled real objects, for distribution terms.
        config: what to do; by default the simulator is corrected.
        out: folder of the run, which appears when all is done; None: nothing is written.
        seed: of splits, draws and training.
        threads: torch threads; None leaves torch's own choice.
        progress: show a progress bar.
        simulator: what the estimator was trained on; by default the one it names.

    Raises:
        SbiDaError: what is asked for needs objects that were not given, or too few of them can be used, or ``out`` is something else.
    """
    config = config or AlignmentConfig()
    if base.classes:
        raise SbiDaError("this estimator infers a class: align it with sbi_da.class_alignment_run.align_classes")
    if base.target != "density":
        raise SbiDaError(f"this estimator infers {base.target}: only estimators of parameters and of classes can be aligned")
    experiment = Config.model_validate(base.metadata["config"])
    if simulator is None:
        if experiment.simulator is None:
            raise SbiDaError("the estimator names no simulator to align with: give one")
        simulator = get_simulator(experiment.simulator.name, **experiment.simulator.options)
    _check(base, simulator, labelled, real, config)
    if threads:
        torch.set_num_threads(threads)
    started = time.perf_counter()
    with nullcontext() if out is None else whole_folder(out, OUTPUTS) as folder:
        task = _Task(base, simulator, experiment, config, real, _population(base, real, config, seed), seed, progress)
        lesson, candidate, verdict = _from_labels(task, labelled, folder) if labelled is not None else _without_labels(task, folder)
        chosen = candidate if verdict.kept else copy.deepcopy(base)
        shift = LearnedShift.of(lesson.simulator, base.layout) if isinstance(lesson.simulator, CorrectedSimulator) else None
        chosen.metadata["alignment"] = {
            "config": config.model_dump(mode="json"), "verdict": verdict.to_dict(), "seconds": time.perf_counter() - started,
            "labelled": 0 if labelled is None else len(labelled), "unlabelled": 0 if real is None else len(real), "seed": seed,
            "correction": shift and shift.to_dict(),
        }
        if folder is not None:
            chosen.save(folder / "estimator")
            (folder / "alignment.json").write_text(json.dumps(chosen.metadata["alignment"], indent=1))
            _pictures(task, lesson, candidate, shift, labelled if real is None else real, folder)
    if not verdict.kept:
        warnings.warn(f"alignment is not used: {verdict.reason}", stacklevel=2)
    return Aligned(chosen, candidate, verdict)


@dataclass(frozen=True)
class _Task:
    """What stays the same throughout a run."""

    base: Estimator
    simulator: Simulator
    experiment: Config
    config: AlignmentConfig
    real: Records | None
    population: PopulationFit | None
    seed: int
    progress: bool

    def source(self, simulator: Simulator, simulations: int | None, seed: int) -> SimulatorSource:
        """Examples as in the training of the estimator."""
        what = (simulator, self.base.layout.surveys, self.base.prior, self.experiment.missing, self.experiment.proposal)
        return SimulatorSource(*what, simulations, self.seed + seed)

    def from_prior(self, simulator: Simulator) -> Examples:
        """Examples to compare real objects with."""
        what = (simulator, self.base.layout.surveys, self.base.prior, self.experiment.missing)
        return SimulatorSource(*what, seed=self.seed + 2_000_003).examples(COMPARED, 0).usable()


def _check(
    base: Estimator, simulator: Simulator, labelled: Records | None, real: Records | None, config: AlignmentConfig
) -> None:
    if labelled is not None and len(labelled) < FEWEST:
        raise SbiDaError(f"only {len(labelled)} labelled objects: at least {FEWEST} are needed to learn from and to judge by")
    if simulator.prior.names == base.prior.names and simulator.prior.to_dict() != base.prior.to_dict():
        raise SbiDaError("the simulator's prior is not the one the estimator was trained under: was the simulator changed since?")
    needs_labels = config.needs_pairs or config.population == "labels"
    if labelled is None and needs_labels:
        raise SbiDaError("this alignment needs labelled real objects: give some, or switch pairs, labelled and population off")
    if labelled is None and config.correction and real is None:
        raise SbiDaError("the correction needs labelled real objects, or at least unlabelled ones: give some, or switch correction off")
    if config.needs_real and real is None:
        raise SbiDaError("the terms or the mixture of this alignment need unlabelled real objects: give some")
    fewest = FEWEST_UNLABELLED if config.correction and labelled is None else FEWEST
    if real is not None and len(real) < fewest:
        raise SbiDaError(f"only {len(real)} unlabelled real objects: at least {fewest} are needed")
    if config.recalibrate and labelled is not None:
        invertible_head(base)
    for records in (labelled, real):
        if records is not None and records.attrs.get("domain") == "simulated":
            raise SbiDaError("objects to align with are marked as simulated: give real ones (to try it out, set attrs['domain'] to 'real')")


def _population(base: Estimator, real: Records | None, config: AlignmentConfig, seed: int) -> PopulationFit | None:
    """The population of real objects where it does not come from labels."""
    if config.population in ("same", "labels"):
        return None
    if config.population != "posteriors":
        return population_of_table(base, config.population)
    if real is None:
        raise SbiDaError("population: posteriors needs unlabelled real objects: give some")
    return population_of_posteriors(base, real, seed)


def _from_labels(task: _Task, labelled: Records, folder: Path | None) -> tuple[Lesson, Estimator, Verdict]:
    """Judged by labels held out, then learned from all."""
    candidate, verdict, recalibration = _judged(task, labelled, folder)
    lesson = learn_from_labels(task.base, task.simulator, labelled, task.config, task.seed)
    if lesson.open:
        lesson = ask_again(lesson, task.base, task.simulator, labelled, candidate, task.seed)
    candidate = _learned(replace(task, seed=task.seed + 1), candidate, lesson, max(1, task.config.epochs // 2))
    candidate.recalibration = recalibration
    return lesson, candidate, verdict


def _without_labels(task: _Task, folder: Path | None) -> tuple[Lesson, Estimator, Verdict]:
    """Judged by how visible the correction is, and where there are terms by alarms."""
    config, lesson, verdict = task.config, Lesson(task.simulator), Verdict(True, False, "")
    if config.correction and task.real is not None:
        lesson, verdict = learn_without_labels(task.base, task.simulator, task.real, task.seed)
    candidate = _learned(task, None, lesson, config.epochs, folder)
    if verdict.kept and (config.terms or not config.correction):  # what a visible shift does not answer for
        alarms = _judged_without_labels(task, candidate)
        verdict = verdict if verdict.reason and alarms.kept else alarms
    return lesson, candidate, verdict


def _judged_without_labels(task: _Task, candidate: Estimator) -> Verdict:
    """By alarms, on simulated objects and unlabelled ones."""
    if task.real is None:
        return Verdict(False, False, "no labelled objects to judge by")
    simulated = task.from_prior(task.simulator)
    rows = np.sort(np.random.default_rng(task.seed).permutation(len(task.real))[:COMPARED])
    weights = Lesson(task.simulator, population=task.population).term_weights()
    before, after = (domain_figures(which, simulated, task.real.isel(rows), weights) for which in (task.base, candidate))
    auc = None if before.auc is None or after.auc is None else (before.auc, after.auc)
    return judge_without_labels((before.nll, after.nll), (before.contraction, after.contraction), auc)


def _judged(task: _Task, labelled: Records, out: Path | None) -> tuple[Estimator, Verdict, Recalibration | None]:
    """Judge an alignment by labelled objects it has not learned from; the last estimator that was judged comes back.

    Where the share held out is too small to judge, each half is judged by an alignment that learned from the other.
    """
    share, seed = task.config.held_out, task.seed
    if share * len(labelled) < JUDGES:
        first = _share(labelled, 0.5, seed)
        parts = [(first, ~first), (~first, first)]
    else:
        judging = _share(labelled, share, seed)
        parts = [(~judging, judging)]
    none: list[np.ndarray] = []
    aligned: list[np.ndarray] = []
    noise: list[torch.Tensor | None] = []
    for taught, judging in parts:
        judges = labelled.isel(judging)
        candidate = _taught(task, labelled.isel(taught), None if none else out)
        none.append(label_log_score(task.base, judges))
        aligned.append(label_log_score(candidate, judges))
        noise.append(label_noise(candidate, judges) if task.config.recalibrate else None)
    known = [each for each in noise if each is not None]
    recalibration, gain = _recalibration(torch.cat(known)) if known else (None, 0.0)
    groups = labelled.columns.get("group")
    judged = None if groups is None else np.concatenate([groups[judging] for _, judging in parts])
    verdict = judge_by_labels(np.concatenate(none), np.concatenate(aligned), judged)
    if recalibration is not None:
        verdict.figures["recalibration"] = {"inflation": recalibration.inflation, "gain": float(np.mean(gain))}
    return candidate, verdict, recalibration


def _taught(task: _Task, labelled: Records, out: Path | None) -> Estimator:
    """What labelled objects teach a copy of the estimator; where they leave parameters open, it then fills these in and another learns."""
    lesson = learn_from_labels(task.base, task.simulator, labelled, task.config, task.seed)
    candidate = _learned(task, None, lesson, task.config.epochs, out)
    if lesson.open:
        lesson = ask_again(lesson, task.base, task.simulator, labelled, candidate, task.seed)
        candidate = _learned(task, None, lesson, task.config.epochs)
    return candidate


def _recalibration(noise: torch.Tensor) -> tuple[Recalibration | None, np.ndarray]:
    """A recalibration that gains more than one standard error, and what each object gains; NaN rows are not used."""
    used = torch.isfinite(noise).all(1)
    gain = np.zeros(len(noise))
    if int(used.sum()) < max(FEWEST, 2 * noise.shape[1]):
        return None, gain
    gain[used.numpy()] = gain_of_recalibration(noise[used])
    if gain.mean() <= gain.std(ddof=1) / np.sqrt(len(gain)):
        return None, np.zeros(len(noise))
    return fit_recalibration(noise[used]), gain


def _pictures(
    task: _Task, lesson: Lesson, candidate: Estimator, shift: LearnedShift | None, real: Records | None, folder: Path
) -> None:
    """What was learned of the simulator, and contexts of simulated and real objects before and after where there are enough of these."""
    if shift is not None:
        shift_figure(shift.channels, shift.units, shift.shift, shift.unknown, shift.scatter).savefig(folder / "correction.png", dpi=150)
    if real is None or len(real) < FEWEST:
        return
    rows = np.sort(np.random.default_rng(task.seed).permutation(len(real))[:COMPARED])
    before, after = (task.from_prior(simulator).observed for simulator in (task.simulator, lesson.simulator))
    observed = task.base.layout.read(real.isel(rows))
    figure = context_figure(task.base, candidate, before, after, observed, task.config.correction)
    figure.savefig(folder / "contexts.png", dpi=150)


def _share(labelled: Records, share: float, seed: int) -> np.ndarray:
    """A share of the objects, or nearly so where groups must stay together, as a mask."""
    names, group = np.unique(labelled.columns.get("group", labelled.ids), return_inverse=True)
    if len(names) < 2:
        raise SbiDaError("the labelled objects are all of one group: none is left to judge by")
    order = np.random.default_rng(seed).permutation(len(names))
    filled = np.bincount(group, minlength=len(names))[order].cumsum()
    last = int(np.argmin(np.abs(filled[:-1] - share * len(labelled))))
    return np.isin(group, order[: last + 1])


def _learned(task: _Task, candidate: Estimator | None, lesson: Lesson, epochs: int, out: Path | None = None) -> Estimator:
    """Train a candidate on a lesson, and where that is asked for on mixture posteriors of the unlabelled objects."""
    candidate = _train(task, candidate, lesson, epochs, out)
    mixture = task.config.mixture
    if mixture is None or task.real is None:
        return candidate
    lesson = lesson if task.population is None else replace(lesson, population=task.population)
    weights = lesson.deployed_weights() if task.config.deploy else lesson.term_weights()
    drawn = mixture_draws(candidate, lesson.simulator, task.real, mixture, weights, task.config.correction, task.seed)
    config = task.config.model_copy(update={"terms": [], "pairs": [], "labelled": Weighting(kind="fixed", value=1.0), "learned": False})
    return _train(replace(task, config=config), candidate, replace(lesson, paired=drawn), epochs)


def _train(task: _Task, candidate: Estimator | None, lesson: Lesson, epochs: int, out: Path | None = None) -> Estimator:
    """Train a candidate on, by default a copy of the estimator that is aligned."""
    config, experiment, layout = task.config, task.experiment, task.base.layout
    if candidate is None:
        candidate = copy.deepcopy(task.base)
        candidate.adapt(config.adapter)
        candidate.recalibration = None
    training = TrainingConfig(
        epochs=epochs, steps_per_epoch=config.steps_per_epoch, batch=config.batch, learning_rate=config.learning_rate,
        warmup=50, gradient_clip=experiment.training.gradient_clip, weight_decay=experiment.training.weight_decay,
    )
    lesson = lesson if task.population is None else replace(lesson, population=task.population)
    source: Source = task.source(lesson.simulator, experiment.training.simulations, 1)
    deployed = lesson.deployed_weights()
    if config.deploy and deployed is not None:
        source = ReweightedSource(source, deployed)
    streams = ThreeStreams(
        source, source, training, layout.read(task.real) if task.real is not None and config.terms else None, lesson.paired,
        None if config.deploy else lesson.term_weights(),
        TWINS if any(PAIR_TERMS[spec.kind].several for spec in config.pairs) else 1, task.seed,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)
        module = AlignmentModule(candidate.train(), training, source.weighted, config)
        module.learn_level(source)
        fit(module, streams, training, out, task.progress)
    for parameter in candidate.parameters():
        parameter.requires_grad_(True)
    if not all(torch.isfinite(p).all() for p in candidate.parameters()):
        raise SbiDaError("the training of the alignment diverged: lower alignment.learning_rate")
    return candidate.eval()
