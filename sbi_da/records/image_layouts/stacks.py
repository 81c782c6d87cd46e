"""Images stacked in one array: npz files, HDF5 files, Zarr groups."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sbi_da.errors import TableError
from sbi_da.records.columns import Column, one_line
from sbi_da.records.image_layouts.assembling import (
    Domain,
    ImageSource,
    MisfitError,
    Resize,
    fit,
    image_of,
    image_records,
)
from sbi_da.records.image_layouts.labels import Classes, class_codes, column_of, identifiers, some, texts, vote_counts
from sbi_da.records.records import Records
from sbi_da.surveys.card import Survey
from sbi_da.surveys.imaging import Imaging

__all__ = ["read_stack"]

Order = Literal["band last", "band first"]
TAKEN = ("object", "image_flag")


def read_stack(
    path: str | Path,
    survey: Survey,
    images: str = "images",
    *,
    labels: str | None = None,
    label_names: str | Sequence[str] | None = "label_names",
    name: str = "morphology",
    classes: Classes | None = None,
    votes: Mapping[str, str] | None = None,
    votes_total: str | None = None,
    parameters: Sequence[str] = (),
    id_column: str | None = None,
    group_column: str | None = None,
    order: Order | None = None,
    resize: Resize | None = None,
    domain: Domain = "real",
    sealed: bool | None = None,
    max_null: float = 0.1,
) -> Records:
    """Records out of an npz file, an HDF5 file or a Zarr group; arrays of shape ``(object,)`` become columns.

    HDF5 and Zarr are read when pixels are asked for; an npz file is held in memory.

    Args:
        path: its suffix says the format: .npz, .h5, .hdf5, .hdf; a folder is a Zarr group.
        survey: whose images they are.
        images: name of their array, of shape ``(object, y, x, band)`` or ``(object, band, y, x)``, or without the band
            axis where the survey has one band; bytes of a composite, or floats.
        labels: array of classes: text, or whole numbers.
        label_names: names of whole-number labels: themselves, or the array that holds them, if it is there.
        name: what the parameter of the classes is called.
        classes: class name to the labels it stands for; labels it does not list are unknown.
        votes: class to array of its votes, kept as the parameters ``<name>_votes_<class>``.
        votes_total: array of all votes, where ``votes`` are fractions.
        parameters: arrays that become parameters.
        id_column: array of unique identifiers; row numbers if None or ``"#row"``.
        group_column: array that becomes the root column ``group``.
        order: of the axes, where the shape leaves it open.
        resize: what to do with images of another size, see :func:`~.assembling.fit`.
        domain: ``simulated`` or ``real``.
        sealed: whether labels and parameters are sealed; those of real objects if None.
        max_null: share of nulls above which a band is absent.

    Raises:
        TableError: in one line, what is wrong with the file and how to mend it.
    """
    imaging = image_of(survey)
    title, names, array, stored = _open(Path(path).expanduser(), images)
    source = _source(title, stored, imaging, images, order, resize)
    n = source.shape[0]

    def column(key: str) -> Column:
        if key not in names:
            raise TableError(f"{title}: no array {key!r}; it has {some(names)}")
        values = array(key)
        if values.shape[:1] != (n,):
            raise TableError(f"{title}: array {key!r} has shape {values.shape}, but there are {n} images")
        return column_of(values)

    known: dict[str, np.ndarray] = {}
    class_names: dict[str, list[str]] = {}
    if labels is not None:
        said = _named(column(labels), label_names, names, array, f"{title}: array {labels!r}")
        known[name], class_names[name] = class_codes(said, classes, f"{title}: array {labels!r}")
    if votes:
        counts = vote_counts({k: column(v) for k, v in votes.items()}, column(votes_total) if votes_total else None, title)
        known |= {f"{name}_votes_{k}": v for k, v in counts.items()}
        class_names.setdefault(name, list(votes))
    for key in parameters:
        known[key] = column(key).values.astype(float)
    ids = None if id_column in (None, "#row") else identifiers(column(id_column), f"{title}: array {id_column!r}")
    columns: dict[str, np.ndarray] = {}
    used = {images, labels, label_names if isinstance(label_names, str) else None, *parameters, *(votes or {}).values()}
    for key in names:
        if key not in used | {id_column} and (values := array(key)).shape == (n,):
            if key in TAKEN:
                raise TableError(f"{title}: the name {key!r} of an array is taken: rename it")
            columns[key] = texts(column_of(values)) if values.dtype.kind in "SOU" else values
    if group_column is not None:
        columns["group"] = texts(column(group_column))
    return image_records(
        source, survey, domain=domain, ids=ids, known=known, columns=columns, classes=class_names, sealed=sealed,
        max_null=max_null,
    )  # fmt: skip


Reader = Callable[[np.ndarray], np.ndarray]


def _open(path: Path, images: str) -> tuple[str, list[str], Callable[[str], np.ndarray], tuple[tuple[int, ...], Any, Reader]]:
    """What messages call it, names of its arrays, a way to read one, and shape, dtype and reader of the images."""
    title = str(path)
    if not path.exists():
        raise TableError(f"{title}: no such file")
    suffix = path.suffix.lower()
    try:
        if path.is_dir():
            return (title, *_open_zarr(path, images))
        if suffix == ".npz":
            with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
                arrays = {key: held[key] for key in held.files}
            stored = arrays[_known(images, list(arrays), title)]
            return title, list(arrays), arrays.__getitem__, (stored.shape, stored.dtype, stored.__getitem__)
        if suffix in (".h5", ".hdf5", ".hdf"):
            return (title, *_open_hdf5(path, images))
    except TableError:
        raise
    except Exception as error:
        raise TableError(f"{title}: cannot be read ({one_line(error)}): the file is damaged, or of another format") from error
    raise TableError(f"{title}: unknown format {suffix!r}; known are .npz, .h5, .hdf5, .hdf, and folders of Zarr arrays")


def _known(name: str, names: list[str], title: str) -> str:
    if name not in names:
        raise TableError(f"{title}: no array {name!r}; it has {some(names)}: say which holds the images")
    return name


def _open_zarr(path: Path, images: str) -> tuple[list[str], Callable[[str], np.ndarray], tuple[tuple[int, ...], Any, Reader]]:
    import zarr

    group: Any = zarr.open_group(str(path), mode="r")
    names = sorted(key for key, _ in group.arrays())
    stored = group[_known(images, names, str(path))]
    return names, lambda key: np.asarray(group[key][...]), (stored.shape, stored.dtype, lambda rows: stored.oindex[rows])


def _open_hdf5(path: Path, images: str) -> tuple[list[str], Callable[[str], np.ndarray], tuple[tuple[int, ...], Any, Reader]]:
    try:
        import h5py
    except ImportError as error:
        raise TableError(f"{path}: HDF5 files need h5py: pip install 'sbi-da[grids]'") from error

    def read(key: str, rows: Any = ...) -> np.ndarray:
        if isinstance(rows, np.ndarray) and len(rows) == rows[-1] - rows[0] + 1:
            rows = slice(int(rows[0]), int(rows[-1]) + 1)  # HDF5 is slow at single rows
        with h5py.File(path, "r") as held:  # opened anew each time: an open file outlives neither threads nor forks
            return np.asarray(held[key][rows])

    with h5py.File(path, "r") as held:
        names = sorted(key for key in held if isinstance(held[key], h5py.Dataset))
        stored = held[images] if images in held else held[_known(images, names, str(path))]
        shape, dtype = stored.shape, stored.dtype
    return names, read, (shape, dtype, lambda rows: read(images, rows))


def _source(
    title: str, stored: tuple[tuple[int, ...], Any, Reader], imaging: Imaging, images: str, order: Order | None, resize: Resize | None
) -> ImageSource:
    shape, dtype, read = stored
    where = f"{title}: array {images!r}"
    if dtype.kind not in "fu" or (dtype.kind == "u" and dtype.itemsize > 1):
        raise TableError(f"{where}: pixels are bytes or floats, not {dtype}: convert them")
    if dtype.kind == "u" and imaging.display is None:
        raise TableError(f"{where}: bytes, but the survey's pixels are fluxes: take a survey with a display, or calibrated images")
    flat = len(shape) == 3 and len(imaging.bands) == 1
    last = not flat and _band_last(shape, imaging, where, order)
    kept = np.dtype("u1") if dtype.kind == "u" else np.dtype("f4")

    def pixels(positions: np.ndarray) -> np.ndarray:
        block = read(positions).astype(kept, copy=False)
        block = block[:, None] if flat else np.moveaxis(block, 3, 1) if last else block
        return fit(block, imaging, resize, where)

    return ImageSource(title, pixels, (shape[0], len(imaging.bands), imaging.size, imaging.size), kept)


def _band_last(shape: tuple[int, ...], imaging: Imaging, where: str, order: Order | None) -> bool:
    bands, size = len(imaging.bands), imaging.size
    if len(shape) != 4:
        raise TableError(f"{where}: images of shape {shape}: (object, y, x, band) or (object, band, y, x) is needed")
    fits = {"band last": shape[3] == bands, "band first": shape[1] == bands}
    if order is not None:
        fits = {order: fits[order]}
    ways = [key for key, fit in fits.items() if fit]
    if not ways:
        expected = " or ".join(f"{bands} ({', '.join(imaging.band_names)}) {key}" for key in fits)
        raise MisfitError(f"{where}: shape {shape} has not the survey's bands: {expected} is needed")
    if len(ways) > 1:
        exact = [key for key in ways if (shape[1:3] if key == "band last" else shape[2:4]) == (size, size)]
        if len(exact) != 1:
            raise TableError(f"{where}: shape {shape} leaves the order of the axes open: pass order='band last' or order='band first'")
        ways = exact
    return ways[0] == "band last"


def _named(
    column: Column, names: str | Sequence[str] | None, arrays: list[str], array: Callable[[str], np.ndarray], where: str
) -> Column:
    """Labels as text where they are numbers of names; negative numbers are null."""
    if names is None or column.values.dtype.kind not in "iuf":
        return column
    if isinstance(names, str):
        if names not in arrays:
            return column
        names = list(texts(column_of(array(names))))
    codes = np.where(column.missing, -1, column.values).astype(int)
    if codes.max(initial=-1) >= len(names):
        raise TableError(f"{where}: the label {codes.max()} has no name; there are {len(names)}: {some(list(names))}")
    return Column(np.array(["" if c < 0 else names[c] for c in codes]), codes < 0)
