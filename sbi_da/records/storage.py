"""Records on disk: a Zarr folder that appears whole, and is refused when a chunk of it is lost.

The format is Zarr 2, whose fixed-length texts are specified; those of Zarr 3 are not yet. Images are written some objects at a time
and read when they are used.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import xarray as xr

from sbi_da.atomic import whole_folder
from sbi_da.errors import ArtefactError, SbiDaError
from sbi_da.records.images import as_variable, pixels_of, whole_pixels, write_pixels
from sbi_da.records.records import SCHEMA

__all__ = ["load", "save"]


def save(tree: xr.DataTree, path: str | Path, surveys: Iterable[str], parameters: Iterable[str]) -> Path:
    """Write a tree of records, first under a temporary name, then renamed.

    Args:
        tree: the records.
        path: of the folder.
        surveys: their names in order.
        parameters: names of the known parameters in order.

    Raises:
        SbiDaError: the place is taken or full.
    """
    path = Path(path)
    pictures = {name: node.dataset["value"].variable for name, node in _images(tree)}
    slim = xr.DataTree.from_dict({
        node.path: node.to_dataset(inherit=False).drop_vars("value") if node.path.startswith("/images/") else node.to_dataset(inherit=False)
        for node in tree.subtree
    })
    # a folder has no order of its own, and a missing chunk reads as nulls: hence both of these
    slim.attrs["order"] = {"surveys": list(surveys), "parameters": list(parameters), "images": list(pictures)}
    slim.attrs["tally"] = _tally(slim)
    try:
        with whole_folder(path) as folder:
            slim.to_zarr(folder / "tree", mode="w", consolidated=False, zarr_format=2)
            for name, variable in pictures.items():
                write_pixels(folder / "tree" / "images" / name, "value", pixels_of(variable))
            for child in list((folder / "tree").iterdir()):
                child.rename(folder / child.name)
            (folder / "tree").rmdir()
    except OSError as error:
        raise SbiDaError(f"{path}: cannot be written ({' '.join(str(error).split())}): free space or choose another place") from error
    return path


def load(path: str | Path) -> xr.DataTree:
    """Read what :func:`save` wrote; pixels are left on disk until they are used.

    Raises:
        ArtefactError: not such a folder, truncated, or of another schema version.
    """
    path = Path(path)
    if not path.is_dir():
        raise ArtefactError(f"{path}: no such records folder; make one with `sbi-da simulate` or `sbi-da pack`")
    try:
        tree = xr.open_datatree(path, engine="zarr", consolidated=False, cache=False, chunks=None)
        names = [name for name, _ in _images(tree)]
        whole = all(whole_pixels(path / "images" / name, "value") for name in names)
        nodes: dict[str, xr.Dataset] = {}
        for node in tree.subtree:
            dataset = node.to_dataset(inherit=False)
            pixels = dataset["value"].variable if node.path.startswith("/images/") else None
            nodes[node.path] = (dataset if pixels is None else dataset.drop_vars("value")).load()
            if pixels is not None:
                nodes[node.path]["value"] = as_variable(pixels_of(pixels))
    except Exception as error:
        raise ArtefactError(f"{path}: cannot be read as records ({' '.join(str(error).split())})") from error
    attrs = nodes["/"].attrs
    if attrs.get("schema") != SCHEMA:
        raise ArtefactError(f"{path}: records schema {attrs.get('schema')}, this version reads {SCHEMA}: write them again")
    order, tally = attrs.pop("order", {}), attrs.pop("tally", {})
    slim = {k: v.drop_vars("value") if k.startswith("/images/") else v for k, v in nodes.items()}
    if not whole or _tally(xr.DataTree.from_dict(slim)) != tally:
        raise ArtefactError(f"{path}: these records are truncated or were changed: write them again")
    kept = {"/": nodes["/"]}
    for group, found in (("surveys", order["surveys"]), ("images", order.get("images", []))):
        kept |= {f"/{group}/{name}": nodes[f"/{group}/{name}"] for name in found if f"/{group}/{name}" in nodes}
    if order["parameters"]:
        kept["/parameters"] = nodes["/parameters"][order["parameters"]]
    if "/sealed" in nodes:
        kept["/sealed"] = nodes["/sealed"]
    return xr.DataTree.from_dict(kept)


def _images(tree: xr.DataTree) -> list[tuple[str, xr.DataTree]]:
    return list(tree.children["images"].children.items()) if "images" in tree.children else []


def _tally(tree: xr.DataTree) -> dict[str, int]:
    """How many entries of each array are neither null nor zero nor empty, by path: what a lost chunk would change."""
    tally = {}
    for node in tree.subtree:
        for name, variable in node.to_dataset(inherit=False).variables.items():
            values = variable.values
            kept = np.isfinite(values) & (values != 0) if values.dtype.kind == "f" else values.astype(bool)
            tally[f"{node.path.rstrip('/')}/{name}"] = int(kept.sum())
    return tally
