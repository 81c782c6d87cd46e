"""`sbi-da evaluate`: calibration and accuracy of an estimator, as a report."""

import argparse
from pathlib import Path

from sbi_da.commands.options import whole
from sbi_da.commands.places import result_folder

__all__ = ["HELP", "add_arguments", "run"]

HELP = "calibration and accuracy on objects whose parameters are known"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, the records to judge by, and the folder of the report."""
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("data", metavar="DATA", help="records (Zarr) with parameters")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR")
    parser.add_argument("--draws", type=whole(1), default=500, metavar="N")
    parser.add_argument("--seed", type=whole(0), default=0)


def run(arguments: argparse.Namespace) -> None:
    """Write the report and print its headline."""
    from sbi_da.estimator import Estimator
    from sbi_da.evaluation import OUTPUTS, evaluate, write_evaluation
    from sbi_da.inference import read_objects

    out = result_folder(arguments.out, OUTPUTS)
    estimator = Estimator.load(arguments.run)
    records = read_objects(estimator, arguments.data)
    metrics, figures = evaluate(estimator, records, arguments.draws, arguments.seed)
    write_evaluation(metrics, figures, out)
    overall = metrics["overall"]
    if estimator.target != "density":
        from sbi_da.console import class_scores, target_scores

        print((class_scores if estimator.classes else target_scores)(metrics, arguments.out))
        return
    print(f"{overall['n']} objects, coverage error {overall['coverage']['error']['value']:.4f}: {arguments.out / 'report.html'}")
