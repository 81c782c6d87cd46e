"""Columns that name objects, or groups of them: whole numbers and text, never through a float."""

import hashlib

import numpy as np

from sbi_da.errors import TableError
from sbi_da.records.columns import Column
from sbi_da.records.faults import refuse_rows

__all__ = ["ROW_NUMBER", "entries", "identifiers", "keys", "null", "readable_identifiers"]

ROW_NUMBER = "#row"
"""What is said in place of a column for row numbers."""
SPREAD = np.uint64(0x9E3779B97F4A7C15)
"""Odd, near the golden ratio of the range: products of consecutive numbers are spread evenly (Knuth 1998, section 6.4)."""


def null(column: Column) -> np.ndarray:
    """Where a column says nothing, boolean, shape ``(row,)``."""
    values = column.values
    return column.missing | ~np.isfinite(values) if values.dtype.kind == "f" else column.missing


def entries(column: Column, where: str, first_row: int = 0) -> np.ndarray:
    """A column of names or whole numbers, shape ``(row,)``.

    Args:
        column: the column.
        where: file and column, for messages.
        first_row: number of the first row, for messages.

    Raises:
        TableError: nulls, more than one entry a row, or floats that are no whole numbers or too large to be exact.
    """
    values = column.values
    if values.ndim != 1:
        raise TableError(f"{where}: one entry per row is needed, not shape {values.shape[1:]}")
    refuse_rows(null(column), where, "nulls", "give every row a value or name another column", first_row)
    if values.dtype.kind in "iu":
        return values.astype(values.dtype.newbyteorder("="))
    if values.dtype.kind == "f":
        whole = values.astype(np.int64) if np.abs(values).max(initial=0) < 2**53 else None
        if whole is None or (whole != values).any():
            raise TableError(f"{where}: floats cannot hold identifiers exactly; store whole numbers or text")
        return whole
    decode = (x.decode(errors="replace") if isinstance(x, bytes) else str(x) for x in values)
    return np.array([text.strip() for text in decode], dtype=str)


def identifiers(column: Column, where: str, first_row: int = 0) -> np.ndarray:
    """Unique identifiers, shape ``(row,)``; arguments as of :func:`entries`.

    Raises:
        TableError: what :func:`entries` refuses, or repeats.
    """
    ids = entries(column, where, first_row)
    unique, first, counts = np.unique(ids, return_index=True, return_counts=True)
    if len(unique) < len(ids):
        which = unique[counts > 1][np.argmin(first[counts > 1])]
        rows = np.flatnonzero(ids == which)
        raise TableError(
            f"{where}: identifier {which} occurs {len(rows)} times (rows {rows[0] + first_row} and {rows[1] + first_row}; the first row "
            f"is 0): remove repeats, or take id_column={ROW_NUMBER!r} for row numbers and keep repeats of an object together with "
            "this column as group_column"
        )
    return ids


def keys(ids: np.ndarray) -> np.ndarray:
    """64 bits for each identifier, uint64, spread evenly; a whole number and the text that says it have the same.

    Those of numbers up to 2⁶³ differ; of other texts they are hashes: two of 10⁹ are alike in one of 40 tables.
    """
    if ids.dtype.kind in "iu":
        whole = np.ones(len(ids), bool) if ids.dtype.kind == "i" else ids < 2**63
    else:
        whole = np.array([_whole(text) for text in ids.tolist()], bool)
    found = np.empty(len(ids), np.uint64)
    found[whole] = ids[whole].astype(np.int64).view(np.uint64) * SPREAD
    hashed = (hashlib.blake2b(str(entry).encode(), digest_size=8).digest() for entry in ids[~whole].tolist())
    found[~whole] = np.frombuffer(b"".join(hashed), np.uint64)
    return found


def _whole(text: str) -> bool:
    """Whether a text is a number as it would be written, below 2⁶³."""
    digits = text.removeprefix("-")
    return digits.isascii() and digits.isdigit() and len(digits) < 20 and str(number := int(text)) == text and -(2**63) <= number < 2**63


def readable_identifiers(column: Column, where: str) -> tuple[np.ndarray, np.ndarray]:
    """Identifiers, repeats and all, and why those that cannot serve cannot; each of shape ``(row,)``.

    Args:
        column: the column.
        where: file and column, for messages.

    Returns:
        Whole numbers or texts; reasons, empty where there is nothing to say.

    Raises:
        TableError: more than one entry a row.
    """
    values, empty = column.values, null(column)
    if values.ndim != 1:
        raise TableError(f"{where}: one entry per row is needed, not shape {values.shape[1:]}")
    if values.dtype.kind in "iu":
        return values.astype(values.dtype.newbyteorder("=")), np.where(empty, "no identifier", "")
    if values.dtype.kind == "f":
        exact = ~empty & (np.abs(values) < 2**53) & (np.rint(values) == values)
        reason = np.where(empty, "no identifier", np.where(exact, "", "the identifier is no exact whole number"))
        return np.where(exact, values, 0).astype(np.int64), reason
    decode = (x.decode(errors="replace") if isinstance(x, bytes) else str(x) for x in values)
    texts = np.array([text.strip() for text in decode], dtype=str)
    return texts, np.where(empty | (texts == "") | (values == None), "no identifier", "")  # noqa: E711 - elementwise
