"""Real stars aligned in other ways than the default: ``python -m benchmarks.real_stars_arms RUN TABLE [--arms ...] [--keep]``.

Stars, labels and judges as of ``benchmarks/real_stars.py --labelled 200``, whose results hold the default. Unlabelled are the stars that
judge, without their labels. Estimators are judged before the gate; ``kept`` says what it made of them.
"""

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import torch

from benchmarks.real_stars import STEPS, judge, labelled_stars, split
from benchmarks.result import named, table, with_earlier, write
from benchmarks.shift_grid import FULL, PAIR
from sbi_da.alignment_config import AlignmentConfig, TermSpec
from sbi_da.alignment_run import align
from sbi_da.estimator import Estimator

LIKE: dict[str, Any] = {
    "correction": False, "adapter": ["instrument", "film", "residual"], "epochs": STEPS.epochs, "learning_rate": STEPS.learning_rate,
    "population": "labels", "deploy": True,
}
SINKHORN = TermSpec(kind="sinkhorn", on="both", weight=FULL)
ARMS: dict[str, AlignmentConfig] = {
    "sinkhorn": AlignmentConfig(**LIKE, terms=[SINKHORN]),
    "pairs_sinkhorn": AlignmentConfig(**LIKE, terms=[SINKHORN], pairs=[PAIR]),
    "pairs": AlignmentConfig(**LIKE, pairs=[PAIR]),
    "labelled": AlignmentConfig(**LIKE, labelled=FULL),
}
SHOWN = ("teff_bias", "teff_scatter", "logg_bias", "feh_bias", "coverage_error", "label_nll")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("table", type=Path)
    parser.add_argument("--arms", default="all")
    parser.add_argument("--labelled", type=int, default=200)
    parser.add_argument("--keep", action="store_true", help="keep earlier rows of arms that are not run")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    arms = named(parser, arguments.arms, ARMS)
    torch.set_num_threads(arguments.threads)
    estimator = Estimator.load(arguments.run)
    taught, judged = split(labelled_stars(estimator, arguments.table), arguments.labelled)
    rows: list[dict[str, Any]] = []
    for arm in arms:
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            found = align(estimator, taught, judged, ARMS[arm], threads=arguments.threads)
        figures = judge(found.candidate, judged, "")[1]
        rows.append({
            "arm": arm, "labelled": arguments.labelled, **{k: figures[f"{k}_"] for k in SHOWN}, "kept": found.verdict.kept,
            "reason": found.verdict.reason, "seconds": time.perf_counter() - started,
        })
        everything = with_earlier("real_stars_arms", rows, ("arm", "labelled")) if arguments.keep else rows
        headline = {f"{k}_{r['arm']}": r[k] for r in everything for k in SHOWN}
        written = write("real_stars_arms", everything, headline, [estimator.metadata["config"]["seed"]])
        print(arm, found.verdict.reason, flush=True)
    print(table(["arm", *SHOWN, "kept"], [[r["arm"], *(float(r[k]["value"]) for k in SHOWN), r["kept"]] for r in everything]))
    print(written)


if __name__ == "__main__":
    main()
