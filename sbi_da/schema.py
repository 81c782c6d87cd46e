"""Strict schemas from typed ``__init__`` signatures: what a class takes is what a config may say."""

import inspect
from collections.abc import Mapping
from typing import Any, TypeVar, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from sbi_da.errors import ConfigError, SbiDaError

__all__ = ["build", "options_of"]

T = TypeVar("T")


def options_of(cls: type, what: str) -> dict[str, Any]:
    """Type and default of every argument of ``cls.__init__``; ``what`` names the class in errors.

    Raises:
        SbiDaError: a type that cannot be found, or arguments without names.
    """
    if cls.__init__ is object.__init__:  # type: ignore[misc]
        return {}
    try:
        hints = get_type_hints(cls.__init__, include_extras=True)  # type: ignore[misc]
    except NameError as error:
        raise SbiDaError(f"{what}: a type in its __init__ cannot be found at run time ({error}): import it") from error
    fields: dict[str, Any] = {}
    for key, parameter in list(inspect.signature(cls.__init__).parameters.items())[1:]:  # type: ignore[misc]
        if parameter.kind not in (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY):
            raise SbiDaError(f"{what}: its __init__ takes {str(parameter).split(':')[0]}: give every option an argument of its own")
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[key] = (hints.get(key, Any), default)
    return fields


def build(cls: type[T], options: Mapping[str, Any], what: str, given: Mapping[str, Any] | None = None) -> T:
    """An instance of ``cls`` from checked options.

    Args:
        cls: the class.
        options: what a config says.
        what: the class in errors, such as ``simulator 'stars'``.
        given: arguments that are not options: passed where the class takes them, never to be configured.

    Raises:
        ConfigError: an option that the class does not have, of the wrong type or value, naming it.
    """
    fields = options_of(cls, what)
    passed = {k: v for k, v in (given or {}).items() if k in fields}
    fields = {k: v for k, v in fields.items() if k not in passed}
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    schema: type[BaseModel] = create_model(f"{cls.__name__}Options", __config__=config, **fields)
    try:
        checked = schema.model_validate(dict(options))
    except ValidationError as error:
        raise _refusal(what, error, f"; options are {', '.join(fields) or 'none'}") from error
    try:
        return cls(**passed, **{key: getattr(checked, key) for key in fields})
    except ValidationError as error:
        raise _refusal(what, error, "") from error


def _refusal(what: str, error: ValidationError, known: str) -> ConfigError:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"])
    return ConfigError(f"{what}: {where}: {' '.join(first['msg'].split())}{known}")
