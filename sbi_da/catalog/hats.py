"""HATS catalogues, which LSDB reads (Caplar et al. 2025, arXiv:2501.02103): sky tables in Parquet files, one for each HEALPix pixel.

What they are asked is answered as a HATS catalogue of the same pixels, which LSDB opens beside them.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import sbi_da
from sbi_da.errors import TableError
from sbi_da.records.columns import some

__all__ = ["catalogue_root", "describe", "one_type", "pixel_of", "positions"]

PIXEL = re.compile(r"Norder=(\d+)/Dir=\d+/Npix=(\d+)")
NAMES = ("hats.properties", "properties")
OWN = ("hats_nrows", "hats_estsize", "hats_builder", "obs_collection", "hats_creation_date", "hats_cols_default", "hats_cols_sort",
       "hats_skymap_order", "hats_max_rows", "hats_assn_join_table_url")  # fmt: skip
"""Properties that are not those of the catalogue asked about."""


def catalogue_root(path: Path) -> Path | None:
    """The folder of the catalogue itself: ``path``, or the main one of a collection; None if it is no HATS catalogue."""
    collection = path / "collection.properties"
    if collection.is_file():
        main = _read(collection).get("hats_primary_table_url")
        if not main or not (path / main).is_dir():
            raise TableError(f"{collection}: hats_primary_table_url names no folder there")
        path = path / main
    return path if (path / "dataset").is_dir() and any((path / name).is_file() for name in NAMES) else None


def pixel_of(name: str) -> tuple[int, int] | None:
    """Order and number of the pixel of a file; None if it is of none."""
    found = PIXEL.search(name)
    return (int(found[1]), int(found[2])) if found else None


def positions(root: Path, columns: Sequence[str]) -> tuple[str, ...]:
    """Columns that an answer needs to be a HATS catalogue: right ascension, declination, and the pixel if there is one.

    Raises:
        TableError: the properties name columns that are not there.
    """
    said = properties(root)
    names = tuple(said.get(f"hats_col_{what}", what) for what in ("ra", "dec"))
    lost = [name for name in names if name not in columns]
    if lost:
        raise TableError(f"{root}: its properties name column {lost[0]!r}, which is not there; it has {some(list(columns))}")
    healpix = said.get("hats_col_healpix", "_healpix_29")
    return (*names, healpix) if healpix in columns else names


def one_type(columns: Mapping[str, str], title: str, known: dict[str, tuple[str, str]]) -> None:
    """Refuse a file whose columns have other types than in the files before it, as the answers would, and a HATS catalogue has one.

    Args:
        columns: types by name.
        title: what messages call the file.
        known: types by name, and the file they were found in first; it is added to.

    Raises:
        TableError: another type.
    """
    for name, kind in columns.items():
        before, where = known.setdefault(name, (kind, title))
        if kind != before:
            raise TableError(f"{title}: column {name!r} is {kind}, in {where} {before}: a HATS catalogue has one type for each column")


def properties(root: Path) -> dict[str, str]:
    """What a catalogue says of itself."""
    return _read(next(root / name for name in NAMES if (root / name).is_file()))


def _read(path: Path) -> dict[str, str]:
    lines = (line.partition("=") for line in path.read_text().splitlines() if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, _, value in lines}


def describe(root: Path, answers: Path, names: Sequence[str]) -> None:
    """Make a catalogue of the answers.

    Args:
        root: the catalogue they are about.
        answers: their folder.
        names: of their files.
    """
    import pyarrow.parquet as pq

    said, held = properties(root), []
    for name in names:
        metadata: Any = pq.read_metadata(answers / name)
        metadata.set_file_path(Path(name).relative_to("dataset").as_posix())
        held.append(metadata)
    schema = pq.read_schema(answers / names[0])
    pq.write_metadata(schema, answers / "dataset" / "_common_metadata")
    pq.write_metadata(schema, answers / "dataset" / "_metadata", metadata_collector=held)
    pixels = [pixel for name in names if (pixel := pixel_of(name))]
    lines = ["Norder,Npix", *(f"{order},{number}" for order, number in pixels)]
    (answers / "partition_info.csv").write_text("\n".join(lines) + "\n")
    kept = {key: value for key, value in said.items() if key not in OWN}
    rows = [m.num_rows for m in held]
    own = {
        "obs_collection": f"{said.get('obs_collection', root.name)}_sbi_da", "hats_nrows": str(sum(rows)), "hats_max_rows": str(max(rows)),
        "hats_builder": f"sbi-da v{sbi_da.__version__}",
    }
    text = "#HATS catalog\n" + "".join(f"{key}={value}\n" for key, value in {**own, **kept}.items())
    for name in NAMES:
        (answers / name).write_text(text)
