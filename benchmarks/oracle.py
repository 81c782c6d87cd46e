"""One network against the exact posterior of the linear-Gaussian toy, under each of its 16 patterns of missing modalities.

``python -m benchmarks.oracle [--run DIR] [--observations 4]`` trains the config ``toy`` (or takes a finished run) and prints the C2ST
between 2,000 draws of the estimator and of the exact posterior, mean over observations. A perfect posterior scores 0.5.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.result import figure, table, write
from sbi_da.config import load_config
from sbi_da.diagnostics import c2st
from sbi_da.estimator import Estimator
from sbi_da.runs import build, train
from sbi_da.simulation import simulate

DRAWS = 2000


def scores(estimator: Estimator, observations: int, seed: int = 7) -> list[dict[str, object]]:
    """C2ST for each pattern and observation."""
    built, surveys, _ = build(load_config("toy"))
    simulator: Any = built
    records = simulate(simulator, surveys, observations, seed)
    rng = np.random.default_rng(seed)
    rows: list[dict[str, object]] = []
    for pattern in simulator.patterns():
        seen = records.with_measurements({
            s.name: records.survey(s.name).where(np.full((observations, 2), s.name in pattern)) for s in surveys
        })
        drawn = estimator(seen).sample(DRAWS, seed=seed).to_array("p").transpose("object", "draw", "p").values
        for i in range(observations):
            values = {name: records.survey(name).value[i] for name in pattern}
            mean, covariance = simulator.exact_posterior(values)
            exact = rng.multivariate_normal(mean, covariance, DRAWS)
            rows.append({
                "pattern": "+".join(n[-1] for n in pattern) or "none", "observation": i,
                "c2st": float(np.atleast_1d(c2st(drawn[i], exact, seed=i))[0]),
            })
    return rows


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--observations", type=int, default=4)
    arguments = parser.parse_args()
    out = arguments.run or Path(tempfile.mkdtemp()) / "run"
    estimator = train(load_config("toy"), out)
    rows = scores(estimator, arguments.observations)
    patterns = list(dict.fromkeys(str(r["pattern"]) for r in rows))
    means = {p: float(np.mean([r["c2st"] for r in rows if r["pattern"] == p])) for p in patterns}
    print(table(["pattern", "c2st"], [[p, means[p]] for p in patterns]))
    worst = max(means.values())
    print(f"worst pattern {worst:.3f}, mean {np.mean(list(means.values())):.3f}")
    figures = {
        "c2st_worst_pattern": {"value": worst, "low": min(means.values()), "high": worst},
        "c2st_mean": figure([float(str(r["c2st"])) for r in rows]),
    }
    print(write("oracle", rows, figures, [load_config("toy").seed]))


if __name__ == "__main__":
    main()
