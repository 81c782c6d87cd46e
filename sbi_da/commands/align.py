"""`sbi-da align`: a trained estimator adapted to real objects, and the verdict on whether that helped."""

import argparse
import sys
import warnings
from pathlib import Path
from typing import Any

from sbi_da.commands.options import pairs, whole
from sbi_da.commands.places import result_folder
from sbi_da.errors import SbiDaError

__all__ = ["HELP", "add_arguments", "run"]

HELP = "adapt a trained estimator to real objects, and judge whether that helped"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, the tables of real objects, their labels, and the place of the aligned run."""
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example alignment.epochs=5")
    parser.add_argument("--labelled", metavar="TABLE", help="real objects whose parameters, or some of them, are known")
    parser.add_argument(
        "--label", action="append", default=[], metavar="NAME=COLUMN[:ERROR]",
        help="column of a label, and its standard deviation: a column or a number",
    )
    parser.add_argument("--real", metavar="TABLE", help="real objects without labels: for distribution terms, or alone for a correction")
    parser.add_argument("--group-column", help="column of the labelled table: objects of a group, such as a cluster, judge together")
    parser.add_argument("--id-column", help="column of identifiers of both tables")
    parser.add_argument("--out", required=True, type=Path, metavar="RUN")
    parser.add_argument("--seed", type=whole(0), default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace) -> None:
    """Adapt the estimator, save what the gate keeps, and print the verdict."""
    import numpy as np

    from sbi_da.alignment_run import OUTPUTS, align
    from sbi_da.config import config_from
    from sbi_da.estimator import Estimator
    from sbi_da.inference import read_objects

    out = result_folder(arguments.out, OUTPUTS)
    base = Estimator.load(arguments.run)
    strange = [item for item in arguments.overrides if not item.startswith(("alignment.", "alignment=", "training.threads="))]
    if strange:
        raise SbiDaError(f"align takes alignment.* and training.threads only, not {', '.join(strange)}: the rest was settled in training")
    config = config_from(base.metadata.get("config", {}), arguments.overrides, str(arguments.run))
    columns: dict[str, tuple[str, str | None]] = {}
    constant: dict[str, float] = {}
    for name, text in pairs(arguments.label, "--label", "NAME=COLUMN or NAME=COLUMN:ERROR").items():
        base.parameter(name)
        column, _, error = text.partition(":")
        try:
            constant[f"{name}_error"] = float(error)
        except ValueError:
            columns[name] = (column, error or None)
        else:
            columns[name] = (column, None)
    if columns and not arguments.labelled:
        raise SbiDaError("--label names columns of the table of --labelled, which is not given")
    plain: dict[str, Any] = {"id_column": arguments.id_column} if arguments.id_column else {}
    taught = {**plain, "parameters": columns} if columns else dict(plain)
    if arguments.group_column:
        taught["group_column"] = arguments.group_column
    if base.classes:
        _align_classes(base, arguments, config, plain, out)
        return
    labelled = read_objects(base, arguments.labelled, **taught) if arguments.labelled else None
    if labelled is not None and constant:
        labelled = labelled.with_parameters({k: np.full(len(labelled), v) for k, v in constant.items()})
    real = read_objects(base, arguments.real, **plain) if arguments.real else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="alignment is not used")  # said below
        found = align(base, labelled, real, config.alignment, out, arguments.seed, config.training.threads, not arguments.quiet)
    print(f"{found.verdict.reason}\n{'aligned' if found.verdict.kept else 'unaligned'} estimator: {arguments.out}")
    if not found.verdict.kept:
        print(f"sbi-da: alignment is not used: {found.verdict.reason}", file=sys.stderr)


def _align_classes(base: Any, arguments: argparse.Namespace, config: Any, plain: dict[str, Any], out: Path) -> None:
    from sbi_da.class_alignment_run import align_classes
    from sbi_da.inference import read_objects

    if not arguments.real:
        raise SbiDaError("a classifier is adapted to objects without labels: give them by --real")
    real = read_objects(base, arguments.real, **plain)
    labelled = read_objects(base, arguments.labelled, **plain) if arguments.labelled else None
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="alignment is not used")  # said below
        found = align_classes(
            base, real, labelled, config.alignment, out, arguments.seed, config.training.threads, not arguments.quiet
        )
    shares = found.fractions
    spans = ", ".join(
        f"{name} {v:.3f} ({low:.3f} to {high:.3f})"
        for name, v, low, high in zip(base.classes, shares.fractions, shares.low, shares.high, strict=True)
    )
    print(f"{found.verdict.reason}\nclass fractions of the real objects: {spans}{'' if shares.trusted else ' (not determined)'}")
    told = found.estimator.metadata["alignment"]["outliers"] if found.verdict.kept else None
    for name, figures in (told or {}).items():
        judged = figures["auroc_held_out"]
        print(f"outlier detector of {name}: ROC AUC {judged:.2f} on held-out simulations laid over each other" if judged is not None else
              f"outlier detector of {name}: not judged, no held-out simulations have its images")
    print(f"{'aligned' if found.verdict.kept else 'unaligned'} estimator: {arguments.out}")
