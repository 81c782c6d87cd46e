"""How near methods come to the published posteriors of six tasks, and to exact conditionals.

``python -m benchmarks.sbibm --wheel DIR [--tasks two_moons,slcp] [--methods sbi_nsf,...] [--simulations 1000,10000]`` trains every method
on the same simulations of every task, draws 10,000 times for each observation and prints the mean accuracy of a classifier that tells
these draws from the published ones (0.5: it cannot). Training and draws are kept under ``--runs`` and not done again.
``--draw-only`` stops before the comparison: it needs torch and the methods' own packages and nothing else of this one.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from benchmarks.sbibm.method import Methods
from benchmarks.sbibm.peers import PEERS
from benchmarks.sbibm.references import find_wheel, reference
from benchmarks.sbibm.runs import path_of, run
from benchmarks.sbibm.tasks import TASKS


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sbibm", description=__doc__)
    parser.add_argument("--tasks", default="all")
    parser.add_argument("--methods", default="all")
    parser.add_argument("--simulations", default="10000")
    parser.add_argument("--observations", type=int, default=10)
    parser.add_argument("--runs", type=Path, default=Path("runs/sbibm"))
    parser.add_argument("--wheel", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--draw-only", action="store_true")
    a = parser.parse_args()
    torch.set_num_threads(a.threads)
    methods: Methods = PEERS
    tasks = list(TASKS) if a.tasks == "all" else a.tasks.split(",")
    names = list(methods) if a.methods == "all" else a.methods.split(",")
    wheel = find_wheel(a.wheel)
    for n in map(int, a.simulations.split(",")):
        for name in tasks:
            task = TASKS[name]()
            x = np.stack([reference(wheel, name, k + 1).x for k in range(a.observations)])
            for method in names:
                done = run(path_of(a.runs, name, n, method, a.seed), methods[method], task, n, a.seed, x)
                print(f"{name} {n} {method}: {done.training:.0f} s of training, {done.sampling:.0f} s of sampling", flush=True)


if __name__ == "__main__":
    main()
