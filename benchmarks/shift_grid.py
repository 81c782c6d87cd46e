"""Six shifts between simulator and reality whose posteriors are known exactly, and what each way of aligning makes of them.

``python -m benchmarks.shift_grid [--problems p1,p2] [--arms ...] [--pairs 50] [--instances 1]`` trains a small estimator on the
simulator of every problem (see ``benchmarks/problems``), aligns it with labelled and unlabelled real objects by every arm, and prints
the mean of log p*(theta | x) - log q(theta | x) over real objects, in nats: p* is exact for the deployed population. Labelled
objects carry their parameters and nothing else: no simulated twin with the same noise. ``default`` is the corrected simulator behind the
gate: ``gated`` in a row says whether its gate let it pass; if not, the arm equals ``none``.
"""

import argparse
import copy
import time
import warnings
from typing import Any

import numpy as np
import torch

from benchmarks.problems import PROBLEMS, Problem
from benchmarks.result import named, table, with_earlier, write
from sbi_da.alignment_config import AlignmentConfig, MixtureSpec, PairSpec, TermSpec, Weighting
from sbi_da.alignment_run import align
from sbi_da.config import Config, TrainingConfig
from sbi_da.diagnostics import c2st
from sbi_da.estimator import Estimator, NetworkConfig
from sbi_da.fitting import fit
from sbi_da.records import Records
from sbi_da.sources import RecordsSource, SimulatorSource
from sbi_da.training import StreamModule, TrainingModule

NETWORK = NetworkConfig(
    width=16, layers=1, heads=2, summary=96, blocks=2, context=32, transforms=3, bins=8, hidden=(64, 64)
)
SHORT: dict[str, Any] = {"epochs": 4, "steps_per_epoch": 200, "batch": 512, "learning_rate": 2e-3}
ADAPTER: dict[str, Any] = {**SHORT, "epochs": 2, "correction": False, "adapter": ["instrument", "residual"], "train": "adapter"}
PAIR, FULL = PairSpec(kind="pair", weight=Weighting(value=1.0)), Weighting(value=1.0)
ARMS: dict[str, AlignmentConfig] = {
    "default": AlignmentConfig(**SHORT),
    "pairs": AlignmentConfig(**ADAPTER, pairs=[PAIR]),
    "labelled": AlignmentConfig(**ADAPTER, labelled=FULL),
    "rope": AlignmentConfig(**{**ADAPTER, "train": "all"}, pairs=[PAIR], mixture=MixtureSpec()),
    "sinkhorn": AlignmentConfig(**ADAPTER, terms=[TermSpec(kind="sinkhorn", weight=FULL)]),
    "mmd": AlignmentConfig(**ADAPTER, terms=[TermSpec(kind="mmd", weight=FULL)]),
    "pairs_sinkhorn": AlignmentConfig(**ADAPTER, pairs=[PAIR], terms=[TermSpec(kind="sinkhorn", weight=FULL)]),
    "pairs_sinkhorn_weighted": AlignmentConfig(
        **ADAPTER, pairs=[PAIR], terms=[TermSpec(kind="sinkhorn", weight=FULL)], population="labels"
    ),
}
TEST, UNLABELLED, ORACLE = 1000, 4000, 20_000


def train(problem: Problem, seed: int, epochs: int = 12) -> Estimator:
    """An estimator trained on a problem's simulator."""
    simulator = problem.simulator
    names = list(simulator.prior.names)
    training = TrainingConfig(
        epochs=epochs, steps_per_epoch=200, batch=512, learning_rate=4e-3, warmup=100, gradient_clip=2.0, validation=2000
    )
    config = Config.model_validate({
        "simulator": {"name": "linear_gaussian"}, "parameters": names, "missing": problem.missing, "network": NETWORK,
        "training": training, "seed": seed,
    })
    torch.manual_seed(seed)
    estimator = Estimator(
        simulator.surveys(), simulator.prior, {p.name: p for p in simulator.parameters}, NETWORK,
        metadata={"config": config.model_dump(mode="json")},
    )
    source = SimulatorSource(simulator, simulator.surveys(), simulator.prior, problem.missing, seed=seed)
    sample = source.examples(5000, 2**31).observed
    estimator.encoder.fit(*(torch.from_numpy(a) for a in (sample.value.astype(np.float32), sample.error.astype(np.float32), sample.state)))
    fit(TrainingModule(estimator, training, False), StreamModule(source, source, training), training)
    return estimator.eval()


