"""Simulators by name: built-in folders, entry points ``sbi_da.simulators``, or a path to a folder.

A simulator folder is a package whose ``__init__.py`` sets ``SIMULATOR`` to a subclass of
:class:`~sbi_da.simulators.interface.Simulator`.
"""

import inspect
from typing import Any, get_type_hints

from pydantic import ConfigDict, ValidationError, create_model

from sbi_da.errors import ConfigError, SbiDaError
from sbi_da.plugins import import_plugin, list_names
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


def _options(name: str, cls: type[Simulator]) -> dict[str, Any]:
    """Type and default of every argument of the simulator's ``__init__``."""
    if cls.__init__ is object.__init__:
        return {}
    try:
        hints = get_type_hints(cls.__init__, include_extras=True)
    except NameError as error:
        raise SbiDaError(f"simulator {name!r}: a type in its __init__ cannot be found at run time ({error}): import it") from error
    fields: dict[str, Any] = {}
    for key, parameter in list(inspect.signature(cls.__init__).parameters.items())[1:]:
        if parameter.kind not in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
            raise SbiDaError(
                f"simulator {name!r}: its __init__ takes {str(parameter).split(':')[0]}: give every option an argument of its own"
            )
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[key] = (hints.get(key, Any), default)
    return fields


def _refuse(name: str, error: ValidationError, known: str) -> ConfigError:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return ConfigError(f"simulator {name!r}: {where}: {' '.join(first['msg'].split())}{known}")


def get_simulator(name: str, /, **options: Any) -> Simulator:
    """Build the simulator ``name``; ``options`` are checked against its typed ``__init__``.

    Raises:
        ConfigError: an option that the simulator does not have, of the wrong type or value, naming it.
    """
    cls = simulator_class(name)
    fields = _options(name, cls)
    schema = create_model(
        f"{cls.__name__}Options", __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True), **fields
    )
    try:
        checked = schema.model_validate(options)
    except ValidationError as error:
        raise _refuse(name, error, f"; options are {', '.join(fields) or 'none'}") from error
    try:
        return cls(**{key: getattr(checked, key) for key in fields})
    except ValidationError as error:
        raise _refuse(name, error, "") from error
