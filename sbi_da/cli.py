"""The command line. Exit status 0: done; 1: interrupted or failed; 2: bad input, one line on standard error."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sbi_da import __version__
from sbi_da.errors import SbiDaError

__all__ = ["main"]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("sbi-da", description="Posteriors for objects seen by some surveys and not by others.")
    parser.add_argument("--version", action="version", version=f"sbi-da {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    add = commands.add_parser("list", help="what can be used: surveys, simulators, configs")
    add.add_argument("what", nargs="?", choices=["surveys", "simulators", "configs"])

    add = commands.add_parser("simulate", help="simulated objects as records (Zarr)")
    _config_arguments(add)
    add.add_argument("--out", required=True, type=Path, metavar="RECORDS.zarr")
    add.add_argument("--n", type=int, default=10_000, metavar="N", help="number of objects (default 10000)")
    add.add_argument("--seed", type=int, default=None, metavar="S", help="default: the config's seed")

    add = commands.add_parser("train", help="train an estimator; the same command goes on after an interruption")
    _config_arguments(add)
    add.add_argument("--out", required=True, type=Path, metavar="RUN")
    add.add_argument("--quiet", action="store_true", help="no progress bar")

    add = commands.add_parser("evaluate", help="calibration and accuracy on objects whose parameters are known")
    add.add_argument("run", type=Path, metavar="RUN")
    add.add_argument("data", metavar="DATA", help="records (Zarr) with parameters")
    add.add_argument("--out", required=True, type=Path, metavar="DIR")
    add.add_argument("--draws", type=int, default=500, metavar="N")
    add.add_argument("--seed", type=int, default=0)

    add = commands.add_parser("query", help="posterior summaries of the objects of a table")
    add.add_argument("run", type=Path, metavar="RUN")
    add.add_argument("table", metavar="TABLE", help="Parquet, FITS, ECSV, CSV, VOTable, or records (Zarr)")
    add.add_argument("--id", help="only the object with this identifier")
    add.add_argument("--id-column", help="column of identifiers")
    add.add_argument("--surveys", help="use only these, comma-separated")
    add.add_argument("--given", action="append", default=[], metavar="NAME=VALUE", help="a parameter that is known")
    add.add_argument("--prior", metavar="FILE", help="YAML of laws by parameter that replace the training prior's")
    add.add_argument("--draws", type=int, default=1000, metavar="N")
    add.add_argument("--seed", type=int, default=0)
    add.add_argument("--out", type=Path, metavar="FILE", help="write the summaries: .parquet .fits .ecsv .csv .vot")
    return parser


def _config_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", metavar="CONFIG", help="a name in configs/ or a path")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example training.epochs=5")


def _list(what: str | None) -> None:
    from sbi_da.config import list_configs
    from sbi_da.simulators import list_simulators
    from sbi_da.surveys import get_survey, list_surveys

    if what in (None, "surveys"):
        print("surveys")
        for name in list_surveys():
            survey = get_survey(name)
            print(f"  {name:<18} {survey.title}: {', '.join(survey.channel_names)}")
    if what in (None, "simulators"):
        print("simulators")
        for name in list_simulators():
            print(f"  {name}")
    if what in (None, "configs"):
        print("configs")
        for name in list_configs():
            print(f"  {name}")


def _simulate(arguments: argparse.Namespace) -> None:
    from sbi_da.config import load_config
    from sbi_da.runs import build, resolve
    from sbi_da.simulation import simulate

    config = resolve(load_config(arguments.config, arguments.overrides))
    if arguments.n < 1:
        raise SbiDaError(f"--n must be at least 1, not {arguments.n}")
    if arguments.out.exists():
        raise SbiDaError(f"{arguments.out} exists already: choose another name or remove it")
    simulator, surveys, _ = build(config)
    seed = config.seed if arguments.seed is None else arguments.seed
    records = simulate(simulator, surveys, arguments.n, seed, config.missing)
    records.save(arguments.out)
    print(f"{len(records)} objects seen by {', '.join(records.surveys)}: {arguments.out}")


def _train(arguments: argparse.Namespace) -> None:
    from sbi_da.config import load_config
    from sbi_da.runs import train

    estimator = train(load_config(arguments.config, arguments.overrides), arguments.out, not arguments.quiet)
    training = estimator.metadata.get("training", {})
    print(
        f"estimator of {', '.join(estimator.parameter_names)} from {', '.join(estimator.surveys)}: {arguments.out}\n"
        f"held-out NLL {training.get('held_out_nll', float('nan')):.3f} after {training.get('steps')} steps "
        f"in {training.get('seconds', 0) / 60:.1f} minutes"
    )


def _evaluate(arguments: argparse.Namespace) -> None:
    from sbi_da.estimator import Estimator
    from sbi_da.evaluation import evaluate, write_evaluation
    from sbi_da.inference import read_objects

    estimator = Estimator.load(arguments.run)
    records = read_objects(estimator, arguments.data)
    metrics, figures = evaluate(estimator, records, arguments.draws, arguments.seed)
    write_evaluation(metrics, figures, arguments.out)
    overall = metrics["overall"]
    print(f"{overall['n']} objects, coverage error {overall['coverage']['error']['value']:.4f}: {arguments.out / 'report.html'}")


def _query(arguments: argparse.Namespace) -> None:
    from sbi_da.config import read_mapping
    from sbi_da.estimator import Estimator
    from sbi_da.inference import query, read_objects
    from sbi_da.records import write_table

    given: dict[str, float] = {}
    for item in arguments.given:
        name, _, value = item.partition("=")
        try:
            given[name] = float(value)
        except ValueError:
            raise SbiDaError(f"--given {item!r}: write it as NAME=NUMBER") from None
    estimator = Estimator.load(arguments.run)
    surveys = [s.strip() for s in arguments.surveys.split(",")] if arguments.surveys else None
    options: dict[str, Any] = {"id_column": arguments.id_column} if arguments.id_column else {}
    records = read_objects(estimator, arguments.table, surveys, **options)
    if arguments.id is not None:
        records = records.sel(arguments.id)
    prior = read_mapping(Path(arguments.prior)) if arguments.prior else None
    columns = query(estimator, records, arguments.draws, given, prior, arguments.seed)
    if arguments.out:
        write_table(arguments.out, columns)
        flagged = int((columns["flag"] != "").sum())
        print(f"{len(records)} objects, {flagged} without data (answered by the prior): {arguments.out}")
    else:
        _print_summaries(columns, [n for n in (*estimator.parameter_names, *estimator.derived)], estimator)


def _print_summaries(columns: dict[str, Any], names: list[str], estimator: Any, rows: int = 20) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(caption="median with 16 and 84 % quantiles")
    for column in ("id", "surveys"):
        table.add_column(column)
    for name in names:
        unit = estimator.parameter(name).unit
        table.add_column(f"{name} [{unit}]" if unit else name, justify="right")
    for i in range(min(rows, len(columns["id"]))):
        cells = []
        for name in names:
            low, mid, high = (columns[f"{name}_{q}"][i] for q in ("q16", "q50", "q84"))
            cells.append(f"{mid:.4g} [{low:.4g}, {high:.4g}]")
        table.add_row(str(columns["id"][i]), f"{columns['surveys'][i]} {columns['flag'][i]}".strip(), *cells)
    console = Console(width=None if sys.stdout.isatty() else 200)
    console.print(table)
    if len(columns["id"]) > rows:
        console.print(f"... and {len(columns['id']) - rows} more: write all of them with --out FILE")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    commands = {"simulate": _simulate, "train": _train, "evaluate": _evaluate, "query": _query}
    try:
        if arguments.command == "list":
            _list(arguments.what)
        else:
            commands[arguments.command](arguments)
    except SbiDaError as error:
        print(f"sbi-da: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        print(f"sbi-da: {where}{error.strerror or error}: free space or choose another place", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sbi-da: interrupted; the same command goes on from the last finished epoch", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
