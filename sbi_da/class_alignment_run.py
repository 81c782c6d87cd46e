"""Adapting a classifier to real objects without their labels, and saying what shows that this helped or harmed."""

import copy
import json
import time
import warnings
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from sbi_da.alignment.gate import FEWEST, Verdict, judge_by_labels
from sbi_da.alignment.label_shift import ClassFractions, bbse, label_shift_em
from sbi_da.alignment.selection import select
from sbi_da.alignment_config import AlignmentConfig
from sbi_da.atomic import whole_folder
from sbi_da.class_aligning import ClassAlignmentModule, TwoStreams
from sbi_da.class_alignment_config import ClassAlignment
from sbi_da.class_evaluation import open_labels
from sbi_da.class_refining import refined
from sbi_da.config import Config, TrainingConfig
from sbi_da.epoch_keeping import EpochKeeper, categorical, label_free
from sbi_da.errors import SbiDaError
from sbi_da.estimator import FITTED, Estimator
from sbi_da.fitting import fit
from sbi_da.layout import Observations
from sbi_da.outlier_exposure import expose
from sbi_da.posterior_loss import finish
from sbi_da.records import Records
from sbi_da.restaged import restaged
from sbi_da.restaging import Restaging
from sbi_da.runs import sources
from sbi_da.sources import Examples, RecordsSource, SimulatorSource, Source, StoredSource

__all__ = ["AlignedClasses", "align_classes", "anew"]

OUTPUTS = ("estimator", "alignment.json", "logs")
"""What a run writes."""
HELD_OUT = 2000
"""Held-out simulations, at most, that judge and calibrate."""
HELD_OUT_EPOCH = 2**31 + 4
RESTAGED = 4000
"""Simulated objects that are restaged where a simulator sets no number."""
Calibration = tuple[torch.Tensor, float, float, torch.Tensor]
ALARM = 0.05
"""Fall of the balanced accuracy on held-out simulations that alarms."""


@dataclass(frozen=True)
class AlignedClasses:
    """Outcome of :func:`align_classes`.

    Attributes:
        estimator: the one to use: the adapted one, or where it does harm the one it started from.
        candidate: the adapted one in any case.
        verdict: what was found.
        fractions: of the classes among the real objects.
    """

    estimator: Estimator
    candidate: Estimator
    verdict: Verdict
    fractions: ClassFractions


def align_classes(
    base: Estimator,
    real: Records,
    labelled: Records | None = None,
    config: AlignmentConfig | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    threads: int | None = None,
    progress: bool = False,
) -> AlignedClasses:
    """Adapt a classifier to real objects.

    Args:
        base: trained on simulations; it is not changed.
        real: real objects; if they have labels, these are not looked at.
        labelled: further real objects whose labels judge, and do nothing else; None: alarms alone judge.
        config: what to do.
        out: folder of the run, which appears when all is done; None: nothing is written.
        seed: of order and transformations.
        threads: torch threads; None leaves torch's own choice.
        progress: show a progress bar.

    Raises:
        SbiDaError: objects too few or marked as simulated, or ``out`` is something else.
    """
    config = config or AlignmentConfig()
    for records in (real, labelled):
        if records is not None and records.attrs.get("domain") == "simulated":
            raise SbiDaError("objects to align with are marked as simulated: give real ones (to try it out, set attrs['domain'] to 'real')")
        if records is not None and len(records) < FEWEST:
            raise SbiDaError(f"only {len(records)} real objects: at least {FEWEST} are needed")
    judges = None if labelled is None else _judges(base, labelled)
    if threads:
        torch.set_num_threads(threads)
    experiment = Config.model_validate(base.metadata["config"])
    started = time.perf_counter()
    with nullcontext() if out is None else whole_folder(out, OUTPUTS) as folder:
        observed = _with_data(base.layout.read(real))
        candidate, held, chosen_epoch, found = _adapted(base, experiment, config, observed, seed, folder, progress)
        fractions = _fractions(candidate, held, observed, config.classes.fractions)
        if found is not None:
            fractions = _joined(fractions, found)
        candidate.population = None if config.classes.fractions == "source" else tuple(fractions.fractions.tolist())
        verdict = _judged(base, candidate, held, observed, judges)
        outliers = candidate.metadata.pop("outliers", None) if verdict.kept else None
        chosen = candidate if verdict.kept else copy.deepcopy(base)
        chosen.metadata["alignment"] = {
            "config": config.model_dump(mode="json"), "verdict": verdict.to_dict(), "seconds": time.perf_counter() - started,
            "unlabelled": len(real), "judging": 0 if labelled is None else len(labelled), "seed": seed, "epoch": chosen_epoch,
            "fractions": {
                name: {"value": float(v), "low": float(low), "high": float(high)}
                for name, v, low, high in zip(base.classes, fractions.fractions, fractions.low, fractions.high, strict=True)
            },
            "fractions_trusted": fractions.trusted, "outliers": outliers,
        }
        if folder is not None:
            chosen.save(folder / "estimator")
            (folder / "alignment.json").write_text(json.dumps(chosen.metadata["alignment"], indent=1))
    if not verdict.kept:
        warnings.warn(f"alignment is not used: {verdict.reason}", stacklevel=2)
    return AlignedClasses(chosen, candidate, verdict, fractions)


