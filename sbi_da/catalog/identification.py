"""Which column names the objects of a catalogue."""

import warnings
from collections.abc import Sequence
from typing import Any

from sbi_da.catalog.question import Question
from sbi_da.catalog.sources import Catalogue
from sbi_da.errors import TableError
from sbi_da.records.channels import match
from sbi_da.records.columns import some
from sbi_da.records.identifiers import ROW_NUMBER
from sbi_da.surveys import Survey

__all__ = ["choose_identifiers"]


def choose_identifiers(catalogue: Catalogue, surveys: Sequence[Survey], question: Question) -> str:
    """Name of the column of identifiers, or ``"#row"`` for row numbers.

    Without one that is asked for it is the first of the surveys' own that has fewest nulls; row numbers where each lacks half or more.

    Raises:
        TableError: a column that is asked for is not there.
    """
    for name in (question.id_column, *question.keep, *question.units):
        if name is not None and name != ROW_NUMBER and name not in catalogue.columns:
            raise TableError(f"{catalogue.title}: no column {name!r}; it has {some(catalogue.columns)}")
    if question.id_column is not None:
        return question.id_column
    names: dict[str, None] = {}
    for survey in surveys:
        first = match(catalogue.columns, survey.id_columns, survey.id_columns[:1], catalogue.title)
        names |= dict.fromkeys([first] if first else [])
        names |= dict.fromkeys(name for name in survey.id_columns if name in catalogue.columns)
    nulls = {name: _nulls(catalogue, name) for name in names}
    best = min(names, key=lambda name: nulls[name], default=None)
    if best is None or 2 * nulls[best] >= len(catalogue):
        if names:
            warnings.warn(f"{catalogue.title}: column {', '.join(names)} is mostly empty: row numbers serve instead", stacklevel=2)
        return ROW_NUMBER
    return best


def _nulls(catalogue: Catalogue, name: str) -> int:
    """How many rows are known to be null in a column."""
    import pyarrow.parquet as pq

    total = 0
    for path in dict.fromkeys(partition.path for partition in catalogue.partitions):
        metadata: Any = pq.read_metadata(path)
        for group in range(metadata.num_row_groups):
            held = metadata.row_group(group)
            for k in range(held.num_columns):
                column = held.column(k)
                said = column.statistics if column.path_in_schema == name else None
                total += said.null_count if said is not None and said.has_null_count else 0
    return total
