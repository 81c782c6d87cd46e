"""How near methods come to the published posteriors of six tasks, and to exact conditionals.

``python -m benchmarks.sbibm --wheel DIR [--tasks two_moons,slcp] [--methods sbi_nsf,...] [--simulations 1000,10000]`` trains every
method on the same simulations of every task, draws 10,000 times for each observation and prints the mean accuracy of a classifier that
tells these draws from the published ones (0.5: it cannot). Methods that answer any conditional are also asked about ``--conditionals``
random ones, and as many observations with data missing at random. Draws are kept under ``--runs`` and not made again. ``--draw-only``
stops before the comparison: it needs torch and what the methods need, so that sbi may live in an environment of its own; ``--kept-only``
compares what is kept and trains nothing.
"""

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.result import named, table, with_earlier, write
from benchmarks.sbibm.peers import VERSION
from benchmarks.sbibm.references import OBSERVATIONS, find_wheel, reference
from benchmarks.sbibm.registry import headline, registered
from benchmarks.sbibm.runs import path_of, run
from benchmarks.sbibm.tasks import TASKS
from sbi_da.errors import SbiDaError


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sbibm", description=__doc__)
    parser.add_argument("--tasks", default="all")
    parser.add_argument("--methods", default="all")
    parser.add_argument("--simulations", default="10000", help="numbers of simulations, comma-separated")
    parser.add_argument("--observations", type=int, default=OBSERVATIONS)
    parser.add_argument("--conditionals", type=int, default=20)
    parser.add_argument("--runs", type=Path, default=Path("runs/sbibm"))
    parser.add_argument("--wheel", type=Path, help="sbibm-1.1.0-py2.py3-none-any.whl or the folder that holds it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--draw-only", action="store_true")
    parser.add_argument("--kept-only", action="store_true")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    methods = registered()
    tasks, names = named(parser, a.tasks, TASKS), named(parser, a.methods, methods)
    wheel = find_wheel(a.wheel)
    rows: list[dict[str, Any]] = []
    for n in map(int, a.simulations.split(",")):
        for name in tasks:
            task = TASKS[name]()
            x = np.stack([reference(wheel, name, k + 1).x for k in range(a.observations)])
            for method in names:
                path = path_of(a.runs, name, n, method, a.seed)
                if a.kept_only and not path.exists():
                    continue
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", UserWarning)
                    done = run(path, methods[method], task, n, a.seed, x, a.conditionals)
                line = f"{name} {n} {method}: {done.training:.0f} s of training, {done.sampling:.0f} s of sampling"
                if not a.draw_only:
                    from benchmarks.sbibm.scores import row

                    rows.append(row(path, done, task, n, method, a.seed, wheel))
                    line += f", C2ST {rows[-1]['c2st']:.3f} +- {rows[-1]['c2st_error']:.3f}"
                print(line, flush=True)
    if rows:
        report(rows, a.seed)


def report(rows: list[dict[str, Any]], seed: int) -> None:
    """Print a table of the rows and write the results with them."""
    from benchmarks.sbibm.scores import figures

    everything = with_earlier("sbibm", rows, ("task", "simulations", "method", "seed"))
    of = {(r["simulations"], r["method"], r["task"]): r for r in rows}
    tasks = [t for t in TASKS if any(r["task"] == t for r in rows)]
    lines = [
        [n, method, *(f"{r['c2st']:.3f} +- {r['c2st_error']:.3f}" if (r := of.get((n, method, t))) else "" for t in tasks)]
        for n, method in dict.fromkeys((n, method) for n, method, _ in of)
    ]
    print(table(["simulations", "method", *tasks], lines))
    print(write("sbibm", everything, figures(everything, list(TASKS), headline()), [seed], peers=f"sbi {VERSION}"))


if __name__ == "__main__":
    try:
        main()
    except SbiDaError as error:
        sys.exit(f"error: {error}")
