"""Splits that keep the members of a group together."""

import hashlib
from collections.abc import Sequence

import numpy as np

from sbi_da.records.records import Records

__all__ = ["split_by_group"]


def split_by_group(records: Records, fractions: Sequence[float], seed: int = 0, by: str = "group") -> list[Records]:
    """Split into parts of about the given fractions.

    Objects that share the root column ``by`` (a cluster, a sky cell) stay together; without that column each object is
    its own group. Where a group goes depends on its name and ``seed`` only, so that adding rows moves none.

    Args:
        records: the objects.
        fractions: their sum must be 1.
        seed: another seed gives another split.
        by: the column.
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
    part = np.searchsorted(np.cumsum(fractions)[:-1], score, side="right")[inverse]
    return [records.isel(part == i) for i in range(len(fractions))]
