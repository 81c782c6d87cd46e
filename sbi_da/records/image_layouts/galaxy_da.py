"""The galaxy sets of Zenodo 17434016: IllustrisTNG pictures, and Galaxy Zoo 2 and Galaxy Zoo DESI pictures.

Three classes: 0 elliptical, 1 irregular, 2 spiral. ``source/`` holds ``galaxy_images_rgb/subhalo_<id>.png`` and
``source_galaxy_labels.csv``; ``target/`` holds ``gz2_images/<asset>.jpg`` with ``gz2_galaxy_labels.csv`` and
``gz_desi/<brick>_<object>.png`` with ``gz_desi_labels.csv``.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from sbi_da.errors import TableError, UnknownNameError
from sbi_da.records.columns import TableSource, open_source
from sbi_da.records.identifiers import identifiers
from sbi_da.records.image_layouts.assembling import Domain, Resize, image_of, image_records
from sbi_da.records.image_layouts.catalogue import read_catalogue
from sbi_da.records.image_layouts.labels import texts
from sbi_da.records.image_layouts.pictures import Folder, picture_source
from sbi_da.records.records import Records
from sbi_da.surveys.card import Survey

__all__ = ["CLASSES", "Side", "read_galaxy_da"]

Side = Literal["source", "target", "desi"]
CLASSES = {"elliptical": ("0", "elliptical"), "irregular": ("1", "irregular"), "spiral": ("2", "spiral")}
LABEL = "classification"


@dataclass(frozen=True)
class _Part:
    table: str
    folder: str
    survey: str
    domain: Domain
    pictures: tuple[str, ...]
    """How a picture's name follows from a row, in the order tried."""
    ids: tuple[str, ...]


PARTS = {
    "source": _Part(
        "source/source_galaxy_labels.csv", "source/galaxy_images_rgb", "tng", "simulated",
        ("{image_path}", "subhalo_{subhalo_id}"), ("subhalo_id",),
    ),
    "target": _Part(
        "target/gz2_galaxy_labels.csv", "target/gz2_images", "sdss_images", "real",
        ("{image_path}", "{asset_id}", "{subhalo_id}", "{objid}"), ("objid", "subhalo_id"),
    ),
    "desi": _Part(
        "target/gz_desi_labels.csv", "target/gz_desi", "decals_images", "real",
        ("{image_path}", "{dr8_id}", "{brickid}_{objid}", "{subhalo_id}", "{objid}"), ("dr8_id", "objid", "subhalo_id"),
    ),
}  # fmt: skip


def read_galaxy_da(
    folder: str | Path,
    side: Side = "source",
    *,
    survey: Survey | None = None,
    name: str = "morphology",
    resize: Resize | None = None,
    sealed: bool | None = None,
) -> Records:
    """One of the three sets. All columns of its table but the label are kept as root columns.

    Args:
        folder: that holds ``source`` and ``target``.
        side: ``source`` (simulated), ``target`` (Galaxy Zoo 2) or ``desi``.
        survey: whose images they are; ``tng``, ``sdss_images`` or ``decals_images`` if None.
        name: what the parameter of the classes is called.
        resize: what to do with pictures of another size, see :func:`~.assembling.fit`.
        sealed: whether labels are sealed; those of real galaxies if None.

    Raises:
        UnknownNameError: no such side.
        TableError: a file of the layout that is not there, or pictures that match no row.
    """
    if side not in PARTS:
        raise UnknownNameError("side", side, list(PARTS))
    part, root = PARTS[side], Path(folder).expanduser()
    if survey is None:
        from sbi_da.surveys.registry import get_survey

        survey = get_survey(part.survey)
    table = open_source(root / part.table)
    kept = [key for key in table.names if key != LABEL]
    catalogue = read_catalogue(table, name=name, label_column=LABEL, classes=CLASSES, columns=kept)
    pictures = Folder(root / part.folder)
    images = picture_source(pictures, _picture_names(table, pictures, part), image_of(survey), resize)
    return image_records(images, survey, replace(catalogue, ids=_identifiers(table, part)), domain=part.domain, sealed=sealed)


def _picture_names(table: TableSource, folder: Folder, part: _Part) -> list[str]:
    """Names of the pictures by the rule that finds most of them: which column holds them differs between the tables."""
    best, most = [""] * len(table), -1
    for pattern in part.pictures:
        keys = [piece.split("}")[0] for piece in pattern.split("{")[1:]]
        if not set(keys) <= set(table.names):
            continue
        parts = {key: texts(table.column(key)) for key in keys}
        names = [pattern.format(**{key: parts[key][i] for key in keys}) for i in range(len(table))]
        found = sum(folder.find(name) is not None for name in names)
        if found > most:
            best, most = names, found
    if most < 0:
        raise TableError(f"{table.title}: no column names the pictures: one of {', '.join(part.pictures)} is needed")
    return best


def _identifiers(table: TableSource, part: _Part) -> np.ndarray | None:
    """The first column that identifies every row; row numbers where none does."""
    for key in part.ids:
        if key in table.names:
            try:
                return identifiers(table.column(key), table.title)
            except TableError:
                continue
    return None
