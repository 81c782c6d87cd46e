"""FITS cut-outs: a file for each object and band, ``<id>_<band>.fits``, or a cube for each object, ``<id>.fits``."""

import gzip
import io
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sbi_da.errors import TableError
from sbi_da.records.columns import TableLike, one_line, open_source, some
from sbi_da.records.identifiers import ROW_NUMBER
from sbi_da.records.image_layouts.assembling import (
    Domain,
    ImageSource,
    MisfitError,
    Resize,
    fit,
    image_of,
    image_records,
)
from sbi_da.records.image_layouts.catalogue import Catalogue, read_catalogue
from sbi_da.records.image_layouts.fits_headers import flux_unit, pixel_scale
from sbi_da.records.image_layouts.labels import Classes
from sbi_da.records.records import Records
from sbi_da.surveys.card import Survey
from sbi_da.surveys.imaging import ImageBand, Imaging

__all__ = ["read_cutouts"]

SUFFIXES = (".fits", ".fit", ".fits.gz", ".fits.fz")
INVERSE_VARIANCE = ("IVAR", "INVVAR", "WEIGHT", "WHT")
DEVIATION = ("ERR", "ERROR", "SIGMA", "RMS", "STD")
CUBE = ""


def read_cutouts(
    folder: str | Path,
    survey: Survey,
    *,
    table: TableLike | None = None,
    id_column: str | None = None,
    label_column: str | None = None,
    name: str = "morphology",
    classes: Classes | None = None,
    votes: Mapping[str, str] | None = None,
    votes_total: str | None = None,
    parameters: Sequence[str] = (),
    columns: Sequence[str] = (),
    group_column: str | None = None,
    resize: Resize | None = None,
    domain: Domain = "real",
    sealed: bool | None = None,
    max_null: float = 0.1,
) -> Records:
    """Records of FITS cut-outs, read when their pixels are asked for.

    Noise is the median of an error or inverse-variance extension where a file has one, else from the corners of the
    image. A missing or broken file leaves its bands absent, and ``image_flag`` says why.

    Args:
        folder: of the files, ``<id>_<band>.fits`` or cubes ``<id>.fits`` whose planes are the survey's bands, or those
            that the header's ``BANDS`` lists.
        survey: whose images they are; its pixels are fluxes.
        table: whose rows say which objects; every object of the folder if None.
        id_column: of the table, the identifiers that files are named by.
        label_column: as of :func:`~.pictures.read_table_with_images`, like what follows up to ``sealed``.
        name: what the parameter of the classes is called.
        classes: class name to the labels it stands for.
        votes: class to column of its votes.
        votes_total: column of all votes, where ``votes`` are fractions.
        parameters: columns that become parameters.
        columns: columns kept as root columns.
        group_column: what becomes the root column ``group``.
        resize: what to do with images of another size, see :func:`~.assembling.fit`.
        domain: ``simulated`` or ``real``.
        sealed: whether labels and parameters are sealed; those of real objects if None.
        max_null: share of nulls above which a band is absent.

    Raises:
        TableError: in one line, what is wrong with table or folder and how to mend it.
    """
    imaging = image_of(survey)
    if imaging.display is not None:
        raise TableError(
            f"{folder}: FITS cut-outs hold fluxes, but survey {survey.name!r} has colour composites: take one without a display"
        )
    listed = _list(Path(folder).expanduser(), imaging)
    if table is None:
        wanted = [key for key in (id_column, label_column, group_column, *(votes or {}).values(), *parameters, *columns) if key]
        if wanted:
            raise TableError(f"{folder}: the column {wanted[0]!r} needs a table: pass table=")
        catalogue = Catalogue(np.array(list(listed)))
    else:
        source = open_source(table)
        if id_column in (None, ROW_NUMBER):
            raise TableError(f"{source.title}: which column are the files named by? pass id_column=; it has {some(source.names)}")
        catalogue = read_catalogue(
            source, name=name, label_column=label_column, classes=classes, votes=votes, votes_total=votes_total, parameters=parameters,
            columns=columns, id_column=id_column, group_column=group_column,
        )  # fmt: skip
    ids = catalogue.ids
    assert ids is not None
    files = [listed.get(str(key), {}) for key in ids]
    if not any(files):
        raise TableError(
            f"{folder}: no file for any of the {len(files)} objects: {ids[0]}_{imaging.bands[0].name}.fits or {ids[0]}.fits is needed"
        )
    reader = _Cutouts(files, imaging, resize)
    shape = (len(files), len(imaging.bands), imaging.size, imaging.size)
    of_images = ImageSource(str(folder), reader.read, shape, np.float32, reader.notes, reader.error)
    records = image_records(of_images, survey, catalogue, domain=domain, sealed=sealed, max_null=max_null)
    if reader.assumed:
        warnings.warn(
            f"{folder}: {len(reader.assumed)} of {len(files)} objects have neither a zero point nor units of flux density: "
            f"their pixels are taken in the units of survey {survey.name!r}",
            stacklevel=2,
        )
    return records


