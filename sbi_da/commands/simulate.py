"""`sbi-da simulate`: objects drawn from a config's prior, as its surveys see them."""

import argparse
from pathlib import Path

from sbi_da.commands.options import config_arguments, whole
from sbi_da.commands.places import refuse_existing

__all__ = ["HELP", "add_arguments", "run"]

HELP = "simulated objects as records (Zarr)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The config, the place of the records, their number and seed."""
    config_arguments(parser)
    parser.add_argument("--out", required=True, type=Path, metavar="RECORDS.zarr")
    parser.add_argument("--n", type=whole(1), default=10_000, metavar="N", help="number of objects (default 10000)")
    parser.add_argument("--seed", type=whole(0), default=None, metavar="S", help="default: the config's seed")


def run(arguments: argparse.Namespace) -> None:
    """Draw the objects and save them; nothing that exists is overwritten."""
    from sbi_da.config import load_config
    from sbi_da.runs import build, resolve
    from sbi_da.simulation import simulate

    config = resolve(load_config(arguments.config, arguments.overrides))
    refuse_existing(arguments.out)
    simulator, surveys, _ = build(config)
    seed = config.seed if arguments.seed is None else arguments.seed
    records = simulate(simulator, surveys, arguments.n, seed, config.missing)
    records.save(arguments.out)
    print(f"{len(records)} objects seen by {', '.join(records.surveys)}: {arguments.out}")
