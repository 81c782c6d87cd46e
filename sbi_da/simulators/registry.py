"""Simulators by name: built-in folders, entry points ``sbi_da.simulators``, or a path to a folder.

A simulator folder is a package whose ``__init__.py`` sets ``SIMULATOR`` to a subclass of
:class:`~sbi_da.simulators.interface.Simulator`.
"""

import inspect
from typing import Any

from sbi_da.errors import SbiDaError
from sbi_da.plugins import import_plugin, list_names
from sbi_da.schema import build
from sbi_da.simulators.interface import Simulator

__all__ = ["get_simulator", "list_simulators", "simulator_class"]

GROUP = "sbi_da.simulators"
MARKER = "__init__.py"


def _path() -> list[str]:
    import sbi_da.simulators as package

    return list(package.__path__)


def list_simulators() -> list[str]:
    """Names of all simulators that can be used."""
    return list_names(_path(), MARKER, GROUP)


def simulator_class(name: str) -> type[Simulator]:
    """The class behind ``name``; raises ``UnknownNameError`` when nothing answers to it."""
    module = import_plugin(name, "sbi_da.simulators", _path(), MARKER, GROUP, "simulator")
    found = getattr(module, "SIMULATOR", None)
    if not (inspect.isclass(found) and issubclass(found, Simulator)):
        raise SbiDaError(f"simulator {name!r}: {module.__file__} must set SIMULATOR to a subclass of Simulator")
    return found


def get_simulator(name: str, /, **options: Any) -> Simulator:
    """Build the simulator ``name``; ``options`` are checked against its typed ``__init__``.

    Raises:
        ConfigError: an option that the simulator does not have, of the wrong type or value, naming it.
    """
    return build(simulator_class(name), options, f"simulator {name!r}")
