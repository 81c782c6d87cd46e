"""`sbi-da query`: posterior summaries of the objects of a table."""

import argparse
import warnings
from pathlib import Path

from sbi_da.commands.options import listed, numbers, pairs, read_prior, share, table_arguments, whole
from sbi_da.commands.places import check_files

__all__ = ["HELP", "add_arguments", "run"]

HELP = "posterior summaries of the objects of a table"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, the table, what is known or assumed, and the place of the summaries."""
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("table", metavar="TABLE", help="Parquet, FITS, ECSV, CSV, VOTable, or records (Zarr)")
    parser.add_argument("--id", help="only the object with this identifier")
    table_arguments(parser)
    parser.add_argument("--given", action="append", default=[], metavar="NAME=VALUE", help="a parameter that is known")
    parser.add_argument("--prior", metavar="FILE", help="YAML of laws by parameter that replace the training prior's")
    parser.add_argument(
        "--refine", nargs="?", const=1, type=whole(1), default=0, metavar="ROUNDS",
        help="weight the draws by the simulator's likelihood, in one round or more",
    )
    parser.add_argument(
        "--reject", type=share, metavar="SHARE",
        help="of classes, votes, labels: say which objects are like none of the simulations, by a threshold that this share of held-out "
        "simulations exceeds",
    )
    parser.add_argument("--reject-by", choices=["anomaly", "entropy"], default="anomaly", help="the score of --reject (default anomaly)")
    parser.add_argument("--draws", type=whole(1), default=1000, metavar="N")
    parser.add_argument("--seed", type=whole(0), default=0)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the summaries: .parquet .fits .ecsv .csv .vot")


def run(arguments: argparse.Namespace) -> None:
    """Answer for each object; print the summaries, or write them and print what was flagged."""
    from sbi_da.console import print_classes, print_labels, print_summaries, print_votes
    from sbi_da.estimator import Estimator
    from sbi_da.inference import LOW_ESS, NO_DATA, OUTSIDE_PRIOR, query, read_objects, summary_units
    from sbi_da.records import write_table
    from sbi_da.rejection import REJECTED

    given = numbers(arguments.given, "--given")
    check_files(arguments.out)
    prior = read_prior(Path(arguments.prior)) if arguments.prior else None
    units = pairs(arguments.unit, "--unit", "COLUMN=UNIT")
    estimator = Estimator.load(arguments.run)
    options = {key: value for key, value in (("id_column", arguments.id_column), ("units", units)) if value}
    records = read_objects(estimator, arguments.table, listed(arguments.surveys), **options)
    if arguments.id is not None:
        records = records.sel(arguments.id)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="effective sample size")  # the flags say it
        columns = query(
            estimator, records, arguments.draws, given, prior, arguments.seed, arguments.reject, arguments.reject_by, arguments.refine
        )
    if arguments.out:
        write_table(arguments.out, columns, summary_units(estimator))
        flags = [str(flag).split("+") for flag in columns["flag"]]
        unseen, weak = sum(NO_DATA in flag for flag in flags), sum(bool({LOW_ESS, OUTSIDE_PRIOR} & set(flag)) for flag in flags)
        weakly = f", {weak} with few effective draws (see flag)" if weak else ""
        turned = f", {sum(columns['status'] == REJECTED)} rejected (see status)" if "status" in columns else ""
        print(f"{len(records)} objects, {unseen} without data (answered by the prior){weakly}{turned}: {arguments.out}")
    elif estimator.target != "density":
        {"class": print_classes, "votes": print_votes, "labels": print_labels}[estimator.target](columns, estimator)
    else:
        print_summaries(columns, [n for n in (*estimator.parameter_names, *estimator.derived)], estimator)
