"""Finding plug-ins: built-in folders, folders named by path, and entry points of installed packages.

Listings import no plug-in: an entry point is located by its module's spec, for which Python imports the packages that
module lies in, but not the module itself. One that cannot be located, or whose folder lacks what makes it a plug-in, warns
and is skipped in listings; asked for by name it raises. Surveys are never imported, only their cards are read; a simulator
is imported when asked for by name. The core never names a plug-in.
"""

import importlib
import importlib.util
import sys
import warnings
from importlib import metadata
from pathlib import Path
from types import ModuleType

from sbi_da.errors import SbiDaError, UnknownNameError

__all__ = ["entry_point_folders", "find_folder", "import_plugin", "list_names", "mount"]


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
        except Exception as error:  # a parent package may raise anything at import
            warnings.warn(f"plug-in {name!r} of {group} is broken and skipped: {error}", stacklevel=2)
        else:
            names.add(name)
    return sorted(names)


def _module_folder(point: metadata.EntryPoint, marker: str) -> Path:
    if point.attr:
        raise SbiDaError(f"entry point {point.name!r} must name a package that holds the plug-in, not {point.value!r}")
    spec = importlib.util.find_spec(point.module)
    if spec is None:
        raise SbiDaError(f"entry point {point.name!r}: there is no package {point.value!r}")
    folders = list(spec.submodule_search_locations or ()) or [str(Path(spec.origin or "").parent)]
    for folder in map(Path, folders):
        if (folder / marker).is_file():
            return folder
    raise SbiDaError(f"entry point {point.name!r}: the package {point.value!r} holds no {marker}")


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


def import_plugin(name: str, package: str, package_path: list[str], marker: str, group: str, kind: str) -> ModuleType:
    """Import the plug-in ``name``: each is one module, whichever way it is asked for.

    A built-in folder is imported as part of ``package``, an entry point as the module it names, a folder named by its path
    under a name of its own.

    Raises:
        UnknownNameError: nothing answers to ``name``.
        SbiDaError: an entry point that cannot be imported.
    """
    folder = find_folder(name, package_path, marker, group, kind)
    if folder.resolve().parent in [Path(root).resolve() for root in package_path]:
        return importlib.import_module(f"{package}.{folder.name}")
    points = entry_point_folders(group)
    if name in points:
        try:
            return importlib.import_module(points[name].module)
        except Exception as error:
            message = " ".join(str(error).split())
            raise SbiDaError(f"{kind} {name!r} cannot be loaded from {points[name].value!r}: {message}") from error
    return module_from_folder(folder, package.replace(".", "_"))


def module_from_folder(folder: Path, prefix: str) -> ModuleType:
    """Import the package in ``folder`` (its ``__init__.py``) under a name of its own."""
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
