"""Splits that keep the members of a group together."""

import hashlib
from collections.abc import Sequence

import numpy as np

from sbi_da.errors import UnknownNameError
from sbi_da.records.records import Records

__all__ = ["split_by_group"]


def split_by_group(
    records: Records, fractions: Sequence[float], seed: int = 0, by: str = "group", stratify: str | None = None
) -> list[Records]:
    """Split into parts of about the given fractions.

    Objects that share the root column ``by`` (a cluster, a sky cell) stay together; without that column each object is
    its own group. Where a group goes depends on its name and ``seed`` only, so that adding rows moves none.

    Args:
        records: the objects.
        fractions: their sum must be 1.
        seed: another seed gives another split.
        by: the column.
        stratify: a root column or parameter each of whose values is shared out in these fractions, as nearly as the
            groups allow (a group counts under its most frequent value); then rows that are added may move others.

    Raises:
        UnknownNameError: no such column or parameter to stratify by.
    """
    total = float(np.sum(fractions))
    if abs(total - 1) > 1e-6 or min(fractions) < 0:
        raise ValueError(f"fractions must be non-negative and sum to 1, not {total}")
    groups = records.columns.get(by, records.ids)
    unique, inverse = np.unique(groups, return_inverse=True)
    score = np.array([
        int.from_bytes(hashlib.blake2b(f"{seed}:{name}".encode(), digest_size=7).digest(), "big") / 2**56
        for name in unique
    ])
    if stratify is not None:
        score = _within(_values(records, stratify), inverse, score)
    part = np.searchsorted(np.cumsum(fractions)[:-1], score, side="right")[inverse]
    return [records.isel(part == i) for i in range(len(fractions))]


def _values(records: Records, name: str) -> np.ndarray:
    known = {**records.parameters, **records.columns}
    if name not in known:
        raise UnknownNameError("column or parameter", name, list(known), "to stratify by")
    return np.unique(known[name].astype(str), return_inverse=True)[1]


def _within(values: np.ndarray, inverse: np.ndarray, score: np.ndarray) -> np.ndarray:
    """For each group, the share of its stratum's objects in groups of lower score, counting half of its own."""
    table = np.zeros((len(score), values.max() + 1))
    np.add.at(table, (inverse, values), 1)
    stratum, size = table.argmax(1), table.sum(1)
    result = np.zeros(len(score))
    for k in np.unique(stratum):
        order = np.flatnonzero(stratum == k)[np.argsort(score[stratum == k])]
        result[order] = (np.cumsum(size[order]) - size[order] / 2) / size[order].sum()
    return result
