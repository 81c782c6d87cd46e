"""What an alignment term costs: the time of a training step with it over that of the same step without.

``python -m benchmarks.step_time [RUN]``: 512 simulated and 512 real objects in one pass through the network of config ``stars`` (or
of RUN), forward and backward, with every term on the fused context within missing patterns. ``keypoints`` is also given 50 labelled
objects with twins, beside a step without a term that has them too, and ``alone`` sees the 512 simulated objects only. Medians of
steps taken in turn.
"""

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.result import table, write
from benchmarks.shift_grid import FULL
from sbi_da.aligning import AlignmentModule
from sbi_da.alignment.registry import TERMS
from sbi_da.alignment_config import AlignmentConfig, TermSpec
from sbi_da.config import TrainingConfig, load_config
from sbi_da.estimator import Estimator
from sbi_da.runs import build
from sbi_da.sources import SimulatorSource
from sbi_da.training import Batch, measurements, tensors

BATCH, PAIRS, ROUNDS = 512, 50, 15


def seconds(module: AlignmentModule, batch: dict[str, Batch]) -> float:
    """Wall time of one step, forward and backward."""
    started = time.perf_counter()
    module.training_step(batch, 0).backward()
    return time.perf_counter() - started


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    config = load_config("stars")
    simulator, surveys, estimator = build(config)
    estimator = Estimator.load(arguments.run) if arguments.run else estimator
    source = SimulatorSource(simulator, surveys, estimator.prior, config.missing, config.proposal)
    examples = source.examples(3 * BATCH, 0)
    simulated = tensors(examples, np.arange(BATCH))
    real, paired, twin = (
        measurements(examples.observed.take(np.arange(start, start + count)))
        for start, count in ((BATCH, BATCH), (2 * BATCH, PAIRS), (2 * BATCH + PAIRS, PAIRS))
    )
    streams = {"simulated": simulated, "real": real}
    with_pairs = {**streams, "paired": paired, "twin": twin}
    setting: dict[str, Any] = {"correction": False, "adapter": ["instrument", "film", "residual"]}
    specs = {"none": [], **{kind: [TermSpec(kind=kind, weight=FULL.model_copy(update={"kind": "fixed"}))] for kind in TERMS}}
    modules = {
        name: AlignmentModule(estimator, TrainingConfig(), True, AlignmentConfig(**setting, terms=terms)) for name, terms in specs.items()
    }
    for module in modules.values():
        module.log = lambda *a, **k: None  # type: ignore[method-assign]
    steps = {name: (modules[name], streams, "none") for name in modules}
    steps |= {f"{name}, {PAIRS} pairs": (modules[name], with_pairs, f"none, {PAIRS} pairs") for name in ("none", "keypoints")}
    steps["alone"] = (modules["none"], {"simulated": simulated}, "none")
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS + 1):
        for name, (module, batch, _) in steps.items():
            times[name].append(seconds(module, batch))
    rows, figures = [], {}
    for name, taken in times.items():
        ratio = np.array(taken[1:]) / np.array(times[steps[name][2]][1:])
        rows.append({
            "term": name, "seconds": statistics.median(taken[1:]), "ratio": float(np.median(ratio)),
            "low": float(ratio.min()), "high": float(ratio.max()),
        })
        if name != steps[name][2]:
            figures[f"step_time_ratio_{name}"] = {k: rows[-1][v] for k, v in (("value", "ratio"), ("low", "low"), ("high", "high"))}
    print(table(["term", "seconds", "ratio", "least", "most"], [list(r.values()) for r in rows]))
    figures["step_time_ratio"] = figures["step_time_ratio_sinkhorn"]
    print(write("step_time", rows, figures, [config.seed]))


if __name__ == "__main__":
    main()
