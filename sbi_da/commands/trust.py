"""`sbi-da trust`: what simulated objects look like, to tell whether those of a catalogue look like them."""

import argparse
from pathlib import Path

from sbi_da.commands.options import whole

__all__ = ["HELP", "add_arguments", "run"]

HELP = "learn to tell objects that look like no simulation, or whose surveys disagree"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, and how long to learn."""
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--steps", type=whole(1), default=8_000, metavar="N", help="of the training (default 8000)")
    parser.add_argument("--seed", type=whole(0), default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace) -> None:
    """Learn the reference and keep it in the run's folder; replaces an earlier one."""
    from sbi_da.estimator import Estimator
    from sbi_da.runs import sources_of
    from sbi_da.trust import TrustTraining, learn_reference

    estimator = Estimator.load(arguments.run)
    how = TrustTraining(steps=arguments.steps)
    reference = learn_reference(estimator, sources_of(estimator), how, arguments.seed, progress=not arguments.quiet)
    place = reference.save(arguments.run, arguments.run)
    print(f"{place}: sbi-da infer now says how strange objects are ({', '.join(f'p_{name}' for name in reference.columns)})")
