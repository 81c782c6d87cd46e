"""Simulators by name: built-in folders, entry points ``sbi_da.simulators``, or a path to a folder.

A simulator folder is a package whose ``__init__.py`` sets ``SIMULATOR`` to a subclass of
:class:`~sbi_da.simulators.interface.Simulator`.
"""

import inspect
from typing import Any

from pydantic import ConfigDict, ValidationError, create_model

from sbi_da.errors import ConfigError, SbiDaError
from sbi_da.plugins import find_folder, list_names, module_from_folder
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
    folder = find_folder(name, _path(), MARKER, GROUP, "simulator")
    module = module_from_folder(folder, "sbi_da_simulators")
    found = getattr(module, "SIMULATOR", None)
    if not (inspect.isclass(found) and issubclass(found, Simulator)):
        raise SbiDaError(f"simulator {name!r}: {folder / MARKER} must set SIMULATOR to a subclass of Simulator")
    return found


def get_simulator(name: str, **options: Any) -> Simulator:
    """Build the simulator ``name``; ``options`` are checked against its typed ``__init__``.

    Raises:
        ConfigError: an option that the simulator does not have or of the wrong type, naming it.
    """
    cls = simulator_class(name)
    fields: dict[str, Any] = {}
    for key, parameter in inspect.signature(cls.__init__).parameters.items():
        if key != "self":
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            fields[key] = (parameter.annotation, default)
    schema = create_model(
        f"{cls.__name__}Options", __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True), **fields
    )
    try:
        checked = schema.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        known = ", ".join(fields) or "none"
        raise ConfigError(f"simulator {name!r}: {where}: {first['msg']}; options are {known}") from error
    return cls(**{key: getattr(checked, key) for key in fields})