def oracle(base: Estimator, problem: Problem, seed: int) -> Estimator:
    """The same network trained on many labelled real objects."""
    estimator = copy.deepcopy(base)
    training = TrainingConfig(epochs=6, steps_per_epoch=200, batch=512, learning_rate=2e-3, warmup=50, gradient_clip=2.0, validation=2000)
    records = problem.real(ORACLE, np.random.default_rng([seed, 4]))
    source = RecordsSource(records, base.layout.surveys, base.prior, seed=seed)
    fit(TrainingModule(estimator.train(), training, False), StreamModule(source, source, training), training)
    return estimator.eval()


def score(estimator: Estimator, test: Records, exact: np.ndarray, names: list[str], draws: int = 200) -> dict[str, float]:
    """Gap to the exact posterior and coverage of 90 % intervals on real objects."""
    posterior = estimator(test)
    theta = {n: test.parameters[n] for n in names}
    gap = exact - posterior.log_prob(theta).values
    sample = posterior.sample(draws)
    inside = []
    for n in names:
        low, high = np.quantile(sample[n].values, [0.05, 0.95], axis=1)
        inside.append((low <= theta[n]) & (theta[n] <= high))
    return {
        "kl_gap": float(gap.mean()), "kl_gap_error": float(gap.std() / np.sqrt(len(gap))), "coverage_90": float(np.mean(inside))
    }


def two_samples(estimator: Estimator, problem: Problem, test: Records, names: list[str], objects: int = 5) -> float:
    """Mean C2ST between draws and the exact posterior under the simulator's prior, over a few objects."""
    some = test.isel(slice(0, objects))
    exact = problem.exact_sample(some, 2000, np.random.default_rng(0), population="simulator")
    drawn = estimator(some).sample(2000)
    return float(np.mean([
        c2st(exact[i], np.stack([drawn[n].values[i] for n in names], -1), quick=True)[0] for i in range(objects)
    ]))


def run(name: str, arms: list[str], pairs: list[int], seed: int) -> list[dict[str, Any]]:
    """Rows of one instance of a problem."""
    problem = PROBLEMS[name](seed)
    names = list(problem.simulator.prior.names)
    test = problem.real(TEST, np.random.default_rng([seed, 1]))
    theta = np.stack([test.parameters[n] for n in names], -1)
    exact = problem.exact_log_prob(test, theta)
    base = train(problem, seed)
    real = problem.real(UNLABELLED, np.random.default_rng([seed, 2]))
    most = problem.real(max([*pairs, 10]), np.random.default_rng([seed, 3]))
    common = {"problem": name, "seed": seed}
    none = score(base, test, exact, names)
    rows: list[dict[str, Any]] = [{**common, "arm": "none", "pairs": 0, **none}]
    if "oracle" in arms:
        rows.append({**common, "arm": "oracle", "pairs": ORACLE, **score(oracle(base, problem, seed), test, exact, names)})
    for arm in [a for a in arms if a in ARMS]:
        config = ARMS[arm]
        needs = config.correction or config.pairs or config.labelled is not None
        for count in [0, *pairs] if arm == "default" else pairs if needs else [0]:
            started = time.perf_counter()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                labelled = most.isel(slice(0, count)) if count else None
                found = align(base, labelled, real, config, seed=seed, simulator=problem.simulator)
            chosen = found.estimator if arm == "default" else found.candidate
            row = {**common, "arm": arm, "pairs": count, **score(chosen, test, exact, names)}
            if name == "p3" and arm == "default" and not count:
                row |= {"c2st_none": two_samples(base, problem, test, names), "c2st": two_samples(chosen, problem, test, names)}
            row |= {"gated": found.verdict.kept, "reason": found.verdict.reason, "seconds": time.perf_counter() - started}
            rows.append(row)
    for row in rows:
        print(f"{row['problem']} {row['arm']:<26}{row['pairs']:>6} pairs  gap {row['kl_gap']:8.3f}  "
              f"coverage {row['coverage_90']:.3f}  {row.get('reason', '')}", flush=True)
    return rows


