"""Accuracy of a classifier that tells a method's draws from the right ones."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.result import figure
from benchmarks.sbibm.conditionals import masked_data, random_conditionals, sample
from benchmarks.sbibm.peers import PEERS
from benchmarks.sbibm.references import reference
from benchmarks.sbibm.runs import QUESTIONS, Run
from benchmarks.sbibm.tasks import Task
from sbi_da.diagnostics import c2st_many

__all__ = ["figures", "row", "score", "score_conditionals", "score_masked"]


def score(run: Run, task: Task, wheel: Path) -> np.ndarray:
    """One accuracy for each observation, against the published draws."""
    right = [reference(wheel, task.name, k + 1).samples for k in range(len(run.samples))]
    return c2st_many(right, list(run.samples))[0]


def score_conditionals(run: Run, task: Task) -> np.ndarray:
    """One accuracy for each question that was asked, against exact draws."""
    questions = random_conditionals(task, len(run.conditionals), QUESTIONS)
    exact = [sample(task, q.known, q.values, len(drawn), QUESTIONS) for q, drawn in zip(questions, run.conditionals, strict=True)]
    alike = defaultdict(list)
    for i, draws in enumerate(exact):
        alike[draws.shape[1]].append(i)
    found = np.empty(len(exact))
    for some in alike.values():
        found[some] = c2st_many([exact[i] for i in some], [run.conditionals[i] for i in some])[0]
    return found


def score_masked(run: Run, task: Task, wheel: Path) -> np.ndarray:
    """One accuracy for each observation with missing data, against exact draws."""
    observed = np.stack([reference(wheel, task.name, k + 1).x for k in range(len(run.samples))])
    questions = masked_data(task, observed, len(run.masked), QUESTIONS)
    exact = [sample(task, q.known, q.values, len(drawn), QUESTIONS) for q, drawn in zip(questions, run.masked, strict=True)]
    return c2st_many([draws[:, : task.parameters] for draws in exact], run.masked)[0]


def row(path: Path, run: Run, task: Task, n: int, method: str, seed: int, wheel: Path) -> dict[str, Any]:
    """What is to be known of a run; accuracies are kept beside it and not computed again until the run is another."""
    kept = path.with_suffix(".json")
    scores = json.loads(kept.read_text()) if kept.exists() and kept.stat().st_mtime >= path.stat().st_mtime else {}
    if len(scores.get("c2st", ())) < len(run.samples):
        scores["c2st"] = score(run, task, wheel).tolist()
    if run.conditionals and len(scores.get("conditionals", ())) < len(run.conditionals):
        scores["conditionals"] = score_conditionals(run, task).tolist()
    if run.masked and len(scores.get("masked", ())) < len(run.masked):
        scores["masked"] = score_masked(run, task, wheel).tolist()
    kept.write_text(json.dumps(scores))
    values = np.array(scores["c2st"][: len(run.samples)])
    found = {
        "task": task.name, "simulations": n, "method": method, "seed": seed, "observations": len(values),
        "c2st": float(values.mean()), "c2st_error": _error(values), "c2st_each": values.tolist(),
        "training_seconds": run.training, "sampling_seconds": run.sampling,
    }
    for asked, draws in (("conditionals", run.conditionals), ("masked", run.masked)):
        if draws:
            each = np.array(scores[asked][: len(draws)])
            found |= {asked: len(each), f"c2st_{asked}": float(each.mean()), f"c2st_{asked}_each": each.tolist()}
    return found


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def figures(rows: Sequence[Mapping[str, Any]], tasks: Sequence[str], headline: str | None, n: int = 10_000) -> dict[str, dict[str, float]]:
    """Figures of our method, of what was asked any conditional, and the best mean over all tasks of any of sbi's."""
    of = {(r["method"], r["task"]): r for r in rows if r["simulations"] == n}

    def mean(method: str) -> dict[str, float]:
        some = [of[method, task] for task in tasks]
        value = float(np.mean([r["c2st"] for r in some]))
        half = 1.96 * float(np.sqrt(np.sum([r["c2st_error"] ** 2 for r in some]))) / len(some)
        return {"value": value, "low": value - half, "high": value + half}

    found = {}
    for task in tasks:
        if (headline, task) in of:
            found[f"c2st_{task}_10k"] = figure(of[headline, task]["c2st_each"])
        for asked in (r for (method, t), r in of.items() if t == task and method not in PEERS and "c2st_conditionals_each" in r):
            found[f"c2st_all_conditional_{task}_10k"] = figure(asked["c2st_conditionals_each"])
            if "c2st_masked_each" in asked:
                found[f"c2st_masked_{task}_10k"] = figure(asked["c2st_masked_each"])
    complete = {m for m, _ in of if all((m, task) in of for task in tasks)}
    if headline in complete:
        found["c2st_mean_10k"] = mean(str(headline))
    if peers := complete & set(PEERS):
        found["c2st_mean_10k_best_sbi"] = min((mean(m) for m in peers), key=lambda f: f["value"])
    return found
