"""What the three galaxy benchmarks share: methods, splits, and rows of scores.

Every method is a config of ``configs/galaxies``: it is trained on labelled simulations (``sbi-da train``), then adapted to the unlabelled
real galaxies of the training split (``sbi-da align``), and scored on the test split. All use one backbone and one budget, so that what
differs is the method; the default adds what it measures of the images. Labels of the target are sealed; they are opened by the
evaluation, and for the oracle alone in training.

Classes are decided twice: as most probable, under the class fractions that a posterior assumes (of the simulations, or as estimated for the
target), and under equal fractions, so that a method finds a rare class neither more nor less often for taking it to be common.
"""

import argparse
import json
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.result import named, table, with_earlier, write
from sbi_da.alignment.anomalies import entropy_score
from sbi_da.class_alignment_run import align_classes
from sbi_da.class_evaluation import open_labels
from sbi_da.config import load_config
from sbi_da.diagnostics.anomalies import anomaly_metrics, rejection_metrics
from sbi_da.diagnostics.class_runs import evaluate_runs
from sbi_da.estimator import Estimator
from sbi_da.records import Records
from sbi_da.runs import train

__all__ = ["METHODS", "Problem", "main"]

METHODS = {
    "none": None, "galaxy_da": "galaxy_da", "galaxy_da_as_executed": "galaxy_da_as_executed", "deepastrouda": "deepastrouda",
    "deepmerge2": "deepmerge2", "default": "default", "oracle": None,
}
REPRODUCED = ("galaxy_da", "galaxy_da_as_executed", "deepastrouda", "deepmerge2")
BACKBONE = "{kind: compact, options: {widths: [16, 32, 64], blocks: [1, 1, 1]}, domain_norm: %s, measured: %s}"
BUDGET = {"training": "training.epochs={e} training.steps_per_epoch=40 training.batch=64 training.warmup=60 training.validation=400",
          "alignment": "alignment.epochs={a} alignment.steps_per_epoch=40 alignment.batch=64"}


@dataclass(frozen=True)
class Problem:
    """Labelled simulations and a target.

    Attributes:
        source: labelled simulations.
        adapt: target objects without labels.
        test: target objects to score.
        classes: names; others among the target's labels are unknown.
        default: the config that is the default method here.
        match: what it needs to know of these simulations.
    """

    source: Records
    adapt: Records
    test: Records
    classes: tuple[str, ...]
    survey: str
    default: str = "default"
    match: tuple[str, ...] = ()


def overrides(problem: Problem, records: Path, seed: int, apart: bool, epochs: tuple[int, int], measured: bool = False) -> list[str]:
    """What a benchmark changes of every config."""
    budget = " ".join(BUDGET.values()).format(e=epochs[0], a=epochs[1])
    return [
        "simulator=null", f"surveys=[{problem.survey}]", f"training.records={records}", f"seed={seed}",
        f"network.images={BACKBONE % (str(apart).lower(), str(measured).lower())}",
        "training.learning_rate=0.002", "training.weight_decay=0.01",
        "training.gradient_clip=5", "training.optimiser=adamw", "training.patience=100", "alignment.learning_rate=0.001",
        *budget.split(" "),
    ]


