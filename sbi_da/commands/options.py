"""Options that commands share: how they are declared, and how their text is read."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sbi_da.errors import ConfigError, SbiDaError

__all__ = ["config_arguments", "listed", "numbers", "pairs", "read_prior", "share", "table_arguments", "whole"]


def whole(least: int) -> Callable[[str], int]:
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


def share(text: str) -> float:
    """Argument type: a number from 0 to 1, 1 excluded."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1:
        raise argparse.ArgumentTypeError(f"must be a share from 0 to below 1, not {text!r}")
    return number


def config_arguments(parser: argparse.ArgumentParser) -> None:
    """A config by name or path, and ``key=value`` that replace its entries."""
    parser.add_argument("config", metavar="CONFIG", help="a name in configs/ or a path")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example training.epochs=5")


def table_arguments(parser: argparse.ArgumentParser) -> None:
    """How a table of objects is read."""
    parser.add_argument("--id-column", help="column of identifiers")
    parser.add_argument("--unit", action="append", default=[], metavar="COLUMN=UNIT", help="unit of a column, in place of the table's")
    parser.add_argument("--surveys", help="use only these, comma-separated")


def pairs(items: Sequence[str], option: str, form: str) -> dict[str, str]:
    """Arguments of the form ``name=value``."""
    found: dict[str, str] = {}
    for item in items:
        name, separator, value = item.partition("=")
        if not (name and separator and value):
            raise SbiDaError(f"{option} {item!r}: write it as {form}")
        found[name] = value
    return found


def numbers(items: Sequence[str], option: str) -> dict[str, float]:
    """Arguments of the form ``name=number``."""
    found: dict[str, float] = {}
    for name, value in pairs(items, option, "NAME=NUMBER").items():
        try:
            found[name] = float(value)
        except ValueError:
            raise SbiDaError(f"{option} '{name}={value}': write it as NAME=NUMBER") from None
    return found


def listed(names: str | None) -> list[str] | None:
    """Names separated by commas; None where none are given."""
    return [name.strip() for name in names.split(",")] if names else None


def read_prior(path: Path) -> dict[str, dict[str, Any]]:
    """A YAML file of laws by parameter; what a law may hold is checked where it is used."""
    from sbi_da.config import read_mapping

    laws = read_mapping(path)
    for name, law in laws.items():
        if not isinstance(name, str) or not isinstance(law, dict):
            raise ConfigError(f"{path}: {name}: must be a law such as {{kind: uniform, low: 0, high: 1}}, not {law!r}")
    return laws
