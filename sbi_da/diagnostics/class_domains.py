"""Can simulated and real features be told apart, overall and within each class?

A classifier may meet other class fractions among real objects than among its simulations; then the two sets of
features differ even if every class looks the same. So the test of :func:`~sbi_da.diagnostics.domains.domain_auc` is
made three times: on all objects, on those of known classes with the simulations
weighted to the real class fractions, and within
each class. Only the last is free of the fractions, and only when the real classes are true ones: classes that the
classifier itself assigns put what it mistakes on the wrong side, and may hide or feign a gap.

A probe that gives (almost) all held-out rows to one domain is *degenerate*, as it is for collapsed features: its AUC
near 0.5 is then no evidence that the domains are mixed.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from sbi_da.diagnostics.domains import LEAST, DomainAuc, domain_auc, effective_rows
from sbi_da.diagnostics.evaluation import jsonable
from sbi_da.diagnostics.groups import by_group
from sbi_da.errors import SbiDaError

__all__ = ["class_domain_tests"]


def class_domain_tests(
    simulated: np.ndarray, labels_simulated: np.ndarray, real: np.ndarray, labels_real: np.ndarray, classes: Sequence[str],
    labels: str = "true", folds: int = 5, permutations: int = 500, max_rows: int = 1000, seed: int = 0,
) -> dict[str, Any]:
    """Cross-validated AUC of telling the domains apart, with permutation p-values.

    Args:
        simulated: features, shape ``(n, d)``.
        labels_simulated: classes 0 to K - 1, shape ``(n,)``.
        real: features, shape ``(m, d)``.
        labels_real: true or predicted classes, shape ``(m,)``; negative for unknown ones, which count overall alone.
        classes: K names.
        labels: what ``labels_real`` are, ``"true"`` or ``"predicted"``; it is stored with the result.
        folds: of the cross-validation.
        permutations: replicates of the null law; p-values within classes are adjusted for their number (Holm 1979).
        max_rows: most rows used of each side and test, drawn at random.
        seed: of folds, probes and replicates.

    Returns:
        ``overall``, ``reweighted`` (None where weights leave too few rows or classes differ), ``within[class]`` (with
        ``adjusted_p_value``): ``value``, ``low``, ``high``, ``p_value``, ``degenerate``, rows used;
        ``too_few[class]``: rows (simulated, real); ``labels``; ``degenerate``: tests whose probe is.

    Raises:
        SbiDaError: features or labels that do not fit, or too few rows overall.
    """
    if labels not in ("true", "predicted"):
        raise SbiDaError(f"class_domain_tests: labels must be 'true' or 'predicted', got {labels!r}")
    s, r = np.asarray(simulated, float), np.asarray(real, float)
    ys, yr = np.asarray(labels_simulated), np.asarray(labels_real)
    for name, x, y, least in (("simulated", s, ys, 0), ("real", r, yr, None)):
        if x.ndim != 2 or y.shape != x.shape[:1]:
            raise SbiDaError(
                f"class_domain_tests: {name} features must be (object, feature) and labels (object,), got {x.shape} and {y.shape}"
            )
        if (y >= len(classes)).any() or (least == 0 and (y < 0).any()):
            raise SbiDaError(f"class_domain_tests: labels of {name} objects must be classes 0 to {len(classes) - 1}")
    options: dict[str, Any] = {"folds": folds, "permutations": permutations, "seed": seed, "max_rows": max_rows}
    overall = _test(s, r, **options)
    known = yr >= 0
    share_s, share_r = (np.bincount(y, minlength=len(classes)) / max(len(y), 1) for y in (ys, yr[known]))
    weight = np.where(share_s > 0, share_r / np.maximum(share_s, 1e-300), 0.0)[ys]
    # Every real class must be simulated, and the thinning to max_rows must leave effective rows enough.
    possible = known.any() and not ((share_r > 0) & (share_s == 0)).any() and effective_rows(weight) >= 2 * LEAST
    reweighted = _test(s, r[known], weight, **options) if possible else None
    least = max(LEAST, 2 * folds)
    names = np.array(list(classes))
    groups = by_group(_test, s, r[known], names[ys], names[yr[known]], least=least, **options)
    within = {
        name: asdict(groups.results[name]) | {"adjusted_p_value": groups.adjusted[name]}
        for name in classes if name in groups.results
    }
    found = {"overall": overall, "reweighted": reweighted, **groups.results}
    return dict(jsonable({
        "labels": labels, "overall": asdict(overall), "reweighted": None if reweighted is None else asdict(reweighted),
        "within": within, "too_few": {name: list(rows) for name, rows in groups.too_few.items()},
        "degenerate": [name for name, test in found.items() if test is not None and test.degenerate],
    }))


def _test(simulated: np.ndarray, real: np.ndarray, weight: np.ndarray | None = None, **options: Any) -> DomainAuc:
    """The domain test; features that are all one point are what a degenerate probe sees, not an error."""
    if len(simulated) and len(real) and not np.ptp(np.concatenate([simulated, real]), axis=0).any():
        effective = len(simulated) if weight is None else effective_rows(weight)
        return DomainAuc(0.5, 0.5, 0.5, 1.0, True, len(simulated), len(real), effective)
    return domain_auc(simulated, real, weight, **options)