def _judges(base: Estimator, labelled: Records) -> tuple[Records, np.ndarray]:
    """Objects whose class is one of the estimator's, and which."""
    codes = open_labels(labelled, base.parameter_names[0], base.classes)
    known = np.isfinite(codes) & (codes >= 0)
    if known.sum() < FEWEST:
        raise SbiDaError(f"only {known.sum()} labelled objects are {' or '.join(base.classes)}: at least {FEWEST} are needed to judge")
    return labelled.isel(known), codes[known].astype(int)


def _joined(counted: ClassFractions, refined: np.ndarray) -> ClassFractions:
    """Mean of two estimates that err in opposite directions, and an interval that holds both.

    A network counts too few of what it is not sure of; the refinement, fitted as if classes were equally common, too many.
    """
    middle = 0.5 * (counted.fractions + refined)
    middle = middle / middle.sum()
    half = 0.5 * np.abs(counted.fractions - refined) + 1.96 * counted.sd
    return replace(counted, fractions=middle, sd=half / 1.96, low=np.clip(middle - half, 0, 1), high=np.clip(middle + half, 0, 1))


def _with_data(observed: Observations) -> Observations:
    """Objects of which anything was observed."""
    kept = np.flatnonzero((observed.states != 0).any(1))
    if len(kept) < FEWEST:
        raise SbiDaError(f"only {len(kept)} of the real objects have any data: at least {FEWEST} are needed")
    return observed.take(kept)


def _adapted(
    base: Estimator, experiment: Config, config: AlignmentConfig, real: Observations, seed: int, folder: Path | None, progress: bool
) -> tuple[Estimator, Examples, int, np.ndarray | None]:
    """An adapted copy, finished on held-out simulations, which come back, the epoch it is of, and class fractions by refinement."""
    candidate = copy.deepcopy(base)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        candidate.adapt(config.adapter)
    candidate.population = None
    head = categorical(candidate)
    calibration = None if config.train == "all" else (
        head.log_prior_correction.clone(), float(head.gamma), float(head.temperature), head.bias.clone(),
    )
    head.correct(torch.zeros_like(head.log_prior_correction), 0.0, 1.0, torch.zeros_like(head.bias))
    settings = experiment.training
    training = TrainingConfig(
        epochs=config.epochs, steps_per_epoch=config.steps_per_epoch, batch=config.batch, learning_rate=config.learning_rate,
        optimiser=config.optimiser or settings.optimiser, warmup=50, gradient_clip=settings.gradient_clip,
        weight_decay=settings.weight_decay if config.weight_decay is None else config.weight_decay,
        augmentation=config.augmentation or settings.augmentation,
    )
    source, validation = sources(experiment, base)
    held = validation.examples(min(HELD_OUT, settings.validation), HELD_OUT_EPOCH)
    plan, plain = config.classes, (source, held)
    if plan.restage is not None:
        source, held = _restaged(base, plan.restage, source, settings.simulations or RESTAGED, real, held, seed)
        validation = StoredSource(held, seed)
        candidate = anew(candidate, source, seed)  # what was learned of images that looked otherwise is no good start
    candidate.withhold_measured(plan.refine is not None and plan.refine.rounds > 0)
    streams = (source, validation, real)
    epoch = _trained(candidate, training, config, streams, held, seed, folder, progress)
    if plan.refine is None:
        if calibration is None:  # otherwise anomaly scores stay as they are, too
            _watched(candidate, plan, plain, real, seed, progress)
        return _finished(candidate, streams, settings.validation, calibration), held, epoch, None
    shorter = training.model_copy(update={"epochs": plan.refine.epochs})
    lighter = config.model_copy(update={"classes": plan.model_copy(update={
        "supervised": plan.refine.supervised, "select": "last", "terms": [], "teacher": 0.0,
    }), "terms": []})
    for round_ in range(plan.refine.rounds + 1):
        last = round_ == plan.refine.rounds
        found = refined(candidate, real, plan.refine)
        if plan.refine.rounds:
            candidate = anew(candidate, source, seed + 1 + round_)
        candidate.withhold_measured(not last)
        _trained(candidate, shorter, lighter, streams, held, seed + 1 + round_, None, progress, (plan.refine.weight, found.lessons))
    if calibration is None:
        _watched(candidate, plan, plain, real, seed, progress)
    return _finished(candidate, streams, settings.validation, calibration), held, epoch, found.fractions


def _watched(
    candidate: Estimator, plan: ClassAlignment, plain: tuple[Source, Examples], real: Observations, seed: int, progress: bool
) -> None:
    """Give a candidate the outlier detectors that are asked for, instead of those it had."""
    candidate.detect(())
    if plan.outliers is not None:
        found = expose(candidate, *plain, real, plan.outliers, plan.restage or Restaging(tilt=False), seed, progress)
        candidate.metadata["outliers"] = {name: {"auroc_held_out": value} for name, value in found.items()}


