"""`sbi-da train`: an estimator from a config."""

import argparse
from pathlib import Path

from sbi_da.commands.options import config_arguments

__all__ = ["HELP", "add_arguments", "run"]

HELP = "train an estimator; the same command goes on after an interruption"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The config and the folder of the run."""
    config_arguments(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="RUN")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace) -> None:
    """Train, or go on with a run that was interrupted, and print the held-out loss."""
    from sbi_da.config import load_config
    from sbi_da.runs import train

    estimator = train(load_config(arguments.config, arguments.overrides), arguments.out, not arguments.quiet, print)
    training = estimator.metadata.get("training", {})
    print(
        f"estimator of {', '.join(estimator.parameter_names)} from {', '.join(estimator.surveys)}: {arguments.out}\n"
        f"held-out NLL {training.get('held_out_nll', float('nan')):.3f} after {training.get('steps')} steps "
        f"in {training.get('seconds', 0) / 60:.1f} minutes"
    )
