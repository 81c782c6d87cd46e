"""`sbi-da distill`: a fast copy of a trained estimator."""

import argparse
from pathlib import Path

from sbi_da.commands.options import whole
from sbi_da.commands.places import refuse_existing

__all__ = ["HELP", "add_arguments", "run"]

HELP = "a fast copy of a trained estimator, which draws in a few network evaluations"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, the place of the copy, and the copy's size and training."""
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--out", required=True, type=Path, metavar="RUN")
    parser.add_argument("--evaluations", type=int, choices=[1, 2, 3, 4], default=4, help="of the network per draw (default 4)")
    parser.add_argument("--steps", type=whole(1), default=4000, metavar="N", help="of the training (default 4000)")
    parser.add_argument("--seed", type=whole(0), default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace) -> None:
    """Train the copy, save it, and print how far its draws lie from the original's."""
    from sbi_da.distillation import Distillation, distil
    from sbi_da.estimator import Estimator
    from sbi_da.network import FewStepConfig
    from sbi_da.runs import sources_of

    refuse_existing(arguments.out)
    teacher = Estimator.load(arguments.run)
    few_step = FewStepConfig(steps=arguments.evaluations)
    source = sources_of(teacher)
    copy = distil(teacher, source, Distillation(steps=arguments.steps), few_step, arguments.seed, progress=not arguments.quiet)
    copy.save(arguments.out / "estimator")
    error = copy.metadata["distillation"]["held_out_error"]
    print(
        f"{copy.network.few_step.steps} evaluations per draw: {arguments.out}\n"
        f"held-out draws lie {error:.3f} from those of {arguments.run} of the same noise (root mean square, in standard deviations of the "
        "posteriors); there is no density"
    )
