r"""Measurements as vectors, as `sbi` holds data: the values of a layout's channels in order, optionally as many errors after them.

- NaN in the place of a value is not observed. As sbi's diagnostics drop rows with NaN, a number may stand for it, :data:`MISSING`
  by default.
- Without errors every value has the median error of its survey's noise law. (What an sbi simulator returned has a constant one.)
- With errors, NaN in the place of one marks a limit in channels that have a depth, and an unusable measurement in others.
"""

from typing import Any

import numpy as np
import torch

from sbi_da.errors import SbiDaError
from sbi_da.layout import Layout
from sbi_da.records import ABSENT, LIMIT, OBSERVED, Measurements, Records
from sbi_da.surveys import Survey

__all__ = ["MISSING", "records_of", "vectors_of"]

MISSING = -1e30


def records_of(layout: Layout, x: Any, missing: float = MISSING, domain: str = "simulated") -> Records:
    """Vectors as records.

    Args:
        layout: surveys and channels.
        x: shape ``(object, entry)`` or ``(entry,)``, with as many entries as channels or twice as many.
        missing: stands for what is not observed, beside NaN.
        domain: ``simulated`` or ``real``.

    Raises:
        SbiDaError: another number of entries, infinite ones, or values whose error cannot be known.
    """
    names, count = [f"{s.name}.{c.name}" for s in layout.surveys for c in s.channels], len(layout.channels)
    rows = np.atleast_2d(torch.as_tensor(x).detach().cpu().double().numpy())
    if rows.ndim != 2 or rows.shape[1] not in (count, 2 * count):
        raise SbiDaError(f"x has shape {rows.shape}: (object, {count}) is needed, of {', '.join(names)}, or as many errors more")
    rows = np.where((rows == missing) | (rows == np.float32(missing)), np.nan, rows)
    if np.isinf(rows).any():
        raise SbiDaError("x holds infinite entries: what is not observed is NaN")
    value, quoted = rows[:, :count], rows[:, count:]
    measured, start = {}, 0
    for survey in layout.surveys:
        mine = slice(start, start := start + len(survey.channels))
        error, state = _quoted(survey, value[:, mine], quoted[:, mine]) if quoted.size else _implied(survey, value[:, mine])
        units = tuple(c.unit for c in survey.channels)
        measured[survey.name] = Measurements(tuple(survey.channel_names), units, value[:, mine], error, state.astype(np.uint8))
    return Records.build(measured, attrs={"domain": domain})


def _quoted(survey: Survey, value: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Errors and states of values with errors, all of shape ``(object, channel)``."""
    seen, unknown = ~np.isnan(value), np.isnan(error)
    limits = [c.depth is not None for c in survey.channels]
    at_limit = [float(c.noise.sigma(np.array(c.depth or 0.0))) for c in survey.channels]
    state = np.where(seen & ~unknown, OBSERVED, np.where(seen & np.array(limits), LIMIT, ABSENT))
    return np.where(unknown, at_limit, error), state


def _implied(survey: Survey, value: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Errors, by the noise law, and states of values without errors, all of shape ``(object, channel)``."""
    error = np.empty(value.shape)
    for k, channel in enumerate(survey.channels):
        law = channel.noise
        error[:, k] = law.sigma(value[:, k if law.reference is None else survey.channel_names.index(law.reference)])
        if (np.isnan(error[:, k]) & ~np.isnan(value[:, k])).any():
            raise SbiDaError(
                f"the error of {survey.name}.{channel.name} follows from {law.reference}, which is not observed everywhere: give errors, "
                "as further entries of x"
            )
    return error, np.where(np.isnan(value), ABSENT, OBSERVED)


def vectors_of(layout: Layout, records: Records, missing: float = MISSING) -> np.ndarray:
    """Records as vectors, errors included, shape ``(object, 2 * channel)``: the inverse of :func:`records_of`."""
    observed = layout.read(records)
    value = np.where(observed.state == ABSENT, missing, observed.value)
    return np.concatenate([value, np.where(observed.state == OBSERVED, observed.error, missing)], 1)
