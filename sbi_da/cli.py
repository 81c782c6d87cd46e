"""The command line. Exit status 0: done; 1: interrupted or failed; 2: bad input, one line on standard error."""

import argparse
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sbi_da import __version__
from sbi_da.errors import ConfigError, SbiDaError

__all__ = ["main"]


def _whole(least: int) -> Callable[[str], int]:
    """Argument type: whole numbers from ``least`` on."""

    def read(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = None
        if number is None or number < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, not {text!r}")
        return number

    return read


def _share(text: str) -> float:
    """Argument type: a number from 0 to 1, 1 excluded."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"must be a share from 0 to below 1, not {text!r}")
    return number


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("sbi-da", description="Posteriors for objects seen by some surveys and not by others.")
    parser.add_argument("--version", action="version", version=f"sbi-da {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    add = commands.add_parser("list", help="what can be used: surveys, simulators, configs")
    add.add_argument("what", nargs="?", choices=["surveys", "simulators", "configs"])

    add = commands.add_parser("simulate", help="simulated objects as records (Zarr)")
    _config_arguments(add)
    add.add_argument("--out", required=True, type=Path, metavar="RECORDS.zarr")
    add.add_argument("--n", type=_whole(1), default=10_000, metavar="N", help="number of objects (default 10000)")
    add.add_argument("--seed", type=_whole(0), default=None, metavar="S", help="default: the config's seed")

    add = commands.add_parser("pack", help="images and their labels as records (Zarr)")
    add.add_argument("description", metavar="YAML", help="which reader, which files, which columns; see docs/galaxies.md")
    add.add_argument("overrides", nargs="*", metavar="key=value", help="for example path=galaxies.npz")
    add.add_argument("--out", required=True, type=Path, metavar="RECORDS.zarr")

    add = commands.add_parser("train", help="train an estimator; the same command goes on after an interruption")
    _config_arguments(add)
    add.add_argument("--out", required=True, type=Path, metavar="RUN")
    add.add_argument("--quiet", action="store_true", help="no progress bar")

    add = commands.add_parser("align", help="adapt a trained estimator to real objects, and judge whether that helped")
    add.add_argument("run", type=Path, metavar="RUN")
    add.add_argument("overrides", nargs="*", metavar="key=value", help="for example alignment.epochs=5")
    add.add_argument("--labelled", metavar="TABLE", help="real objects whose parameters, or some of them, are known")
    add.add_argument(
        "--label", action="append", default=[], metavar="NAME=COLUMN[:ERROR]",
        help="column of a label, and its standard deviation: a column or a number",
    )
    add.add_argument("--real", metavar="TABLE", help="real objects without labels: for distribution terms, or alone for a correction")
    add.add_argument("--group-column", help="column of the labelled table: objects of a group, such as a cluster, judge together")
    add.add_argument("--id-column", help="column of identifiers of both tables")
    add.add_argument("--out", required=True, type=Path, metavar="RUN")
    add.add_argument("--seed", type=_whole(0), default=0)
    add.add_argument("--quiet", action="store_true", help="no progress bar")

    add = commands.add_parser("distill", help="a fast copy of a trained estimator, which draws in a few network evaluations")
    add.add_argument("run", type=Path, metavar="RUN")
    add.add_argument("--out", required=True, type=Path, metavar="RUN")
    add.add_argument("--evaluations", type=int, choices=[1, 2, 3, 4], default=4, help="of the network per draw (default 4)")
    add.add_argument("--steps", type=_whole(1), default=4000, metavar="N", help="of the training (default 4000)")
    add.add_argument("--seed", type=_whole(0), default=0)
    add.add_argument("--quiet", action="store_true", help="no progress bar")

    add = commands.add_parser("evaluate", help="calibration and accuracy on objects whose parameters are known")
    add.add_argument("run", type=Path, metavar="RUN")
    add.add_argument("data", metavar="DATA", help="records (Zarr) with parameters")
    add.add_argument("--out", required=True, type=Path, metavar="DIR")
    add.add_argument("--draws", type=_whole(1), default=500, metavar="N")
    add.add_argument("--seed", type=_whole(0), default=0)

    add = commands.add_parser("query", help="posterior summaries of the objects of a table")
    add.add_argument("run", type=Path, metavar="RUN")
    add.add_argument("table", metavar="TABLE", help="Parquet, FITS, ECSV, CSV, VOTable, or records (Zarr)")
    add.add_argument("--id", help="only the object with this identifier")
    add.add_argument("--id-column", help="column of identifiers")
    add.add_argument("--unit", action="append", default=[], metavar="COLUMN=UNIT", help="unit of a column, in place of the table's")
    add.add_argument("--surveys", help="use only these, comma-separated")
    add.add_argument("--given", action="append", default=[], metavar="NAME=VALUE", help="a parameter that is known")
    add.add_argument("--prior", metavar="FILE", help="YAML of laws by parameter that replace the training prior's")
    add.add_argument("--refine", nargs="?", const=1, type=_whole(1), default=0, metavar="ROUNDS",
                     help="weight the draws by the simulator's likelihood, in one round or more")
    add.add_argument("--reject", type=_share, metavar="SHARE", help="of classes, votes, labels: say which objects are like none of the "
                     "simulations, by a threshold that this share of held-out simulations exceeds")
    add.add_argument("--reject-by", choices=["anomaly", "entropy"], default="anomaly", help="the score of --reject (default anomaly)")
    add.add_argument("--draws", type=_whole(1), default=1000, metavar="N")
    add.add_argument("--seed", type=_whole(0), default=0)
    add.add_argument("--out", type=Path, metavar="FILE", help="write the summaries: .parquet .fits .ecsv .csv .vot")

    add = commands.add_parser("cluster", help="parameters that the objects of a group, such as a cluster of stars, have in common")
    add.add_argument("run", type=Path, metavar="RUN")
    add.add_argument("table", metavar="TABLE", help="Parquet, FITS, ECSV, CSV, VOTable, or records (Zarr) with a column group")
    add.add_argument("--shared", required=True, metavar="NAME,NAME", help="parameters that the objects of a group share")
    add.add_argument("--group-column", help="column that says which objects belong together")
    add.add_argument("--spread", action="append", default=[], metavar="NAME=SD", help="how members scatter about a shared value")
    add.add_argument("--contamination", default="0", metavar="F|LOW:HIGH",
                     help="share of objects that are no members: a number, or a range within which it is inferred (default 0)")
    add.add_argument("--prior", metavar="FILE", help="YAML of laws that replace those of shared parameters")
    add.add_argument("--id-column", help="column of identifiers")
    add.add_argument("--unit", action="append", default=[], metavar="COLUMN=UNIT", help="unit of a column, in place of the table's")
    add.add_argument("--surveys", help="use only these, comma-separated")
    add.add_argument("--draws", type=_whole(100), default=1000, metavar="N", help="values of the shared parameters that are weighed")
    add.add_argument("--seed", type=_whole(0), default=0)
    add.add_argument("--out", required=True, type=Path, metavar="FILE", help="one row per group: .parquet .fits .ecsv .csv .vot")
    add.add_argument("--members", type=Path, metavar="FILE", help="one row per object: what it is given its group, and whether it belongs")
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
            try:
                survey = get_survey(name)
            except SbiDaError as error:
                print(f"sbi-da: survey {name!r} is broken and skipped: {' '.join(str(error).split())}", file=sys.stderr)
                continue
            bands = survey.image.band_names if survey.image else ()
            print(f"  {name:<18} {survey.title}: {', '.join([*survey.channel_names, *(f'{band} images' for band in bands)])}")
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
    if arguments.out.exists():
        raise SbiDaError(f"{arguments.out} exists already: choose another name or remove it")
    simulator, surveys, _ = build(config)
    seed = config.seed if arguments.seed is None else arguments.seed
    records = simulate(simulator, surveys, arguments.n, seed, config.missing)
    records.save(arguments.out)
    print(f"{len(records)} objects seen by {', '.join(records.surveys)}: {arguments.out}")


def _pack(arguments: argparse.Namespace) -> None:
    from sbi_da.packing import pack

    if arguments.out.exists():
        raise SbiDaError(f"{arguments.out} exists already: choose another name or remove it")
    records = pack(arguments.description, arguments.overrides)
    records.save(arguments.out)
    unread = sum(str(flag) != "" for flag in records.columns.get("image_flag", ()))
    lost = f", {unread} of them without a readable image (see image_flag)" if unread else ""
    print(f"{len(records)} {records.attrs['domain']} objects with images of {', '.join(records.image_surveys)}{lost}: {arguments.out}")


def _train(arguments: argparse.Namespace) -> None:
    from sbi_da.config import load_config
    from sbi_da.runs import train

    estimator = train(load_config(arguments.config, arguments.overrides), arguments.out, not arguments.quiet, print)
    training = estimator.metadata.get("training", {})
    print(
        f"estimator of {', '.join(estimator.parameter_names)} from {', '.join(estimator.surveys)}: {arguments.out}\n"
        f"held-out NLL {training.get('held_out_nll', float('nan')):.3f} after {training.get('steps')} steps "
        f"in {training.get('seconds', 0) / 60:.1f} minutes"
    )


def _align(arguments: argparse.Namespace) -> None:
    import numpy as np

    from sbi_da.alignment_run import OUTPUTS, align
    from sbi_da.config import config_from
    from sbi_da.estimator import Estimator
    from sbi_da.inference import read_objects

    out = _check_folder(arguments.out, OUTPUTS)
    base = Estimator.load(arguments.run)
    strange = [item for item in arguments.overrides if not item.startswith(("alignment.", "alignment=", "training.threads="))]
    if strange:
        raise SbiDaError(f"align takes alignment.* and training.threads only, not {', '.join(strange)}: the rest was settled in training")
    config = config_from(base.metadata.get("config", {}), arguments.overrides, str(arguments.run))
    columns: dict[str, tuple[str, str | None]] = {}
    constant: dict[str, float] = {}
    for name, text in _pairs(arguments.label, "--label", "NAME=COLUMN or NAME=COLUMN:ERROR").items():
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


def _check_folder(path: Path, replace: Sequence[str]) -> Path:
    """Where a folder of results may be written: a new or empty place, or an earlier result, which holds ``replace`` only."""
    from sbi_da.atomic import refuse_occupied

    path = path.expanduser().resolve()
    if path in (Path.cwd().resolve(), Path(path.anchor)):
        raise SbiDaError(f"{path} exists already and is something else: choose another name")
    refuse_occupied(path, replace)
    return path


def _distill(arguments: argparse.Namespace) -> None:
    from sbi_da.distillation import Distillation, distil
    from sbi_da.estimator import Estimator
    from sbi_da.network import FewStepConfig
    from sbi_da.runs import sources_of

    if arguments.out.exists():
        raise SbiDaError(f"{arguments.out} exists already: choose another name or remove it")
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


def _evaluate(arguments: argparse.Namespace) -> None:
    from sbi_da.estimator import Estimator
    from sbi_da.evaluation import OUTPUTS, evaluate, write_evaluation
    from sbi_da.inference import read_objects

    out = _check_folder(arguments.out, OUTPUTS)
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


def _pairs(items: Sequence[str], option: str, form: str) -> dict[str, str]:
    """Arguments of the form ``name=value``."""
    pairs = {}
    for item in items:
        name, separator, value = item.partition("=")
        if not (name and separator and value):
            raise SbiDaError(f"{option} {item!r}: write it as {form}")
        pairs[name] = value
    return pairs


def _numbers(items: Sequence[str], option: str) -> dict[str, float]:
    """Arguments of the form ``name=number``."""
    found: dict[str, float] = {}
    for name, value in _pairs(items, option, "NAME=NUMBER").items():
        try:
            found[name] = float(value)
        except ValueError:
            raise SbiDaError(f"{option} '{name}={value}': write it as NAME=NUMBER") from None
    return found


def _listed(names: str | None) -> list[str] | None:
    return [name.strip() for name in names.split(",")] if names else None


def _check_files(*paths: Path | None) -> None:
    """Refuse names of tables that cannot be written, before any work."""
    from sbi_da.records.columns import astropy_format

    for path in paths:
        if path is not None:
            astropy_format(path)
            if path.is_dir():
                raise SbiDaError(f"{path}: is a folder: choose another name")


def _read_prior(path: Path) -> dict[str, dict[str, Any]]:
    from sbi_da.config import read_mapping

    laws = read_mapping(path)
    for name, law in laws.items():
        if not isinstance(name, str) or not isinstance(law, dict):
            raise ConfigError(f"{path}: {name}: must be a law such as {{kind: uniform, low: 0, high: 1}}, not {law!r}")
    return laws


def _query(arguments: argparse.Namespace) -> None:
    from sbi_da.console import print_classes, print_labels, print_summaries, print_votes
    from sbi_da.estimator import Estimator
    from sbi_da.inference import LOW_ESS, NO_DATA, OUTSIDE_PRIOR, query, read_objects, summary_units
    from sbi_da.records import write_table
    from sbi_da.rejection import REJECTED

    given = _numbers(arguments.given, "--given")
    _check_files(arguments.out)
    prior = _read_prior(Path(arguments.prior)) if arguments.prior else None
    units = _pairs(arguments.unit, "--unit", "COLUMN=UNIT")
    estimator = Estimator.load(arguments.run)
    options = {key: value for key, value in (("id_column", arguments.id_column), ("units", units)) if value}
    records = read_objects(estimator, arguments.table, _listed(arguments.surveys), **options)
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


def _cluster(arguments: argparse.Namespace) -> None:
    import numpy as np

    from sbi_da.cluster.tables import cluster_units, clusters, member_columns
    from sbi_da.estimator import Estimator
    from sbi_da.inference import read_objects, summary_units
    from sbi_da.records import write_table

    _check_files(arguments.out, arguments.members)
    spread, share = _numbers(arguments.spread, "--spread"), arguments.contamination
    try:
        low, *rest = (float(part) for part in share.split(":"))
        contamination: Any = {"kind": "uniform", "low": low, "high": rest[0]} if rest else low
    except ValueError:
        raise SbiDaError(f"--contamination {share!r}: write a share, or a range of it such as 0:0.5") from None
    prior = _read_prior(Path(arguments.prior)) if arguments.prior else None
    units = _pairs(arguments.unit, "--unit", "COLUMN=UNIT")
    given = {"id_column": arguments.id_column, "group_column": arguments.group_column, "units": units}
    estimator = Estimator.load(arguments.run)
    options = {key: value for key, value in given.items() if value}
    records = read_objects(estimator, arguments.table, _listed(arguments.surveys), **options)
    members: list[dict[str, Any]] = []
    columns = clusters(
        estimator, records, _listed(arguments.shared) or [], arguments.draws, arguments.seed,
        (lambda name, found: members.append(member_columns(estimator, name, found, seed=arguments.seed))) if arguments.members else None,
        spread=spread, contamination=contamination, prior=prior,
    )
    units = summary_units(estimator)
    if members:
        joined = {key: np.concatenate([part[key] for part in members]) for key in members[0]}
        write_table(arguments.members, joined, cluster_units(units, joined))
    write_table(arguments.out, columns, cluster_units(units, columns))
    flagged = int((columns["flag"] != "").sum())
    told = f", {flagged} flagged (see flag)" if flagged else ""
    print(f"{len(columns['group'])} groups of {len(records)} objects{told}: {arguments.out}")


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Arguments; overrides of a config may also stand after the options."""
    parser = _parser()
    arguments, left = parser.parse_known_args(argv)
    takes_overrides = hasattr(arguments, "overrides")
    refused = [item for item in left if not takes_overrides or item.startswith("-") or "=" not in item]
    if refused:
        parser.error(f"unrecognized arguments: {' '.join(refused)}")
    if takes_overrides:
        arguments.overrides = [*arguments.overrides, *left]
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status."""
    arguments = _parse(argv)
    commands = {
        "simulate": _simulate, "pack": _pack, "train": _train, "align": _align, "distill": _distill, "evaluate": _evaluate, "query": _query,
        "cluster": _cluster,
    }
    try:
        if arguments.command == "list":
            _list(arguments.what)
        else:
            commands[arguments.command](arguments)
    except SbiDaError as error:
        print(f"sbi-da: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:
        from sbi_da.records.columns import one_line, remedy

        where = f"{error.filename}: " if error.filename else ""
        print(f"sbi-da: {where}{one_line(error.strerror or str(error))}{remedy(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        goes_on = "the same command goes on from the last finished epoch"
        print(f"sbi-da: interrupted; {goes_on if arguments.command == 'train' else 'nothing was written'}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
