"""A domain test within groups: per survey, per class, per missing pattern."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sbi_da.diagnostics.domains import LEAST, effective_rows, row_weights
from sbi_da.errors import SbiDaError

__all__ = ["GroupTests", "by_group"]


@dataclass(frozen=True)
class GroupTests:
    """Results by group, their p-values after Holm (1979), and groups left out: rows (simulated, real) that count."""

    results: dict[str, Any]
    adjusted: dict[str, float]
    too_few: dict[str, tuple[int, int]]


def by_group(
    test: Callable[..., Any], simulated: np.ndarray, real: np.ndarray,
    groups_simulated: np.ndarray | Mapping[str, np.ndarray], groups_real: np.ndarray | Mapping[str, np.ndarray],
    weight: np.ndarray | None = None, least: int = LEAST, **options: Any,
) -> GroupTests:
    """A test in each survey, class or missing-data pattern, with p-values that hold for all groups together.

    The smallest adjusted p-value is groups / (permutations + 1): ask for permutations enough.

    Args:
        test: :func:`domain_auc`, :func:`mmd_test`, or any other whose result has a ``p_value``.
        simulated: shape ``(n, d)``.
        real: shape ``(m, d)``.
        groups_simulated: a label for each row, or a mask by group where groups overlap (surveys), shape ``(n,)``.
        groups_real: the same, shape ``(m,)``.
        weight: importance of the simulated rows, shape ``(n,)``.
        least: rows a group needs on both sides; with weights, effective rows.
        options: passed on to ``test``.

    Raises:
        SbiDaError: as many groups as rows are not given, or the test refuses a group.
    """
    left = _members(groups_simulated, len(simulated), "groups_simulated")
    right = _members(groups_real, len(real), "groups_real")
    every = row_weights("by_group", weight, len(simulated))
    results: dict[str, Any] = {}
    too_few: dict[str, tuple[int, int]] = {}
    for name in sorted(left.keys() | right.keys()):
        a, b = left.get(name, np.zeros(len(simulated), bool)), right.get(name, np.zeros(len(real), bool))
        rows = int(effective_rows(every[a]) + 1e-9), int(b.sum())
        if min(rows) < least:
            too_few[name] = rows
            continue
        part = {} if weight is None else {"weight": every[a]}
        try:
            results[name] = test(np.asarray(simulated)[a], np.asarray(real)[b], **part, **options)
        except SbiDaError as error:
            raise SbiDaError(f"group {name!r}: {error}") from error
    order = sorted(results, key=lambda name: results[name].p_value)
    steps = [(len(order) - i) * results[name].p_value for i, name in enumerate(order)]
    adjusted = np.minimum(np.maximum.accumulate(np.asarray(steps, float)), 1.0)
    return GroupTests(results, dict(zip(order, adjusted.tolist(), strict=True)), too_few)


def _members(groups: np.ndarray | Mapping[str, np.ndarray], n: int, name: str) -> dict[str, np.ndarray]:
    """Rows of each group as a mask."""
    if isinstance(groups, Mapping):
        masks = {str(key): np.asarray(mask, bool) for key, mask in groups.items()}
    else:
        labels = np.asarray(groups).astype(str)
        masks = {str(key): labels == key for key in np.unique(labels)}
    wrong = [key for key, mask in masks.items() if mask.shape != (n,)]
    if wrong:
        raise SbiDaError(f"{name}: expected one entry for each of {n} rows, got {masks[wrong[0]].shape} of {wrong[0]!r}")
    return masks
