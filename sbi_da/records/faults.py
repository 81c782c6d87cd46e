"""What becomes of entries of a table that cannot be used as they stand: the table is refused, or they are left out and marked."""

from typing import Protocol

import numpy as np

from sbi_da.errors import TableError

__all__ = ["Faults", "LeaveOut", "refuse_rows"]


class Faults(Protocol):
    """Called with every check of a column; entries it lets pass are then treated as missing."""

    def __call__(self, bad: np.ndarray, where: str, what: str, fix: str, first_row: int = 0) -> None:
        """Answer for the rows marked in ``bad``, boolean, shape ``(row,)``."""


def refuse_rows(bad: np.ndarray, where: str, what: str, fix: str, first_row: int = 0) -> None:
    """Raise a ``TableError`` that counts and locates the rows marked in ``bad``, if any."""
    rows = np.flatnonzero(bad)
    if len(rows) == 0:
        return
    listed = ", ".join(str(r + first_row) for r in rows[:3]) + (", ..." if len(rows) > 3 else "")
    raise TableError(
        f"{where}: {what} in {len(rows)} row{'s'[: len(rows) > 1]} (row {listed}; the first row is 0): {fix}"
    )


class LeaveOut:
    """Leaves out what is bad and remembers in which rows there was any.

    Args:
        rows: number of rows.

    Attributes:
        rows: whether something of a row was left out, boolean, shape ``(row,)``.
    """

    def __init__(self, rows: int) -> None:
        self.rows = np.zeros(rows, bool)

    def __call__(self, bad: np.ndarray, where: str, what: str, fix: str, first_row: int = 0) -> None:
        """Mark the rows."""
        self.rows |= bad