def _list(folder: Path, imaging: Imaging) -> dict[str, dict[str, Path]]:
    """Files by identifier and band; a cube has an empty name for its band."""
    if not folder.is_dir():
        raise TableError(f"{folder}: no such folder of cut-outs")
    found: dict[str, dict[str, Path]] = {}
    for file in sorted(folder.iterdir()):
        suffix = next((s for s in SUFFIXES if file.name.lower().endswith(s)), None)
        if suffix is None:
            continue
        stem = file.name[: -len(suffix)]
        head, _, band = stem.rpartition("_")
        key, band = (head, band) if head and band in imaging.band_names else (stem, CUBE)
        found.setdefault(key, {})[band] = file
    if not found:
        raise TableError(f"{folder}: no FITS files ({', '.join(SUFFIXES)})")
    return found


class _Cutouts:
    """Reads cut-outs and remembers their noise and what they lack."""

    def __init__(self, files: Sequence[Mapping[str, Path]], imaging: Imaging, resize: Resize | None) -> None:
        self.files, self.imaging, self.resize = files, imaging, resize
        self.notes: dict[int, str] = {}
        self.error = np.full((len(files), len(imaging.bands)), np.nan)
        self.assumed: set[int] = set()

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Fluxes of shape ``(k, band, y, x)``, NaN where there is none."""
        size, bands = self.imaging.size, self.imaging.bands
        result = np.full((len(positions), len(bands), size, size), np.nan, np.float32)
        for row, i in enumerate(positions.tolist()):
            words = [] if self.files[i] else ["no file"]
            for name, file in self.files[i].items():
                try:
                    for j, plane in self._planes(i, file, name):
                        result[row, j] = plane
                except MisfitError:
                    raise
                except Exception as error:  # any decoder may raise anything over a broken file
                    words.append(f"{file.name}: {one_line(error)}"[:160])
            if self.files[i] and CUBE not in self.files[i]:
                words += [f"{band.name}: no file" for band in bands if band.name not in self.files[i]]
            if words:
                self.notes[i] = "; ".join(words)
        return result

    def _planes(self, i: int, file: Path, name: str) -> list[tuple[int, np.ndarray]]:
        from astropy.io import fits

        names = self.imaging.band_names
        content = file.read_bytes()
        content = gzip.decompress(content) if file.suffix.lower() == ".gz" else content
        with fits.open(io.BytesIO(content), memmap=False) as units:
            held = [u for u in units if u.is_image and u.header.get("NAXIS", 0) >= 2]
            data = next((u for u in held if u.name.upper() not in INVERSE_VARIANCE + DEVIATION), None)
            if data is None:
                raise TableError("no image in it")
            header, pixels = data.header, np.asarray(data.data, np.float32)
            said = str(header.get("BANDS", "")).replace(",", " ").split()
            order = [name] if name else (list(said[0]) if len(said) == 1 and len(said[0]) > 1 else said) or list(names)
            if pixels.ndim == 2:
                pixels = pixels[None]
            if pixels.ndim != 3 or len(pixels) != len(order):
                raise TableError(f"shape {pixels.shape} where {len(order)} bands ({', '.join(order)}) are expected")
            noise = self._noise(held, pixels.shape)
        found = []
        for plane, spread, band in zip(pixels, noise, order, strict=True):
            if band in names:
                j = names.index(band)
                factor = self._factor(i, header, self.imaging.bands[j])
                self._check_scale(file, header, min(plane.shape))
                found.append((j, factor * fit(plane[None, None], self.imaging, self.resize, str(file))[0, 0]))
                if self.resize != "zoom":  # a resampled image has another noise
                    self.error[i, j] = factor * spread
        return found

    @staticmethod
    def _noise(units: Sequence[Any], shape: tuple[int, ...]) -> np.ndarray:
        """Median standard deviation by band from an extension, NaN where there is none."""
        for unit in units:
            name = unit.name.upper()
            if name in INVERSE_VARIANCE + DEVIATION:
                values = np.asarray(unit.data, float).reshape(-1, *shape[1:])
                values = np.where(np.isfinite(values) & (values > 0), values, np.nan)
                usable = np.isfinite(values).any((1, 2))
                middle = np.full(len(values), np.nan)
                deviation = values[usable] if name in DEVIATION else values[usable] ** -0.5
                middle[usable] = np.nanmedian(deviation, axis=(1, 2))
                return np.broadcast_to(middle, shape[:1])
        return np.full(shape[0], np.nan)

    def _factor(self, i: int, header: Any, band: ImageBand) -> float:
        factor = flux_unit(header, band, self.imaging.pixel_scale)
        if factor is None:
            self.assumed.add(i)
        return 1.0 if factor is None else factor

    def _check_scale(self, file: Path, header: Any, side: int) -> None:
        """Refuse pixels of another size on the sky than the survey's."""
        scale = pixel_scale(header) * (side / self.imaging.size if self.resize == "zoom" else 1.0)
        if scale and abs(scale / self.imaging.pixel_scale - 1) > 0.05:
            raise MisfitError(
                f"{file}: pixels of {scale:.3g} arcsec where the survey has {self.imaging.pixel_scale:g}: resample them, or give "
                "a survey of their pixel_scale"
            )
