"""Images stacked in one array: npz files, HDF5 files, Zarr groups."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from sbi_da.errors import TableError
from sbi_da.records.columns import Column, some
from sbi_da.records.image_layouts.array_files import ArrayFile, open_arrays
from sbi_da.records.image_layouts.assembling import (
    Domain,
    ImageSource,
    MisfitError,
    Resize,
    fit,
    image_of,
    image_records,
)
from sbi_da.records.image_layouts.catalogue import read_catalogue
from sbi_da.records.image_layouts.labels import Classes, column_of, texts
from sbi_da.records.records import Records
from sbi_da.surveys.card import Survey
from sbi_da.surveys.imaging import Imaging

__all__ = ["read_stack"]

Order = Literal["band last", "band first"]


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
    file = open_arrays(Path(path).expanduser(), images)
    if images not in file.kinds:
        raise TableError(f"{file.title}: no array {images!r}; it has {some(list(file.kinds))}: say which holds the images")
    source = _source(file, imaging, images, order, resize)
    rows = _Rows(file, source.shape[0])
    used = {images, labels, label_names if isinstance(label_names, str) else None, id_column, *parameters, *(votes or {}).values()}
    kept = [key for key, (shape, _) in file.kinds.items() if key not in used and shape == (len(rows),)]
    catalogue = read_catalogue(
        rows, name=name, label_column=labels, classes=classes, votes=votes, votes_total=votes_total, parameters=parameters,
        columns=kept, id_column=id_column, group_column=group_column, kind="array",
        named=lambda column: _named(column, label_names, file, f"{file.title}: array {labels!r}"),
    )  # fmt: skip
    return image_records(source, survey, catalogue, domain=domain, sealed=sealed, max_null=max_null)


class _Rows:
    """The arrays of a file as the columns of a table, a row for every image."""

    def __init__(self, file: ArrayFile, images: int) -> None:
        self.title, self.names = file.title, list(file.kinds)
        self._file, self._images = file, images

    def __len__(self) -> int:
        return self._images

    def column(self, name: str) -> Column:
        shape = self._file.kinds[name][0]
        if shape[:1] != (self._images,):
            raise TableError(f"{self.title}: array {name!r} has shape {shape}, but there are {self._images} images")
        return column_of(self._file.read(name, ...))


def _source(file: ArrayFile, imaging: Imaging, images: str, order: Order | None, resize: Resize | None) -> ImageSource:
    shape, dtype = file.kinds[images]
    where = f"{file.title}: array {images!r}"
    if dtype.kind not in "fu" or (dtype.kind == "u" and dtype.itemsize > 1):
        raise TableError(f"{where}: pixels are bytes or floats, not {dtype}: convert them")
    if dtype.kind == "u" and imaging.display is None:
        raise TableError(f"{where}: bytes, but the survey's pixels are fluxes: take a survey with a display, or calibrated images")
    flat = len(shape) == 3 and len(imaging.bands) == 1
    last = not flat and _band_last(shape, imaging, where, order)
    kept = np.dtype("u1") if dtype.kind == "u" else np.dtype("f4")

    def pixels(positions: np.ndarray) -> np.ndarray:
        block = file.read(images, positions).astype(kept, copy=False)
        block = block[:, None] if flat else np.moveaxis(block, 3, 1) if last else block
        return fit(block, imaging, resize, where)

    return ImageSource(file.title, pixels, (shape[0], len(imaging.bands), imaging.size, imaging.size), kept)


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


def _named(column: Column, names: str | Sequence[str] | None, file: ArrayFile, where: str) -> Column:
    """Labels as text where they are numbers of names; negative numbers are null."""
    if names is None or column.values.dtype.kind not in "iuf":
        return column
    if isinstance(names, str):
        if names not in file.kinds:
            return column
        names = list(texts(column_of(file.read(names, ...))))
    codes = np.where(column.missing, -1, column.values).astype(int)
    if codes.max(initial=-1) >= len(names):
        raise TableError(f"{where}: the label {codes.max()} has no name; there are {len(names)}: {some(list(names))}")
    return Column(np.array(["" if c < 0 else names[c] for c in codes]), codes < 0)