def figures_of(rows: list[dict[str, Any]], problems: list[str], pairs: int) -> dict[str, dict[str, float]]:
    """Headline figures: value, and the range over instances."""

    def gaps(problem: str, arm: str) -> np.ndarray:
        count = {"none": 0, "oracle": ORACLE}.get(arm, pairs)
        return np.array([r["kl_gap"] for r in rows if (r["problem"], r["arm"]) == (problem, arm)
                         and (r["pairs"] == count or (arm != "default" and r["pairs"] == 0))])

    def of(values: np.ndarray) -> dict[str, float]:
        return {"value": float(values.mean()), "low": float(values.min()), "high": float(values.max())}

    found = {}
    to_best, to_none = [], []
    for problem in problems:
        default = gaps(problem, "default")
        if not len(default):
            continue
        others = [gaps(problem, arm).mean() for arm in ("none", *ARMS) if len(gaps(problem, arm))]
        to_best.append(default.mean() - min(others))
        to_none.append(default.mean() - gaps(problem, "none").mean())
        found[f"kl_gap_{problem}"] = of(default)
        found[f"kl_gap_{problem}_none"] = of(gaps(problem, "none"))
    def unlabelled(problem: str, key: str) -> np.ndarray:
        chosen = [r for r in rows if (r["problem"], r["arm"], r["pairs"]) == (problem, "default", 0)]
        before = [r for r in rows if (r["problem"], r["arm"]) == (problem, "none")]
        return np.array([float(b[key]) - float(r[key]) for b, r in zip(before, chosen, strict=True)])

    if any(r["problem"] == "p1" and r["arm"] == "default" for r in rows):
        found["gain_likelihood_shift"] = of(unlabelled("p1", "kl_gap"))
    third = [r for r in rows if "c2st" in r]
    if third:
        found["coverage_loss_population_shift"] = of(unlabelled("p3", "coverage_90"))
        found["c2st_loss_population_shift"] = of(np.array([r["c2st"] - r["c2st_none"] for r in third]))
    if to_best:
        found["worst_gap_to_best_arm"] = {"value": max(to_best), "low": min(to_best), "high": max(to_best)}
        found["worst_loss_to_none"] = {"value": max(to_none), "low": min(to_none), "high": max(to_none)}
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problems", default="all")
    parser.add_argument("--arms", default="all")
    parser.add_argument("--pairs", default="50", help="numbers of labelled objects, comma-separated; the first one makes the figures")
    parser.add_argument("--instances", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="keep earlier rows of arms that are not run")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    problems, pairs = named(parser, arguments.problems, PROBLEMS), [int(n) for n in arguments.pairs.split(",")]
    seeds = list(range(arguments.instances))
    arms = named(parser, arguments.arms, [*ARMS, "oracle"])
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        for name in problems:
            rows += run(name, arms, pairs, seed)
            everything = with_earlier("shift_grid", rows, ("problem", "seed", "arm", "pairs")) if arguments.keep else rows
            written = write("shift_grid", everything, figures_of(everything, list(PROBLEMS), pairs[0]), seeds)
    print(table(
        ["problem", "arm", "pairs", "seed", "gap [nats]", "+-", "90 % coverage"],
        [[r["problem"], r["arm"], r["pairs"], r["seed"], r["kl_gap"], r["kl_gap_error"], r["coverage_90"]] for r in everything],
    ))
    print(written)


if __name__ == "__main__":
    main()
