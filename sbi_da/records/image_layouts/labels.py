"""What a table or stack says of each object: classes and votes.

A class is a code 0 to K-1, its place among the names; NaN where it is not known. Nothing but ``classes`` says which
values of a column make up a class; without it every value is one.
"""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np

from sbi_da.errors import TableError
from sbi_da.records.channels import numbers
from sbi_da.records.columns import Column, some

__all__ = ["Classes", "class_codes", "column_of", "plain", "texts", "vote_counts"]

Classes = Mapping[str, str | int | Sequence[str | int]]
"""Class name to the values of the label column it stands for."""


def column_of(values: np.ndarray) -> Column:
    """An array as a column, null where it is NaN."""
    values = np.asarray(values)
    return Column(values, np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool))


def plain(value: object) -> str:
    """A value as text: whole numbers without a point, bytes decoded, blanks at the ends gone."""
    if isinstance(value, bytes):
        return value.decode(errors="replace").strip()
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value).strip()


def texts(column: Column) -> np.ndarray:
    """A column as text, empty where null; shape ``(row,)``."""
    return np.array(["" if gone else plain(v) for v, gone in zip(column.values, column.missing, strict=True)], dtype=str)


def class_codes(column: Column, classes: Classes | None, where: str) -> tuple[np.ndarray, list[str]]:
    """Codes of shape ``(row,)``, NaN where no class is known, and the names of the classes.

    Args:
        column: of labels: text, or whole numbers of which negative ones mean unknown.
        classes: which values make up a class; values it does not list are unknown. Each value is a class if None.
        where: file and column, for messages.

    Raises:
        TableError: a value in two classes, or no row of any class.
    """
    if column.values.ndim != 1:
        raise TableError(f"{where}: one label a row is needed, not shape {column.values.shape[1:]}")
    values = texts(column)
    if column.values.dtype.kind in "if":
        with np.errstate(invalid="ignore"):
            values = np.where(np.where(column.missing, 0, column.values) < 0, "", values)
    found = [str(v) for v in np.unique(values) if v]
    if classes is None:
        number = column.values.dtype.kind in "iufb"
        names = sorted(found, key=float) if number and all(_is_number(v) for v in found) else found
        classes = {name: name for name in names}
    lookup: dict[str, int] = {}
    for code, (name, members) in enumerate(classes.items()):
        for member in [members] if isinstance(members, str | int) else members:
            if lookup.setdefault(plain(member), code) != code:
                raise TableError(f"{where}: the value {plain(member)!r} is given to two classes, {name!r} and another: leave it in one")
    codes = np.array([lookup.get(v, np.nan) for v in values], float)
    if np.isnan(codes).all():
        raise TableError(f"{where}: no row is of any class: the classes hold {some(list(lookup))}; the column has {some(found)}")
    empty = [name for code, name in enumerate(classes) if not (codes == code).any()]
    if empty:
        warnings.warn(f"{where}: no object of class {some(empty)}; the column has {some(found)}", stacklevel=4)
    return codes, list(classes)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def vote_counts(columns: Mapping[str, Column], total: Column | None, where: str) -> dict[str, np.ndarray]:
    """Votes by class, each of shape ``(row,)``, NaN where null.

    Args:
        columns: class to the column of its votes; of its fractions of all votes if ``total`` is given.
        total: all votes for the question.
        where: file, for messages.

    Raises:
        TableError: votes that are negative, or fractions above 1.
    """
    result = {}
    for name, column in columns.items():
        votes = numbers(column, f"{where}: votes for {name!r}")
        if (votes < 0).any() or (total is not None and (votes > 1).any()):
            kind = "fractions from 0 to 1" if total is not None else "counts"
            raise TableError(f"{where}: votes for {name!r} run from {np.nanmin(votes):g} to {np.nanmax(votes):g}: {kind} are needed")
        result[name] = votes if total is None else np.rint(votes * numbers(total, f"{where}: total of votes"))
    return result
