"""Calibration on held-out simulated stars, overall, for young stars, and for given sets of surveys.

``python -m benchmarks.calibration RUN [--objects 10000]`` simulates stars from the prior of the run's config, with its missing-data law and
a seed of its own, and prints the coverage error (mean |empirical - nominal| over the 5 to 95 % levels) with what a perfect posterior
would show for that many objects. A second set gives every listed set of surveys the same number of stars.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.result import table, write
from sbi_da.config import Config
from sbi_da.diagnostics import c2st
from sbi_da.estimator import Estimator
from sbi_da.evaluation import evaluate
from sbi_da.records import EmpiricalMissing
from sbi_da.runs import build
from sbi_da.simulation import simulate

SETS = (
    "gaia", "gaia+wise", "gaia+twomass", "gaia+twomass+wise", "gaia+panstarrs+twomass+wise", "twomass+wise", "panstarrs",
    "sdss+twomass", "twomass+spitzer", "gaia+twomass+wise+panstarrs+sdss+spitzer",
)
SEED = 20_260_001


def _row(name: str, block: dict[str, Any]) -> dict[str, Any]:
    error = block["coverage"]["error"]
    return {
        "objects": name, "n": block["n"], **{k: error[k] for k in ("value", "low", "high", "expected", "limit")},
        **{f"error_{k}": v["value"] for k, v in block["coverage"]["error_by_parameter"].items()},
        "nll": block["nll"]["mean"]["value"], "tarp_p": block["tarp"]["p_value"],
    }


def prior_without_data(estimator: Estimator, draws: int = 10_000) -> float:
    """C2ST between the posterior of an object without data and the prior."""
    simulator, surveys, _ = build(Config.model_validate(estimator.metadata["config"]))
    records = simulate(simulator, surveys, 1, SEED)
    empty = records.with_measurements({
        s: records.survey(s).where(np.zeros_like(records.survey(s).state, bool)) for s in records.surveys
    })
    z = estimator(empty).normal_scores(draws)[0]
    accuracy, _ = c2st(z, np.random.default_rng(SEED).standard_normal(z.shape), max_n=draws)
    return float(accuracy)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--objects", type=int, default=10_000)
    parser.add_argument("--draws", type=int, default=400)
    arguments = parser.parse_args()
    estimator = Estimator.load(arguments.run)
    config = Config.model_validate(estimator.metadata["config"])
    simulator, surveys, _ = build(config)
    held_out = simulate(simulator, surveys, arguments.objects, SEED, config.missing)
    metrics, _ = evaluate(estimator, held_out, arguments.draws)
    rows = [_row("all", metrics["overall"])]
    for stratum in ("young", "detection", "snr", "pattern"):
        rows += [_row(f"{stratum}: {label}", block) for label, block in metrics["strata"][stratum].items()]

    patterns = []
    for chosen in SETS:
        kept = [f"{int(s.name in chosen.split('+'))}" * len(s.channels) for s in surveys]
        patterns.append("".join(kept))
    law = EmpiricalMissing(rows=patterns, counts=[1.0] * len(patterns))
    listed = simulate(simulator, surveys, arguments.objects, SEED + 1, law)
    metrics_sets, _ = evaluate(estimator, listed, arguments.draws)
    rows += [_row(f"set: {label}", block) for label, block in metrics_sets["strata"]["pattern"].items()]

    headers = ["objects", "n", "value", "low", "high", "expected", "limit", "nll"]
    print(table(headers, [[r[h] for h in headers] for r in rows]))
    empty = prior_without_data(estimator)
    print(f"no data at all: C2ST to the prior {empty:.3f}")
    by_name = {r["objects"]: r for r in rows}
    figures = {
        "coverage_error": {k: by_name["all"][k] for k in ("value", "low", "high")},
        "coverage_error_young": {k: by_name["young: log age < 7.8"][k] for k in ("value", "low", "high")},
        "coverage_error_worst_pattern": max(
            ({k: r[k] for k in ("value", "low", "high")} for r in rows if r["objects"].startswith(("set", "pattern"))),
            key=lambda r: r["value"],
        ),
        "c2st_prior_without_data": {"value": empty, "low": empty, "high": empty},
    }
    print(write("calibration", rows, figures, [config.seed], training=estimator.metadata["training"]))


if __name__ == "__main__":
    main()
