"""From one simulator to another that plays reality, with the truth known: how much of the gap each way of aligning closes.

``python -m benchmarks.sim_to_sim [--arms ...] [--pairs 50,200] [--seeds 3] [--surveys ...] [--runs DIR]``. Simulator A: MIST isochrones,
ATLAS9 atmospheres (``kurucz``), CCM89 dust. "Reality" B: PARSEC, BT-Settl, G23. Both from 0.6 solar masses on, because ATLAS9 has no
models below 3,500 K; 50,000 noise-free objects each for training; Gaia, 2MASS, WISE and Pan-STARRS with gaps. Objects of B are those
detected in at least one survey and within A's prior. The gap closed is (NLL_none - NLL_arm) / (NLL_none - NLL_oracle) in the parameters'
own units, log age, [Fe/H], mass, distance and A_V; the oracle is trained on B as ``none`` is on A. Labelled objects carry all five
parameters. Aligned estimators are judged as they come out, before the gate; ``kept`` says what the gate made of them.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.result import named, table, with_earlier, write
from benchmarks.shift_grid import FULL, PAIR
from sbi_da.alignment_config import AlignmentConfig, TermSpec
from sbi_da.alignment_run import align
from sbi_da.config import Config, config_from, load_config
from sbi_da.diagnostics import coverage_error, domain_auc
from sbi_da.estimator import Estimator
from sbi_da.records import OBSERVED, Records
from sbi_da.runs import build, train
from sbi_da.simulation import simulate

A = {"isochrones": "mist", "atmosphere": "kurucz", "extinction_law": "CCM89"}
B = {"isochrones": "parsec", "atmosphere": "bt_settl", "extinction_law": "G23"}
PRIOR = {
    "log_age": {"kind": "uniform", "low": 6.0, "high": 10.1},
    "feh": {"kind": "normal", "mean": -0.2, "sd": 0.5, "low": -2.0, "high": 0.5},
    "mass": {"kind": "power_law", "low": 0.6, "high": 50.0},
}
ADAPTER: dict[str, Any] = {
    "correction": False, "adapter": ["instrument", "film", "residual"], "train": "adapter", "epochs": 3
}
ARMS: dict[str, AlignmentConfig] = {
    "default": AlignmentConfig(learning_rate=1e-3),
    "labelled": AlignmentConfig(**ADAPTER, labelled=FULL),
    "pairs": AlignmentConfig(**ADAPTER, pairs=[PAIR]),
    **{f"{kind}_unlabelled": AlignmentConfig(**ADAPTER, terms=[TermSpec(kind=kind, on="both", weight=FULL)])
       for kind in ("sinkhorn", "energy", "mmd", "laplacian_mmd", "coral", "transport", "dann")},
    "unbalanced_unlabelled": AlignmentConfig(
        **ADAPTER, terms=[TermSpec(kind="transport", on="both", weight=FULL, options={"plan": "unbalanced"})]
    ),
    "pairs_sinkhorn": AlignmentConfig(**ADAPTER, pairs=[PAIR], terms=[TermSpec(kind="sinkhorn", on="both", weight=FULL)]),
    "keypoints": AlignmentConfig(**ADAPTER, pairs=[PAIR], terms=[TermSpec(kind="keypoints", weight=FULL)]),
}
SURVEYS = ("gaia", "twomass", "wise", "panstarrs")
TEST, UNLABELLED = 4000, 50_000
YOUNG = 7.8


def config(options: Mapping[str, str], seed: int, surveys: Sequence[str], prior: Mapping[str, Any] = PRIOR) -> Config:
    """Training on one of the simulators: the sizes of config ``demo``."""
    content = load_config("demo").model_dump(mode="json")
    content |= {
        "seed": seed, "surveys": list(surveys), "simulator": {"name": "stars", "options": {**options, "r_v": 3.1, "prior": dict(prior)}},
        "missing": {"kind": "mixed", "laws": [{"kind": "nothing"}, {"kind": "uniform", "channels": 0.0}], "weights": [0.6, 0.4]},
        "proposal": {
            "prior_fraction": 0.2,
            "parameters": {"mass": {"shift": 0.5, "scale": 1.3}, "distance": {"shift": -0.5, "scale": 1.2}},
        },
    }
    content["training"]["threads"] = 1
    return config_from(content)


def population(
    estimator: Estimator, n: int, seed: int, options: Mapping[str, str] = B, prior: Mapping[str, Any] = PRIOR
) -> Records:
    """Detected objects of a simulator, by default B, inside the prior of A, which pass as real."""
    setting = config(options, 0, estimator.surveys, prior)
    simulator, surveys, _ = build(setting)
    records = simulate(simulator, surveys, int(2.5 * n) + 200, seed, setting.missing)
    detected = (estimator.layout.read(records).state == OBSERVED).any(1)
    inside = np.isfinite(estimator.prior.to_normal({k: records.parameters[k] for k in estimator.parameter_names})).all(1)
    chosen = records.isel(np.flatnonzero(detected & inside)[:n])
    chosen.tree.attrs["domain"] = "real"
    return chosen


def nll(estimator: Estimator, objects: Records) -> np.ndarray:
    """Negative log-density of the truth, shape ``(object,)``."""
    theta = {k: objects.parameters[k] for k in estimator.parameter_names}
    return -np.concatenate([
        estimator(objects.isel(slice(k, k + 1000))).log_prob({n: v[k : k + 1000] for n, v in theta.items()}).values
        for k in range(0, len(objects), 1000)
    ])


def calibration(estimator: Estimator, objects: Records) -> dict[str, float]:
    """Coverage error and median half widths of the first thousand objects."""
    some = objects.isel(slice(0, 1000))
    drawn = estimator(some).marginal(estimator.parameter_names).sample(200)
    draws = np.stack([drawn[k].values for k in estimator.parameter_names], -1)
    truth = np.stack([some.parameters[k] for k in estimator.parameter_names], -1)
    return {"coverage_error": float(coverage_error(draws, truth)["value"]), "width": float(np.median(draws.std(1)[:, 0]))}


def auc(estimator: Estimator, simulated: Records, objects: Records) -> float:
    """How well contexts of simulated objects and of others can be told apart; it is shown, and chooses nothing."""
    read, fused = estimator.layout.read, estimator.told.fused
    here, there = fused(estimator.encode(read(simulated))), fused(estimator.encode(read(objects), real=True))
    return domain_auc(here.numpy(), there.numpy(), replicates=50).value


def run(seed: int, arms: list[str], pairs: list[int], surveys: list[str], folder: Path) -> Iterator[dict[str, Any]]:
    """Rows of one seed, one by one."""
    none = train(config(A, 2 * seed + 1, surveys), folder / f"a{seed}", progress=False)
    oracle = train(config(B, 2 * seed + 2, surveys), folder / f"b{seed}", progress=False)
    test = population(none, TEST, 1000 + seed)
    most = population(none, max(pairs, default=1), 2000 + seed)
    real = population(none, UNLABELLED, 3000 + seed)
    start, best = nll(none, test), nll(oracle, test)
    young = test.parameters["log_age"] < YOUNG
    base = calibration(none, test)
    source = config(A, 0, surveys)
    simulator, cards, _ = build(source)
    simulated = simulate(simulator, cards, 2000, 4000 + seed, source.missing)
    simulated = simulated.isel((none.layout.read(simulated).state == OBSERVED).any(1))

    def row(arm: str, count: int, estimator: Estimator, values: np.ndarray) -> dict[str, Any]:
        found: dict[str, Any] = {"seed": seed, "arm": arm, "pairs": count, **calibration(estimator, test)}
        found |= {"width_ratio": found["width"] / base["width"], "domain_auc": auc(estimator, simulated, test)}
        for name, rows in (("", np.ones(len(test), bool)), ("_young", young)):
            for kind, statistic in (("mean", np.mean), ("median", np.median)):
                before, after, limit = (float(statistic(v[rows])) for v in (start, values, best))
                found |= {f"nll_{kind}{name}": after, f"gap_closed_{kind}{name}": (before - after) / (before - limit)}
        print(f"seed {seed} {arm:<22}{count:>5}  NLL {found['nll_mean']:7.3f}  closed {found['gap_closed_mean']:6.3f}  "
              f"young {found['gap_closed_mean_young']:6.3f}  coverage error {found['coverage_error']:.3f}", flush=True)
        return found

    yield row("none", 0, none, start)
    yield row("oracle", 0, oracle, best)
    for arm in arms:
        setting = ARMS[arm]
        needs = bool(setting.pairs or setting.labelled)
        for count in [0] if arm.endswith("unlabelled") else pairs if needs else sorted({0, *pairs}):
            started = time.perf_counter()
            labelled = most.isel(slice(0, count)) if count else None
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                found = align(none, labelled, real, setting, seed=seed, threads=torch.get_num_threads())
            made = row(arm, count, found.candidate, nll(found.candidate, test))
            yield made | {"kept": found.verdict.kept, "reason": found.verdict.reason, "seconds": time.perf_counter() - started}


def figures_of(rows: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """Headline figures: mean over seeds, with their range."""
    found = {}

    def add(name: str, arm: str, count: int, key: str) -> None:
        values = [float(r[key]) for r in rows if r["arm"] == arm and r["pairs"] == count]
        if values:
            found[name] = {"value": float(np.mean(values)), "low": min(values), "high": max(values)}

    for count, tail in ((0, "unlabelled"), (50, "50_pairs"), (200, "200_pairs"), (1000, "1000_pairs")):
        add(f"gap_closed_{tail}", "default", count, "gap_closed_mean")
        add(f"gap_closed_{tail}_median", "default", count, "gap_closed_median")
        add(f"gap_closed_{tail}_young", "default", count, "gap_closed_mean_young")
        add(f"coverage_error_{tail}", "default", count, "coverage_error")
    for arm in ("none", "oracle"):
        add(f"nll_{arm}", arm, 0, "nll_mean")
        add(f"coverage_error_{arm}", arm, 0, "coverage_error")
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arms", default="default")
    parser.add_argument("--pairs", default="50,200")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--surveys", default=",".join(SURVEYS))
    parser.add_argument("--runs", type=Path, help="where trained runs are kept, and found again")
    parser.add_argument("--keep", action="store_true", help="keep earlier rows of arms and numbers of pairs that are not run")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder = arguments.runs or Path(tempfile.mkdtemp())
    surveys = arguments.surveys.split(",")
    name = "sim_to_sim" if surveys == list(SURVEYS) else f"sim_to_sim_{'_'.join(surveys)}"
    arms = named(parser, arguments.arms, ARMS)
    pairs = [int(n) for n in arguments.pairs.split(",")]
    rows: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        for row in run(seed, arms, pairs, surveys, folder):
            rows.append(row)
            everything = with_earlier(name, rows, ("seed", "arm", "pairs")) if arguments.keep else rows
            written = write(name, everything, figures_of(everything), sorted({r["seed"] for r in everything}))
    keys = ["nll_mean", "gap_closed_mean", "gap_closed_median", "gap_closed_mean_young", "coverage_error", "width_ratio", "domain_auc"]
    print(table(["seed", "arm", "pairs", *keys], [[r["seed"], r["arm"], r["pairs"], *(r[k] for k in keys)] for r in everything]))
    print(written)


if __name__ == "__main__":
    main()
