"""Speed: stars simulated, trained and inferred per second (medians of several repetitions).

``python -m benchmarks.speed RUN [--repeat 5]``. Inference is end to end from laid-out records to 100 draws of all parameters per star.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.result import table, write
from sbi_da.config import Config
from sbi_da.estimator import Estimator
from sbi_da.runs import build
from sbi_da.simulation import simulate
from sbi_da.sources import SimulatorSource
from sbi_da.training import TrainingModule, tensors


def rate(count: int, what: Callable[[], object], repeat: int) -> dict[str, float]:
    """Objects per second: median, lowest and highest over repetitions, after one that does not count."""
    what()
    rates = []
    for _ in range(repeat):
        start = time.perf_counter()
        what()
        rates.append(count / (time.perf_counter() - start))
    return {"value": float(np.median(rates)), "low": float(min(rates)), "high": float(max(rates))}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    estimator = Estimator.load(arguments.run)
    config = Config.model_validate(estimator.metadata["config"])
    simulator, surveys, _ = build(config)
    records = simulate(simulator, surveys, 2000, 1, config.missing)
    source = SimulatorSource(simulator, surveys, estimator.prior, config.missing, config.proposal)
    module = TrainingModule(build(config)[2], config.training, config.proposal is not None)
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    batch = tensors(source.examples(config.training.batch, 0))
    optimiser = torch.optim.AdamW(module.parameters(), 1e-4)

    def step() -> None:
        optimiser.zero_grad()
        module.training_step({"simulated": batch}, 0).backward()
        optimiser.step()

    figures = {
        "simulate_stars_per_s": rate(50_000, lambda: source.examples(50_000, 1), arguments.repeat),
        "train_objects_per_s": rate(len(batch["z"]), step, arguments.repeat),
        "stars_per_s_spline": rate(2000, lambda: estimator(records).normal_scores(100), arguments.repeat),
        "stars_per_s_spline_with_derived": rate(2000, lambda: estimator(records).sample(100), arguments.repeat),
    }
    print(table(["figure", "median", "lowest", "highest"], [[k, *map(float, v.values())] for k, v in figures.items()]))
    print(write("speed", [], figures, [1], repetitions=arguments.repeat))


if __name__ == "__main__":
    main()
