"""Surveys by name: built-in folders, entry points ``sbi_da.surveys``, or a path to a folder with a card."""

import yaml

from sbi_da.errors import ConfigError
from sbi_da.plugins import find_folder, list_names
from sbi_da.surveys.card import Survey

__all__ = ["get_survey", "list_surveys"]

GROUP = "sbi_da.surveys"
MARKER = "card.yaml"


def _path() -> list[str]:
    import sbi_da.surveys as package

    return list(package.__path__)


def list_surveys() -> list[str]:
    """Names of all surveys that can be used."""
    return list_names(_path(), MARKER, GROUP)


def get_survey(name: str) -> Survey:
    """The survey called ``name`` (or whose folder is the path ``name``).

    Raises:
        UnknownNameError: no such survey; the message lists those there are.
        ConfigError: its card does not fit the schema.
    """
    folder = find_folder(name, _path(), MARKER, GROUP, "survey")
    card = folder / MARKER
    try:
        content = yaml.safe_load(card.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{card}: not valid YAML: {' '.join(str(error).split())}") from error
    return Survey.from_card(content, source=str(card))