def trained(problem: Problem, method: str, seed: int, folder: Path, epochs: tuple[int, int]) -> tuple[Estimator, dict[str, Any]]:
    """The estimator of a method, and what its adaptation found."""
    name = METHODS[method] or "default"
    records = folder / ("target.zarr" if method == "oracle" else "source.zarr")
    if method == "oracle":
        epochs = (2 * sum(epochs), 1)  # what the others spend, and more
    whole = load_config(f"galaxies/{name}", overrides(problem, records, seed, method == "deepastrouda", epochs))
    if method == "default":
        own = load_config(f"galaxies/{problem.default}").alignment
        mine = [f"alignment.learning_rate={own.learning_rate}", *problem.match]
        whole = load_config(f"galaxies/{problem.default}", [*overrides(problem, records, seed, False, epochs, True), *mine])
    stage = "base" if method == "none" else method
    base = train(whole, folder / f"{stage}_{seed}", progress=False)
    if METHODS[method] is None:
        return base, {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = align_classes(base, problem.adapt, None, whole.alignment, None, seed)
    found.candidate.save(folder / f"{method}_{seed}_aligned")
    return found.candidate, {"alarm": found.verdict.reason, "fractions": found.fractions.fractions.tolist()}


@dataclass(frozen=True)
class Scored:
    """Probabilities ``(object, class)`` and labels of test objects of known classes, and the class fractions that these assume."""

    p: np.ndarray
    y: np.ndarray
    assumed: np.ndarray

    @property
    def equal(self) -> np.ndarray:
        """Probabilities under equal class fractions."""
        weighed = self.p / np.maximum(self.assumed, 1e-9)
        return weighed / weighed.sum(1, keepdims=True)


def scored(estimator: Estimator, problem: Problem, name: str = "morphology") -> tuple[Scored, dict[str, Any]]:
    """Answers on the test objects of known classes, and figures of the anomalies."""
    codes = open_labels(problem.test, name, problem.classes)
    judged = problem.test.isel(np.isfinite(codes))
    codes = codes[np.isfinite(codes)].astype(int)
    observed = estimator.layout.read(judged)
    context = estimator.encode(observed, real=True)
    posterior = estimator.classify(context, judged.ids, True)
    p = posterior.probabilities().values
    strange, extra = codes < 0, {}
    if strange.any():
        scores = {"score": estimator.anomaly(observed, context), "entropy": entropy_score(p)}
        for score, values in scores.items():
            extra[f"anomaly_auroc_{score}"] = anomaly_metrics(values, strange)["auroc"]["value"]
        found = rejection_metrics(p, np.where(strange, 0, codes), scores["score"], strange, replicates=200)
        for name, share in (("none", "none"), ("5 % rejected", "5"), ("10 % rejected", "10")):
            extra[f"open_macro_f1_rejecting_{share}"] = found[name]["macro_f1_open"]["value"]
        extra["unknown_rejected_10"] = found["10 % rejected"]["rejected_unknown"]["value"]
    return Scored(p[~strange], codes[~strange], posterior.fractions), extra


def row(method: str, seed: int, found: Scored, classes: Sequence[str], seconds: float, **extra: Any) -> dict[str, Any]:
    """Scores of one run."""
    from sklearn.metrics import f1_score, recall_score

    p, y, best = found.p, found.y, found.p.argmax(1)
    recall, recall_equal = (
        recall_score(y, q.argmax(1), labels=range(len(classes)), average=None, zero_division=0) for q in (p, found.equal)
    )
    f1, f1_equal = (
        float(f1_score(y, q.argmax(1), labels=range(len(classes)), average="macro", zero_division=0)) for q in (p, found.equal)
    )
    return {
        "method": method, "seed": seed, "macro_f1": f1, "macro_f1_equal": f1_equal,
        "accuracy": float((best == y).mean()), "balanced_accuracy": float(recall.mean()),
        "nll": float(-np.log(np.maximum(p[np.arange(len(y)), y], 1e-9)).mean()),
        **{f"recall_{c}": float(r) for c, r in zip(classes, recall, strict=True)},
        **{f"recall_equal_{c}": float(r) for c, r in zip(classes, recall_equal, strict=True)}, "seconds": round(seconds), **extra,
    }


def figures(runs: Mapping[str, list[Scored]], rows: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    """Headline figures, with 95 % intervals over objects and seeds."""
    y = next(iter(runs.values()))[0].y
    same = all(np.array_equal(y, one.y) for each in runs.values() for one in each)
    scores = {method: evaluate_runs([(one.p, one.y) for one in each], classes, same) for method, each in runs.items()}
    equal = {method: evaluate_runs([(one.equal, one.y) for one in each], classes, same) for method, each in runs.items()}
    counts = np.bincount(y, minlength=len(classes))
    rare = classes[int(counts.argmin())]
    out: dict[str, Any] = {}
    major = np.full(len(y), counts.argmax())
    from sklearn.metrics import f1_score

    out["macro_f1_majority"] = {"value": float(f1_score(y, major, labels=range(len(classes)), average="macro", zero_division=0))}
    for method, found in scores.items():
        out[f"macro_f1_{method}"] = found["macro_f1"]
        out[f"rare_recall_{method}"] = found[f"recall: {rare}"]
        out[f"rare_recall_equal_{method}"] = equal[method][f"recall: {rare}"]
        out[f"macro_f1_equal_{method}"] = equal[method]["macro_f1"]
    there = [m for m in REPRODUCED if m in scores]
    if there:
        out["macro_f1_best_reproduced"] = max((out[f"macro_f1_{m}"] for m in there), key=lambda f: f["value"])
    if {"none", "default", "oracle"} <= set(scores):
        none, own, top = (out[f"macro_f1_{m}"]["value"] for m in ("none", "default", "oracle"))
        out["gap_closed_default"] = {"value": (own - none) / (top - none)}
    rejecting = [f"open_macro_f1_rejecting_{share}" for share in ("none", "5", "10")]
    for key in ("anomaly_auroc_score", "anomaly_auroc_entropy", *rejecting):
        for method in scores:
            values = [r[key] for r in rows if r["method"] == method and key in r]
            if values:
                out[f"{key}_{method}"] = {"value": float(np.mean(values)), "low": float(np.min(values)), "high": float(np.max(values))}
    return out


def main(name: str, make: Callable[[int], Problem], description: str, given: Sequence[str] | None = None) -> None:
    """Run a benchmark with arguments; None: those of the command line."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--methods", default="all", help=f"comma-separated, of {', '.join(METHODS)}")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--runs", type=Path, required=True, help="folder of data, runs and probabilities; what is there is not done again")
    parser.add_argument("--epochs", type=int, nargs=2, default=(12, 12), metavar=("TRAIN", "ALIGN"))
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args(given)
    methods = named(parser, arguments.methods, METHODS)
    torch.set_num_threads(arguments.threads)
    rows: list[dict[str, Any]] = []
    runs: dict[str, list[Scored]] = {}
    seeds = [int(s) for s in arguments.seeds.split(",")]
    for seed in seeds:
        folder = arguments.runs / f"seed_{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        problem = None
        for method in methods:
            kept = folder / f"{method}.npz"
            if not kept.exists():
                problem = problem or _made(make, seed, folder)
                started = time.perf_counter()
                estimator, found = trained(problem, method, seed, folder, tuple(arguments.epochs))
                answers, extra = scored(estimator, problem)
                made = row(method, seed, answers, problem.classes, time.perf_counter() - started, **extra, **found)
                np.savez(kept, p=answers.p, y=answers.y, assumed=answers.assumed, row=json.dumps(made), classes=np.array(problem.classes))
            held = np.load(kept)
            rows.append(json.loads(str(held["row"])))
            runs.setdefault(method, []).append(Scored(held["p"], held["y"], held["assumed"]))
            classes = [str(c) for c in held["classes"]]
            print(json.dumps(rows[-1]), flush=True)
    columns = [
        "method", "seed", "macro_f1", "balanced_accuracy", "accuracy", "nll", *(f"recall_{c}" for c in classes), "macro_f1_equal",
        *(f"recall_equal_{c}" for c in classes), "seconds",
    ]
    print(table(columns, [[r[c] for c in columns] for r in rows]))
    summary = figures(runs, rows, classes)
    print(json.dumps(summary, indent=1, default=float))
    write(name, with_earlier(name, rows, ("method", "seed")), summary, seeds)


def _made(make: Callable[[int], Problem], seed: int, folder: Path) -> Problem:
    """A problem, with its records on disk for the training."""
    problem = make(seed)
    for which, records in (("source", problem.source), ("target", _oracle(problem))):
        path = folder / f"{which}.zarr"
        if path.exists():
            shutil.rmtree(path)
        records.save(path)
    return problem


def _oracle(problem: Problem) -> Records:
    """Target objects of known classes with their labels open."""
    codes = open_labels(problem.adapt, "morphology", problem.classes)
    known = problem.adapt.isel(codes >= 0).opened().with_parameters({"morphology": codes[codes >= 0]})
    known.tree.attrs.update({"domain": "simulated", "classes_morphology": list(problem.classes)})
    return known
