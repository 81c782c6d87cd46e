"""What a table, or the further arrays of a stack, say of objects beside their images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from sbi_da.errors import TableError
from sbi_da.records.channels import numbers
from sbi_da.records.columns import Column, TableSource, some
from sbi_da.records.identifiers import ROW_NUMBER, entries, identifiers
from sbi_da.records.image_layouts.labels import Classes, class_codes, texts, vote_counts

__all__ = ["Catalogue", "read_catalogue"]

TAKEN = ("object", "image_flag")


@dataclass(frozen=True)
class Catalogue:
    """What is known of objects; arrays have the shape ``(object,)``.

    Attributes:
        ids: identifiers; None: row numbers.
        known: labels, votes and parameters by name, NaN where unknown; what may have to be sealed.
        classes: names of the classes by parameter.
        columns: root columns by name.
    """

    ids: np.ndarray | None = None
    known: dict[str, np.ndarray] = field(default_factory=dict)
    classes: dict[str, list[str]] = field(default_factory=dict)
    columns: dict[str, np.ndarray] = field(default_factory=dict)


def read_catalogue(
    source: TableSource,
    *,
    name: str = "morphology",
    label_column: str | None = None,
    classes: Classes | None = None,
    votes: Mapping[str, str] | None = None,
    votes_total: str | None = None,
    parameters: Sequence[str] = (),
    columns: Sequence[str] = (),
    id_column: str | None = None,
    group_column: str | None = None,
    needed: Sequence[str] = (),
    kind: str = "column",
    named: Callable[[Column], Column] | None = None,
) -> Catalogue:
    """Read what is said of every row.

    Args:
        source: a table, or what can be read as one.
        name: what the parameter of the classes is called.
        label_column: classes: text, or whole numbers.
        classes: class name to the labels it stands for; labels it does not list are unknown.
        votes: class to column of its votes, which become the parameters ``<name>_votes_<class>``.
        votes_total: column of all votes, where ``votes`` are fractions.
        parameters: columns of numbers that become parameters.
        columns: columns kept as root columns: numbers with NaN where null, all else as text.
        id_column: unique identifiers; row numbers if None or ``"#row"``.
        group_column: what becomes the root column ``group``.
        needed: further columns that must be there.
        kind: what messages call a column.
        named: puts names in the place of numbers in the column of labels.

    Raises:
        TableError: in one line, the column that is missing or of no use, and how to mend it.
    """

    def where(key: str) -> str:
        return f"{source.title}: {kind} {key!r}"

    id_column = None if id_column == ROW_NUMBER else id_column
    wanted = (*needed, id_column, label_column, votes_total, group_column, *(votes or {}).values(), *parameters, *columns)
    for key in wanted:
        if key is not None and key not in source.names:
            raise TableError(f"{source.title}: no {kind} {key!r}; it has {some(source.names)}")
    taken = [key for key in columns if key in TAKEN]
    if taken:
        raise TableError(f"{source.title}: the name {taken[0]!r} of a root column is taken: rename that {kind}, or leave it out")
    if len(source) == 0:
        raise TableError(f"{source.title}: no objects in it")
    known: dict[str, np.ndarray] = {}
    names: dict[str, list[str]] = {}
    if label_column is not None:
        labels = source.column(label_column)
        known[name], names[name] = class_codes(labels if named is None else named(labels), classes, where(label_column))
    if votes:
        total = source.column(votes_total) if votes_total else None
        counts = vote_counts({k: source.column(v) for k, v in votes.items()}, total, source.title)
        known |= {f"{name}_votes_{k}": v for k, v in counts.items()}
        names.setdefault(name, list(votes))
    known |= {key: numbers(source.column(key), where(key)) for key in parameters}
    kept = {key: _plain(source.column(key)) for key in columns}
    if group_column is not None:
        kept["group"] = entries(source.column(group_column), where(group_column)).astype(str)
    ids = None if id_column is None else identifiers(source.column(id_column), where(id_column))
    return Catalogue(ids, known, names, kept)


def _plain(column: Column) -> np.ndarray:
    if column.values.dtype.kind not in "fiub":
        return texts(column)
    return np.where(column.missing, np.nan, column.values) if column.missing.any() else column.values
