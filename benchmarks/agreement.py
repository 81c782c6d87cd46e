"""Whether heads agree: the same simulated stars, four heads, and a classifier that has to tell one head's draws from another's.

``python -m benchmarks.agreement --runs DIR [--heads spline,mixture] [--epochs 24]`` trains config ``demo`` on endless simulations with
a spline, then mixture and flow matching from its encoders, and distils a few-step copy of the spline. For held-out stars, with data
missing as in training: accuracy of a classifier (0.5: it cannot tell) for each pair of heads, in the prior's normal scores, and the
log-density of the true parameters. Two sets of draws of the spline with different noise say what the test gives for equal laws.
"""

import argparse
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.result import figure, named, table, write
from sbi_da.config import load_config
from sbi_da.diagnostics import c2st_many
from sbi_da.distillation import Distillation, distil
from sbi_da.estimator import Estimator
from sbi_da.runs import build, sources_of, train
from sbi_da.simulation import simulate

NETWORKS = {
    "spline": [],
    "mixture": ["network.components=16"],
    "flow_matching": ["network.matching.questions=none", "network.matching.gaussian=context", "network.matching.width=48"],
}
LONGER = {"flow_matching": 2}
"""Epochs over those of the others; a velocity is regressed on noise, and held-out errors of it are too noisy to stop by."""
HELD_OUT = 1000


def trained(heads: list[str], runs: Path, epochs: int, seed: int) -> dict[str, Estimator]:
    """An estimator with each head; those that are kept of an earlier run are not trained again."""
    shared = [f"seed={seed}", "training.simulations=null", "training.averaging=0.999"]
    found: dict[str, Estimator] = {}
    for head, network in NETWORKS.items():
        if head not in heads and head != "spline":
            continue
        start = [f"training.start={runs / f'spline_{seed}'}"] if found else []
        length = epochs * LONGER.get(head, 1)
        schedule = [f"training.epochs={length}", *([f"training.patience={length}"] if head in LONGER else [])]
        config = load_config("demo", [*shared, *schedule, f"network.head={head}", *network, *start])
        found[head] = train(config, runs / f"{head}_{seed}", progress=False)
    if "few_step" not in heads:
        return found
    place = runs / f"few_step_{seed}"
    if not place.is_dir():
        teacher = found["spline"]
        distil(teacher, sources_of(teacher), Distillation(objects=100_000, steps=6000), seed=seed, progress=True).save(place)
    return found | {"few_step": Estimator.load(place)}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--heads", default="all", help="besides the spline")
    parser.add_argument("--stars", type=int, default=48)
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    heads = trained(named(parser, a.heads, [*NETWORKS, "few_step"]), a.runs, a.epochs, a.seed)
    config = load_config("demo")
    simulator, surveys, _ = build(config)
    stars = simulate(simulator, surveys, a.stars, 4242 + a.seed, missing=config.missing)
    drawn = {name: e(stars).normal_scores(a.draws, seed=k) for k, (name, e) in enumerate(heads.items())}
    drawn["spline, other noise"] = heads["spline"](stars).normal_scores(a.draws, seed=len(heads))
    pairs = [*combinations(heads, 2), ("spline", "spline, other noise")]
    rows: list[dict[str, Any]] = []
    for one, other in pairs:
        each = c2st_many(list(drawn[one]), list(drawn[other]), seed=a.seed)[0]
        row = {"heads": f"{one} / {other}", "mean": each.mean(), "median": np.median(each), "worst": each.max()}
        rows.append({**row, "each": each.tolist()})
    print(table(["heads", "mean", "median", "worst"], [[r[k] for k in ("heads", "mean", "median", "worst")] for r in rows]))
    fresh = simulate(simulator, surveys, HELD_OUT, 777 + a.seed, missing=config.missing)
    density = {name: e(fresh).log_prob(fresh.parameters).values for name, e in heads.items() if name != "few_step"}
    for name, values in density.items():
        away = values - density["spline"]
        error = away.std() / len(away) ** 0.5
        print(f"{name}: {values.mean():.3f} nats of the truth, {away.mean():+.4f} +- {error:.4f} beside the spline, {len(away)} stars")
    figures = {f"c2st_{r['heads']}": figure(r["each"]) for r in rows}
    figures |= {f"log_density_{name}_beside_spline": figure(list(v - density["spline"])) for name, v in density.items()}
    print(write("agreement", rows, figures, [a.seed]))


if __name__ == "__main__":
    main()
