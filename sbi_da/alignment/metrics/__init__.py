"""Forty-six metrics between vectors in eight families, after the taxonomy of Cha (2007).

They differ as functions, though some only by a factor or a shift, and then make kernels of one kind: see the modules of
the families. ``Metric.valid_kernel`` tells which make positive definite kernels, hence discrepancies to be trusted.
"""

import difflib

from sbi_da.alignment.metrics import (
    chi_squared,
    combination,
    inner_product,
    intersection,
    l1,
    lp,
    shannon,
    squared_chord,
)
from sbi_da.alignment.metrics.metric import Metric
from sbi_da.errors import UnknownNameError

__all__ = ["ALIASES", "METRICS", "Metric", "get_metric"]

FAMILIES = (lp, l1, intersection, inner_product, squared_chord, chi_squared, shannon, combination)

METRICS: dict[str, Metric] = {metric.name: metric for family in FAMILIES for metric in family.METRICS}

ALIASES = {"tanimoto": "soergel"}
"""Further names of the same functions."""


def get_metric(name: str) -> Metric:
    """The metric of that name.

    Raises:
        UnknownNameError: there is none; the message suggests the nearest.
    """
    known = ALIASES.get(name, name)
    if known not in METRICS:
        near = difflib.get_close_matches(name, [*METRICS, *ALIASES], n=1, cutoff=0.0)
        raise UnknownNameError("metric", name, sorted([*METRICS, *ALIASES]), f"did you mean {near[0]!r}?")
    return METRICS[known]
