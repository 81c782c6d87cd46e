"""Packing a set of images as records, as a short description says: which reader, which files, which columns."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from sbi_da.config import override, read_mapping
from sbi_da.errors import ConfigError, UnknownNameError
from sbi_da.records import Records
from sbi_da.records.image_sets import read_cutouts, read_galaxy_da, read_galaxy_zoo, read_stack, read_table_with_images
from sbi_da.surveys import get_survey

__all__ = ["READERS", "pack"]

READERS: dict[str, Callable[..., Records]] = {
    "stack": read_stack, "table": read_table_with_images, "galaxy_da": read_galaxy_da, "cutouts": read_cutouts,
    "galaxy_zoo": read_galaxy_zoo,
}
PATHS = ("path", "table", "folder")


def pack(description: str | Path, overrides: Sequence[str] = ()) -> Records:
    """Read what a YAML file describes: ``reader``, ``survey``, and the arguments of that reader.

    Args:
        description: path of the file; the paths it holds are relative to it.
        overrides: ``key=value`` strings.

    Raises:
        ConfigError: a key the reader does not have, or a value of the wrong type.
        UnknownNameError: no such reader or survey.
    """
    path = Path(description)
    content = read_mapping(path)
    override(content, overrides)
    name = content.pop("reader", None)
    if name not in READERS:
        raise UnknownNameError("reader", str(name), list(READERS), f"set `reader` in {path}")
    for key in PATHS:
        if isinstance(content.get(key), str):
            content[key] = str(path.parent / Path(content[key]).expanduser())
    if isinstance(content.get("survey"), str):
        content["survey"] = get_survey(content["survey"])
    return _call(READERS[name], content, f"{path}: reader {name!r}")


def _call(reader: Callable[..., Records], options: Mapping[str, Any], where: str) -> Records:
    hints = get_type_hints(reader)
    fields: dict[str, Any] = {
        key: (hints[key], ... if p.default is inspect.Parameter.empty else p.default)
        for key, p in inspect.signature(reader).parameters.items()
    }
    schema: type[BaseModel] = create_model("Reader", __config__=ConfigDict(extra="forbid", arbitrary_types_allowed=True), **fields)
    try:
        checked = schema.model_validate(dict(options))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise ConfigError(f"{where}: {place}: {' '.join(first['msg'].split())}; options are {', '.join(fields)}") from error
    return reader(**{key: getattr(checked, key) for key in fields})
