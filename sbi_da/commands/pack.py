"""`sbi-da pack`: images and their labels, in the files they come in, as records."""

import argparse
from pathlib import Path

from sbi_da.commands.places import refuse_existing

__all__ = ["HELP", "add_arguments", "run"]

HELP = "images and their labels as records (Zarr)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The description of the files, and the place of the records."""
    parser.add_argument("description", metavar="YAML", help="which reader, which files, which columns; see docs/galaxies.md")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="for example path=galaxies.npz")
    parser.add_argument("--out", required=True, type=Path, metavar="RECORDS.zarr")


def run(arguments: argparse.Namespace) -> None:
    """Read the images and save them; says how many could not be read."""
    from sbi_da.packing import pack

    refuse_existing(arguments.out)
    records = pack(arguments.description, arguments.overrides)
    records.save(arguments.out)
    unread = sum(str(flag) != "" for flag in records.columns.get("image_flag", ()))
    lost = f", {unread} of them without a readable image (see image_flag)" if unread else ""
    print(f"{len(records)} {records.attrs['domain']} objects with images of {', '.join(records.image_surveys)}{lost}: {arguments.out}")