def _finished(
    candidate: Estimator, streams: tuple[Source, Source, Observations], count: int, calibration: Calibration | None
) -> Estimator:
    """A trained candidate, calibrated; or with the calibration it had, where simulated objects are to be answered as before."""
    if not all(torch.isfinite(p).all() for p in candidate.parameters()):
        raise SbiDaError("the training of the alignment diverged: lower alignment.learning_rate")
    if calibration is not None:
        categorical(candidate).correct(*calibration)
        return candidate.eval()
    source, validation, real = streams
    finish(candidate.eval(), source, validation, count, real)
    return candidate


def anew(estimator: Estimator, source: Source, seed: int) -> Estimator:
    """An untrained estimator like another, with its pretrained or frozen image encoders, centred and scaled by a source."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = Estimator(
            estimator.layout.surveys, estimator.prior, estimator.parameters_info, estimator.network, estimator.derived, estimator.simulator,
            estimator.metadata, estimator.adapter.parts if estimator.adapter else (),
        )
    if fresh.images is not None and estimator.images is not None:
        fresh.images.take_pretrained(estimator.images)
    fresh.fit(source.examples(FITTED, 0).observed)
    return fresh


def _trained(
    candidate: Estimator, training: TrainingConfig, config: AlignmentConfig, streams: tuple[Source, Source, Observations], held: Examples,
    seed: int, folder: Path | None, progress: bool, lessons: tuple[float, np.ndarray] | None = None,
) -> int:
    """Train a candidate; returns the epoch that was kept."""
    source, validation, real = streams
    trainable = [parameter for parameter in candidate.parameters() if parameter.requires_grad]  # frozen layers stay frozen
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = ClassAlignmentModule(candidate.train(), training, config, real, lessons[0] if lessons else 0.0)
        data = TwoStreams(source, validation, training, real, module.views, seed, lessons[1] if lessons else None, module.needs_real)
        keeper = EpochKeeper(candidate, held, real) if config.classes.select != "last" else None
        fit(module, data, training, folder, progress, [] if keeper is None else [keeper])
    for parameter in trainable:
        parameter.requires_grad_(True)
    if module.average is not None:
        candidate.load_state_dict(module.average.state_dict())
    if keeper is None:
        return training.epochs - 1
    epoch = keeper.best(config.classes.select)
    candidate.load_state_dict(keeper.states[epoch])
    return epoch


def _restaged(
    base: Estimator, how: Restaging, source: Source, count: int, real: Observations, held: Examples, seed: int
) -> tuple[Source, Examples]:
    """Simulations, and held-out ones, as the real objects' surveys would show them."""
    rng = np.random.default_rng([seed, 6])
    if not isinstance(source, SimulatorSource | RecordsSource):
        raise SbiDaError("only simulations and records can be restaged")
    everything = source.all if isinstance(source, RecordsSource) else source.examples(count, 0)
    training, fresh = (np.random.default_rng(rng.integers(2**63)) for _ in range(2))
    staged = restaged(base, everything, real, how, training)
    missing = source.missing if isinstance(source, RecordsSource) else None
    return StoredSource(staged, seed, base.layout, missing), restaged(base, held, real, how.model_copy(update={"copies": 1}), fresh)


def _fractions(estimator: Estimator, held: Examples, real: Observations, how: str) -> ClassFractions:
    """Class fractions of the real objects."""
    own, simulated = (_probabilities(estimator, each, side) for each, side in ((real, True), (held.observed, False)))
    if how == "bbse":
        return bbse(simulated, held.z[:, 0].astype(int), own)
    return label_shift_em(own, estimator.assumed_fractions(estimator.network.classifier.correct))


def _probabilities(estimator: Estimator, observed: Observations, real: bool) -> np.ndarray:
    with torch.no_grad():
        found = categorical(estimator).probabilities(estimator.encode(observed, real=real)).double()
    return (found / found.sum(1, keepdim=True)).numpy()


def _judged(
    base: Estimator, candidate: Estimator, held: Examples, real: Observations, judges: tuple[Records, np.ndarray] | None
) -> Verdict:
    """By labels of other real objects, or by an alarm and a label-free risk."""
    codes = held.z[:, 0].astype(int)
    before, after = (_balanced(_probabilities(e, held.observed, False), codes) for e in (base, candidate))
    risks = select({"none": label_free(base, held, real), "aligned": label_free(candidate, held, real)}).scores
    figures = {"balanced_accuracy_simulated": [before, after], "label_free": {k: dict(v) for k, v in risks.items()}}
    if judges is not None:
        known, truth = judges
        scores = [e(known).log_prob(truth).values for e in (base, candidate)]
        found = judge_by_labels(scores[0], scores[1])
        found.figures.update(figures)
        return found
    if after < before - ALARM:
        moved = f"balanced accuracy on held-out simulations fell from {before:.3f} to {after:.3f}"
        return Verdict(False, True, f"harmful: {moved}", figures)
    return Verdict(True, False, "no alarm: held-out simulations are classified as well as before; no labels judge", figures)


def _balanced(probabilities: np.ndarray, codes: np.ndarray) -> float:
    right = probabilities.argmax(1) == codes
    return float(np.mean([right[codes == k].mean() for k in np.unique(codes)]))
