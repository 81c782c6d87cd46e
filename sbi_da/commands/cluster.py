"""`sbi-da cluster`: parameters that the objects of a group have in common."""

import argparse
from pathlib import Path
from typing import Any

from sbi_da.commands.options import listed, numbers, pairs, read_prior, table_arguments, whole
from sbi_da.commands.places import check_files
from sbi_da.errors import SbiDaError

__all__ = ["HELP", "add_arguments", "run"]

HELP = "parameters that the objects of a group, such as a cluster of stars, have in common"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The run, the table, what is shared and how, and the places of the two tables of results."""
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("table", metavar="TABLE", help="Parquet, FITS, ECSV, CSV, VOTable, or records (Zarr) with a column group")
    parser.add_argument("--shared", required=True, metavar="NAME,NAME", help="parameters that the objects of a group share")
    parser.add_argument("--group-column", help="column that says which objects belong together")
    parser.add_argument("--spread", action="append", default=[], metavar="NAME=SD", help="how members scatter about a shared value")
    parser.add_argument(
        "--contamination", default="0", metavar="F|LOW:HIGH",
        help="share of objects that are no members: a number, or a range within which it is inferred (default 0)",
    )
    parser.add_argument("--prior", metavar="FILE", help="YAML of laws that replace those of shared parameters")
    table_arguments(parser)
    parser.add_argument("--draws", type=whole(100), default=1000, metavar="N", help="values of the shared parameters that are weighed")
    parser.add_argument("--seed", type=whole(0), default=0)
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="one row per group: .parquet .fits .ecsv .csv .vot")
    parser.add_argument(
        "--members", type=Path, metavar="FILE", help="one row per object: what it is given its group, and whether it belongs"
    )


def run(arguments: argparse.Namespace) -> None:
    """Combine the members of each group; write a row per group and, where asked, a row per object."""
    import numpy as np

    from sbi_da.cluster.tables import cluster_units, clusters, member_columns
    from sbi_da.estimator import Estimator
    from sbi_da.inference import read_objects, summary_units
    from sbi_da.records import write_table

    check_files(arguments.out, arguments.members)
    spread, share = numbers(arguments.spread, "--spread"), arguments.contamination
    try:
        low, *rest = (float(part) for part in share.split(":"))
        contamination: Any = {"kind": "uniform", "low": low, "high": rest[0]} if rest else low
    except ValueError:
        raise SbiDaError(f"--contamination {share!r}: write a share, or a range of it such as 0:0.5") from None
    prior = read_prior(Path(arguments.prior)) if arguments.prior else None
    units = pairs(arguments.unit, "--unit", "COLUMN=UNIT")
    given = {"id_column": arguments.id_column, "group_column": arguments.group_column, "units": units}
    estimator = Estimator.load(arguments.run)
    options = {key: value for key, value in given.items() if value}
    records = read_objects(estimator, arguments.table, listed(arguments.surveys), **options)
    members: list[dict[str, Any]] = []
    columns = clusters(
        estimator, records, listed(arguments.shared) or [], arguments.draws, arguments.seed,
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
