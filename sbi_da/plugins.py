"""Finding plug-ins: built-in folders, folders named by path, and entry points of installed packages.

Nothing is imported until it is asked for. A broken third-party plug-in warns and is skipped in listings;
asked for by name it raises. The core never names a plug-in.
"""

import sys
import warnings
from importlib import metadata
from pathlib import Path

from sbi_da.errors import SbiDaError, UnknownNameError

__all__ = ["entry_point_folders", "find_folder", "list_names", "mount"]


def mount(package_path: list[str], folder: str) -> None:
    """Append the checkout's sibling ``folder`` to a package's ``__path__`` when running from a source tree."""
    here = Path(package_path[0])
    sibling = here.parent.parent / folder
    if (here.parent.parent / "pyproject.toml").is_file() and sibling.is_dir() and str(sibling) not in package_path:
        package_path.append(str(sibling))


def entry_point_folders(group: str) -> dict[str, metadata.EntryPoint]:
    """Entry points of ``group`` by name, unloaded."""
    return {point.name: point for point in metadata.entry_points(group=group)}


def _builtin(package_path: list[str], marker: str) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for root in package_path:
        for marked in sorted(Path(root).glob(f"*/{marker}")):
            found.setdefault(marked.parent.name, marked.parent)
    return found


def list_names(package_path: list[str], marker: str, group: str) -> list[str]:
    """Names of all plug-ins: folders that hold ``marker``, then entry points that resolve."""
    names = set(_builtin(package_path, marker))
    for name, point in entry_point_folders(group).items():
        try:
            _module_folder(point, marker)
        except Exception as error:  # noqa: BLE001 - third-party code may raise anything at import
            warnings.warn(f"plug-in {name!r} of {group} is broken and skipped: {error}", stacklevel=2)
        else:
            names.add(name)
    return sorted(names)


def _module_folder(point: metadata.EntryPoint, marker: str) -> Path:
    module = point.load()
    file = getattr(module, "__file__", None)
    if file is None:
        raise SbiDaError(f"entry point {point.name!r} must name a package that holds the plug-in, not {point.value!r}")
    if not (Path(file).parent / marker).is_file():
        raise SbiDaError(f"entry point {point.name!r}: the package {point.value!r} holds no {marker}")
    return Path(file).parent


def find_folder(name: str, package_path: list[str], marker: str, group: str, kind: str) -> Path:
    """Folder of the plug-in ``name``: a built-in name, an entry point, or a path to a folder holding ``marker``.

    Raises:
        UnknownNameError: nothing answers to ``name``.
    """
    builtin = _builtin(package_path, marker)
    if name in builtin:
        return builtin[name]
    points = entry_point_folders(group)
    if name in points:
        try:
            return _module_folder(points[name], marker)
        except Exception as error:
            raise SbiDaError(f"{kind} {name!r} cannot be loaded from {points[name].value!r}: {error}") from error
    path = Path(name).expanduser()
    if (path / marker).is_file():
        return path.resolve()
    known = list_names(package_path, marker, group)
    raise UnknownNameError(kind, name, known, f"or give the path of a folder that holds {marker}")


def module_from_folder(folder: Path, prefix: str) -> object:
    """Import the package in ``folder`` (its ``__init__.py``) under a name of its own."""
    import importlib.util

    name = f"{prefix}.{folder.name}"
    if name in sys.modules and Path(sys.modules[name].__file__ or "").parent == folder:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise SbiDaError(f"{folder} holds no importable __init__.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
