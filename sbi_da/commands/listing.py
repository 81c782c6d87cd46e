"""`sbi-da list`: the surveys, simulators and configs that can be used."""

import argparse
import sys

from sbi_da.errors import SbiDaError

__all__ = ["HELP", "add_arguments", "run"]

HELP = "what can be used: surveys, simulators, configs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to list; everything by default."""
    parser.add_argument("what", nargs="?", choices=["surveys", "simulators", "configs"])


def run(arguments: argparse.Namespace) -> None:
    """Print the names; a survey whose card is broken is skipped, with a line on standard error."""
    from sbi_da.config import list_configs
    from sbi_da.simulators import list_simulators
    from sbi_da.surveys import get_survey, list_surveys

    what = arguments.what
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
