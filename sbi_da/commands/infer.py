"""`sbi-da infer`: posterior summaries of a catalogue of any size."""

import argparse
import sys
import time
from pathlib import Path

from sbi_da.commands.options import listed, pairs, table_arguments, whole

__all__ = ["HELP", "add_arguments", "run"]

HELP = "posterior summaries of a catalogue of any size; goes on where it was interrupted"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, the catalogue, the place of the answers, and what is asked."""
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("catalogue", metavar="CATALOGUE", help="Parquet (a file, a folder, a HATS catalogue), FITS, CSV, ECSV, VOTable")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    table_arguments(parser)
    parser.add_argument("--draws", type=whole(0), default=100, metavar="N", help="of each object, for the summaries (default 100); 0: none")
    parser.add_argument("--seed", type=whole(0), default=0)
    parser.add_argument("--keep", metavar="COLUMNS", help="columns to copy to the answer, separated by commas")
    parser.add_argument(
        "--refine", nargs="?", const=1, type=whole(1), default=0, metavar="ROUNDS",
        help="weight the draws by the simulator's likelihood, in one round or more: slow, see docs/scale.md",
    )
    parser.add_argument("--correlations", action="store_true", help="also the correlations of all pairs of quantities")
    parser.add_argument("--keep-draws", type=whole(0), default=0, metavar="N", help="also N draws of every quantity, compressed")
    parser.add_argument("--workers", type=whole(1), metavar="N", help="processes (default: one for each core)")
    parser.add_argument("--dask", metavar="ADDRESS", help="of a Dask scheduler, whose workers answer instead")
    parser.add_argument("--device", metavar="NAME", help="cpu or cuda (default: a graphics processor if there is one)")
    parser.add_argument("--bf16", action="store_true", help="encode in bfloat16: for graphics processors, see docs/scale.md")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(arguments: argparse.Namespace) -> None:
    """Answer for every row, showing how fast; say in a line what was done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from sbi_da.catalog import Question, infer
    from sbi_da.errors import ConfigError

    if arguments.draws == 1 or (arguments.correlations and not arguments.draws):
        raise ConfigError(f"--draws {arguments.draws}: correlations and standard deviations need two or more")
    if arguments.refine and not arguments.draws:
        raise ConfigError("--refine weights draws: --draws 0 leaves none")
    if arguments.keep_draws > arguments.draws:
        raise ConfigError(f"--keep-draws {arguments.keep_draws}: there are {arguments.draws} draws (--draws)")
    question = Question(
        draws=arguments.draws, seed=arguments.seed, surveys=listed(arguments.surveys), id_column=arguments.id_column,
        units=pairs(arguments.unit, "--unit", "COLUMN=UNIT"), keep=listed(arguments.keep) or (),
        correlations=arguments.correlations, refine=arguments.refine, bf16=arguments.bf16, kept_draws=arguments.keep_draws,
    )
    speed = TextColumn("{task.fields[rate]}")
    quiet = arguments.quiet or not sys.stderr.isatty()
    progress = Progress(BarColumn(), MofNCompleteColumn(), speed, TimeRemainingColumn(), console=Console(stderr=True), disable=quiet)
    bar = progress.add_task("", total=None, rate="")
    begun: list[tuple[float, int]] = []

    def told(done: int, total: int) -> None:
        if not begun:
            begun.append((time.monotonic(), done))
            progress.start()
        seconds, fresh = time.monotonic() - begun[0][0], done - begun[0][1]
        progress.update(bar, completed=done, total=total, rate=f"{fresh / seconds:,.0f} objects/s" if fresh else "")

    try:
        place = arguments.run, arguments.catalogue, arguments.out
        manifest = infer(*place, question, arguments.workers, arguments.dask, told, arguments.device)
    finally:
        progress.stop()
    counts = manifest["counts"]
    aside = f", {counts['rejected']} rows set aside: {arguments.out / 'rejected.parquet'}" if counts["rejected"] else ""
    print(f"{counts['answered']} objects in {len(manifest['partitions'])} files: {arguments.out / 'objects'}{aside}")
    if manifest["trust"] is None:
        print(f"no column says how strange they are: sbi-da trust {arguments.run} learns it for the next inference")
