"""Four realities for one network of stars: what alignment wins where the simulator is wrong, and what it costs where it is not.

``python -m benchmarks.star_shifts [--pairs 50] [--seeds 1] [--runs DIR]``. The network is that of ``sim_to_sim`` (simulator A). Reality
is A itself, B (a shift of the likelihood), A with another population (younger, metal-rich), or B with it. Figures are the mean
NLL of the true parameters less that without alignment (below zero: alignment helps), with its standard error over stars, and the
coverage error. The default is shown as users get it, behind its gate; ``candidate`` and Sinkhorn, which has no gate to stop it, before.
"""

import argparse
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.result import named, table, write
from benchmarks.sim_to_sim import ARMS, PRIOR, SURVEYS, A, B, calibration, config, nll, population
from sbi_da.alignment_run import align
from sbi_da.estimator import Estimator
from sbi_da.runs import train

YOUNGER = PRIOR | {
    "log_age": {"kind": "uniform", "low": 6.0, "high": 8.5}, "feh": {"kind": "normal", "mean": 0.1, "sd": 0.15, "low": -2.0, "high": 0.5},
}
SHIFTS: dict[str, dict[str, Any]] = {
    "none": {"options": A}, "likelihood": {"options": B}, "population": {"options": A, "prior": YOUNGER},
    "both": {"options": B, "prior": YOUNGER},
}
TEST, UNLABELLED = 3000, 2000


def run(seed: int, shift: str, pairs: list[int], folder: Path) -> list[dict[str, Any]]:
    """Rows of one reality."""
    base = train(config(A, 2 * seed + 1, SURVEYS), folder / f"a{seed}", progress=False)
    test = population(base, TEST, 5000 + seed, **SHIFTS[shift])
    most = population(base, max(pairs, default=1), 6000 + seed, **SHIFTS[shift])
    real = population(base, UNLABELLED, 7000 + seed, **SHIFTS[shift])
    start = nll(base, test)
    rows: list[dict[str, Any]] = []

    def add(arm: str, count: int, estimator: Estimator, **more: Any) -> None:
        loss = (nll(estimator, test) - start).clip(-50, 50)
        rows.append({
            "shift": shift, "seed": seed, "arm": arm, "pairs": count, "loss": float(loss.mean()),
            "loss_error": float(loss.std() / np.sqrt(len(loss))), **calibration(estimator, test), **more,
        })
        print("  ".join(f"{k} {v:.3f}" if isinstance(v, float) else f"{k} {v}" for k, v in rows[-1].items()), flush=True)

    add("none", 0, base)
    for count in (0, *pairs):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            labelled = most.isel(slice(0, count)) if count else None
            found = align(base, labelled, real, ARMS["default"], seed=seed, threads=torch.get_num_threads())
        add("default", count, found.estimator, kept=found.verdict.kept, reason=found.verdict.reason)
        if not found.verdict.kept:
            add("candidate", count, found.candidate)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        found = align(base, None, real, ARMS["sinkhorn_unlabelled"], seed=seed, threads=torch.get_num_threads())
    add("sinkhorn", 0, found.candidate, kept=found.verdict.kept, reason=found.verdict.reason)
    return rows


def figures_of(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Loss by shift, arm and number of labels: mean over seeds, and one standard error over stars or the range of seeds."""
    found = {}
    for shift, arm, count in dict.fromkeys((r["shift"], r["arm"], r["pairs"]) for r in rows):
        some = [r for r in rows if (r["shift"], r["arm"], r["pairs"]) == (shift, arm, count)]
        value, error = (np.array([r[k] for r in some]) for k in ("loss", "loss_error"))
        found[f"loss_{shift}_{arm}_{count}"] = {
            "value": float(value.mean()), "low": float((value - error).min()), "high": float((value + error).max())
        }
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shifts", default="all")
    parser.add_argument("--pairs", default="50")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--runs", type=Path, help="where trained runs are kept, and found again; those of sim_to_sim do")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder = arguments.runs or Path(tempfile.mkdtemp())
    shifts, pairs = named(parser, arguments.shifts, SHIFTS), [int(n) for n in arguments.pairs.split(",")]
    rows: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        for shift in shifts:
            rows += run(seed, shift, pairs, folder)
            written = write("star_shifts", rows, figures_of(rows), list(range(seed + 1)))
    keys = ("loss", "loss_error", "coverage_error")
    print(table(["shift", "arm", "labels", *keys], [[r["shift"], r["arm"], r["pairs"], *(r[k] for k in keys)] for r in rows]))
    print(written)


if __name__ == "__main__":
    main()
