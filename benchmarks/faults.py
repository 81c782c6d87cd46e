"""Faults put into simulated stars: how well the trust columns tell them from clean ones.

``python -m benchmarks.faults RUN [--stars 60000] [--seed 0]``. Stars of config ``demo`` drawn from its prior, with data missing as in
training, that two or more surveys detected. One survey at a time its zero point is shifted by 0.1, 0.3 or 0.5 mag, or all it measured
is exchanged with another star's (a wrong cross-match); or WISE sees an infrared excess of 0.5 mag in W1, 1 in W2, 1.5 in W3 and 2 in W4.
Area under the ROC curve of the p-value of all tests, and of the best single column, by how many surveys detected a star, with its
standard error (Hanley & McNeil 1982); the share of clean stars with p below 0.01 and 0.001; and beside it, in the same run, the area for
posteriors of disjoint subsets of surveys.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from benchmarks.disjoint import DisjointPosteriors
from benchmarks.result import table, write
from sbi_da.config import load_config
from sbi_da.estimator import Estimator
from sbi_da.layout import Layout, Observations
from sbi_da.records import OBSERVED
from sbi_da.runs import build
from sbi_da.simulation import simulate
from sbi_da.trust import Reference
from sbi_da.trust.learning import features_of

SHIFTS = (0.1, 0.3, 0.5)
EXCESS = {"W1": 0.5, "W2": 1.0, "W3": 1.5, "W4": 2.0}


def faults(observed: Observations, layout: Layout, seen: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[str, str, Observations]]:
    """Name, survey, and what is observed with every star at fault."""
    magnitude = np.array([channel.kind == "magnitude" for channel in layout.channels])
    for k, survey in enumerate(layout.surveys):
        own = layout.survey_index == k
        for shift in SHIFTS:
            value = observed.value + shift * (own & magnitude)
            yield f"zero point {shift}", survey.name, Observations(value, observed.error, observed.state)
        rows = np.flatnonzero(seen[:, k])
        other = rng.permutation(rows)
        value, error, state = observed.value.copy(), observed.error.copy(), observed.state.copy()
        for array in (value, error, state):
            array[np.ix_(rows, own)] = array[np.ix_(other, own)]
        yield "cross-match", survey.name, Observations(value, error, state)
    excess = np.array([EXCESS.get(channel.name, 0.0) for channel in layout.channels])
    yield "infrared excess", "wise", Observations(observed.value - excess, observed.error, observed.state)


def error_of(area: float, count: int) -> float:
    """Standard error of an area under the ROC curve of so many faulty and as many clean ones."""
    one, two = area / (2 - area), 2 * area**2 / (1 + area)
    return float(np.sqrt((area * (1 - area) + (count - 1) * (one + two - 2 * area**2)) / count**2))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--stars", type=int, default=60_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    estimator = Estimator.load(a.run)
    reference = Reference.load(a.run, estimator)
    if reference is None:
        parser.error(f"no reference there: sbi-da trust {a.run}")
    config = load_config("demo")
    simulator, surveys, _ = build(config)
    index = estimator.layout.survey_index

    def stars(seed: int) -> tuple[Observations, np.ndarray]:
        found = estimator.layout.read(simulate(simulator, surveys, a.stars, seed, config.missing))
        seen = np.stack([(found.state[:, index == k] == OBSERVED).any(1) for k in range(len(surveys))], axis=1)
        several = seen.sum(1) >= 2
        return found.take(several), seen[several]

    observed, seen = stars(990 + a.seed)
    disjoint = DisjointPosteriors(estimator, *stars(77 + a.seed))

    def ask(some: Observations) -> dict[str, np.ndarray]:
        found = [reference.p_values(reference.statistics(estimator, f, *part)) for f, part in features_of(estimator, some)]
        return {name: np.concatenate([p[name] for p in found]) for name in reference.columns}

    clean, apart = ask(observed), disjoint(observed, seen)
    rows: list[dict[str, Any]] = []
    for fault, survey, spoilt in faults(observed, estimator.layout, seen, np.random.default_rng(a.seed)):
        p, p_apart = ask(spoilt), disjoint(spoilt, seen)
        for least in (2, 3, 4):
            chosen = seen[:, estimator.surveys.index(survey)] & (seen.sum(1) >= least)
            truth = np.repeat([0, 1], chosen.sum())
            score = {name: -np.log(np.concatenate([clean[name][chosen], p[name][chosen]])) for name in reference.columns}
            area = {name: float(roc_auc_score(truth, values)) for name, values in score.items() if np.isfinite(values).all()}
            best = max((name for name in area if name != "all"), key=lambda name: area[name])
            row = {"fault": fault, "survey": survey, "surveys": f"{least} or more", "stars": int(chosen.sum()), "auroc": area["all"]}
            row |= {"error": error_of(area["all"], int(chosen.sum())), "best": area[best], "best_column": best}
            beside = -np.log(np.concatenate([apart[chosen], p_apart[chosen]]) + 1e-300)
            rows.append({**row, "disjoint": float(roc_auc_score(truth, beside))})
    headers = list(rows[0])
    print(table(headers, [[row[h] for h in headers] for row in rows]))
    figures: dict[str, Any] = {}
    for least in (2, 3, 4):
        for fault in dict.fromkeys(row["fault"] for row in rows):
            some = [row for row in rows if row["fault"] == fault and row["surveys"] == f"{least} or more"]
            areas, others = ([float(row[name]) for row in some] for name in ("auroc", "disjoint"))
            value = {"value": float(np.mean(areas)), "lowest": min(areas), "disjoint": float(np.mean(others))}
            figures[f"auroc_{fault.replace(' ', '_')}_{least}_surveys"] = value
    held = clean["all"][np.isfinite(clean["all"])]
    figures |= {f"clean_below_{share}": {"value": float((held < share).mean())} for share in (0.01, 0.001)}
    print(table(["figure", "value"], [[name, value["value"]] for name, value in figures.items()]))
    print(write("faults", rows, figures, [a.seed]))


if __name__ == "__main__":
    main()
