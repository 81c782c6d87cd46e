"""A table beside a folder of PNG or JPEG pictures, as Galaxy Zoo gives them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sbi_da.errors import TableError
from sbi_da.records.columns import TableLike, one_line, open_source
from sbi_da.records.image_layouts.assembling import (
    Domain,
    ImageSource,
    Resize,
    fit,
    image_of,
    image_records,
)
from sbi_da.records.image_layouts.catalogue import read_catalogue
from sbi_da.records.image_layouts.labels import Classes, texts
from sbi_da.records.records import Records
from sbi_da.surveys.card import Survey
from sbi_da.surveys.imaging import Imaging

__all__ = ["Folder", "picture_source", "read_table_with_images"]

SUFFIXES = (".png", ".jpg", ".jpeg")
MODES = ("RGB", "RGBA", "L", "LA", "P", "CMYK", "YCbCr")


def read_table_with_images(
    table: TableLike,
    folder: str | Path,
    survey: Survey,
    image_column: str,
    *,
    label_column: str | None = None,
    name: str = "morphology",
    classes: Classes | None = None,
    votes: Mapping[str, str] | None = None,
    votes_total: str | None = None,
    parameters: Sequence[str] = (),
    columns: Sequence[str] = (),
    id_column: str | None = None,
    group_column: str | None = None,
    resize: Resize | None = None,
    domain: Domain = "real",
    sealed: bool | None = None,
) -> Records:
    """Records of a table whose rows name pictures; those are decoded when their pixels are asked for.

    Red, green and blue become the survey's bands of the longest, middle and shortest wavelength. A missing or broken
    picture is a row without images, whose ``image_flag`` says why.

    Args:
        table: a path, whose suffix says the format; or a mapping of arrays, a pyarrow, astropy or pandas table.
        folder: of the pictures.
        survey: whose images they are; it must have a display.
        image_column: paths under ``folder``, or names without the suffix .png, .jpg or .jpeg.
        label_column: classes: text, or whole numbers.
        name: what the parameter of the classes is called.
        classes: class name to the labels it stands for; labels it does not list are unknown.
        votes: class to column of its votes, kept as the parameters ``<name>_votes_<class>``.
        votes_total: column of all votes, where ``votes`` are fractions.
        parameters: columns that become parameters.
        columns: columns kept as root columns.
        id_column: unique identifiers; row numbers if None or ``"#row"``.
        group_column: what becomes the root column ``group``.
        resize: what to do with pictures of another size, see :func:`~.assembling.fit`.
        domain: ``simulated`` or ``real``.
        sealed: whether labels and parameters are sealed; those of real objects if None.

    Raises:
        TableError: in one line, what is wrong with table or folder and how to mend it.
    """
    source = open_source(table)
    catalogue = read_catalogue(
        source, name=name, label_column=label_column, classes=classes, votes=votes, votes_total=votes_total, parameters=parameters,
        columns=columns, id_column=id_column, group_column=group_column, needed=[image_column],
    )  # fmt: skip
    images = picture_source(Folder(folder), texts(source.column(image_column)).tolist(), image_of(survey), resize)
    return image_records(images, survey, catalogue, domain=domain, sealed=sealed)


class Folder:
    """Files of a folder, by path or by name without suffix."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).expanduser()
        if not self.path.is_dir():
            raise TableError(f"{self.path}: no such folder of images")
        self._stems = {file.stem: file for file in sorted(self.path.iterdir()) if file.suffix.lower() in SUFFIXES}

    def __len__(self) -> int:
        return len(self._stems)

    def find(self, name: str) -> Path | None:
        """The picture called ``name``: a path under the folder, the last part of one, or that without its suffix."""
        if not name:
            return None
        path = Path(name)
        if path.suffix.lower() in SUFFIXES:
            inside = not path.is_absolute() and ".." not in path.parts
            for candidate in ([self.path / path] if inside else []) + [self.path / path.name]:
                if candidate.is_file():
                    return candidate
            return None
        return self._stems.get(path.name)

    @property
    def first(self) -> str:
        """Name of some picture, for messages."""
        return next((file.name for file in self._stems.values()), "none")


def picture_source(folder: Folder, names: Sequence[str], imaging: Imaging, resize: Resize | None) -> ImageSource:
    """Pictures by name; missing and broken ones raise when read.

    Raises:
        TableError: the survey's images are no colour composites, or not one picture is there.
    """
    if imaging.display is None:
        raise TableError(f"{folder.path}: pictures hold colours, but the survey's pixels are fluxes: take a survey with a display")
    files = [folder.find(name) for name in names]
    if not any(files):
        raise TableError(
            f"{folder.path}: none of the {len(files)} pictures of the table is there: it names {str(names[0])!r}, the folder holds "
            f"{folder.first}"
        )
    # red is the longest wavelength, wherever the survey lists it
    place = np.argsort(np.argsort([-band.wavelength for band in imaging.bands]))

    def read(positions: np.ndarray) -> np.ndarray:
        planes = [_decode(files[i], names[i])[place] for i in positions]
        where = [str(folder.path / names[i]) for i in positions]
        return np.concatenate([fit(p[None], imaging, resize, w) for p, w in zip(planes, where, strict=True)])

    return ImageSource(str(folder.path), read, (len(files), 3, imaging.size, imaging.size), np.uint8)


def _decode(file: Path | None, name: str) -> np.ndarray:
    """Red, green and blue, bytes of shape ``(3, y, x)``."""
    from PIL import Image, UnidentifiedImageError

    if file is None:
        raise TableError(f"no picture {name!r}")
    try:
        with Image.open(file) as picture:
            if picture.mode not in MODES:
                raise TableError(f"{file.name}: pixels of mode {picture.mode}, not 8-bit colours")
            return np.asarray(picture.convert("RGB")).transpose(2, 0, 1)
    except TableError:
        raise
    except UnidentifiedImageError as error:
        raise TableError(f"{file.name}: not a picture, or damaged") from error
    except Exception as error:
        raise TableError(f"{file.name}: {one_line(error)}") from error
