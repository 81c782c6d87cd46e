"""The command line. Exit status 0: done; 1: interrupted or failed; 2: bad input, one line on standard error."""

import argparse
import sys
from collections.abc import Sequence
from typing import Protocol

from sbi_da import __version__
from sbi_da.commands import align, cluster, distill, evaluate, infer, listing, pack, query, simulate, train, trust
from sbi_da.errors import SbiDaError

__all__ = ["COMMANDS", "Command", "main"]


class Command(Protocol):
    """What a module of ``sbi_da.commands`` offers."""

    HELP: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare the command's arguments."""

    def run(self, arguments: argparse.Namespace) -> None:
        """Do it; what a user can mend is an ``SbiDaError`` or an ``OSError``."""


COMMANDS: dict[str, Command] = {
    "list": listing, "simulate": simulate, "pack": pack, "train": train, "align": align, "distill": distill, "trust": trust,
    "evaluate": evaluate, "query": query, "infer": infer, "cluster": cluster,
}

GOES_ON = {
    "train": "the same command goes on from the last finished epoch", "infer": "the same command goes on from the last finished partition"
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("sbi-da", description="Posteriors for objects seen by some surveys and not by others.")
    parser.add_argument("--version", action="version", version=f"sbi-da {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        command.add_arguments(commands.add_parser(name, help=command.HELP))
    return parser


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
    try:
        COMMANDS[arguments.command].run(arguments)
    except SbiDaError as error:
        print(f"sbi-da: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except OSError as error:
        from sbi_da.records.columns import one_line, remedy

        where = f"{error.filename}: " if error.filename else ""
        print(f"sbi-da: {where}{one_line(error.strerror or str(error))}{remedy(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"sbi-da: interrupted; {GOES_ON.get(arguments.command, 'nothing was written')}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
