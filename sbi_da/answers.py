"""Answers about classes, votes or labels as columns, computed in chunks of objects."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.posteriors.class_posterior import ClassPosterior
from sbi_da.records import ABSENT, Records
from sbi_da.rejection import Score, check_rejection, rejected, statuses

__all__ = ["answer_columns"]


def answer_columns(
    estimator: Estimator,
    records: Records,
    fractions: Mapping[str, float] | None = None,
    reject: float | None = None,
    reject_by: Score = "anomaly",
    chunk: int = 2000,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Answers of an estimator of classes, votes or labels.

    Args:
        estimator: who answers.
        records: the objects.
        fractions: of the classes, in place of those that the posterior assumes.
        reject: share of held-out simulations that would be rejected; None: no object is, and there is no column ``status``.
        reject_by: the score to reject by.
        chunk: objects at a time.

    Returns:
        The columns of the posterior (see ``columns`` of :class:`~sbi_da.posteriors.class_posterior.ClassPosterior`,
        :class:`~sbi_da.posteriors.vote_posterior.VotePosterior`, :class:`~sbi_da.posteriors.label_posterior.LabelPosterior`); ``anomaly``
        (how unlike the simulations the object is: the share of these that are less unlike); where asked for ``status`` (``known``,
        ``rejected``, ``no_data``); and why an image could not be read, shape ``(object,)``.

    Raises:
        SbiDaError: fractions of what is no class, or a rejection by what the estimator has not learned.
    """
    if reject is not None:
        check_rejection(estimator.normality, reject, reject_by)
    if fractions is not None and estimator.target != "class":
        raise SbiDaError(f"this estimator infers {estimator.target}, which have no class fractions to replace: leave prior out")
    n, real = len(records), records.attrs.get("domain") == "real"
    parts: list[dict[str, np.ndarray]] = []
    for start in range(0, max(1, n), chunk):
        part = records.isel(slice(start, start + chunk))
        observed = estimator.layout.read(part)
        context = estimator.encode(observed, real=real)
        seen = (observed.states != ABSENT).any(1)
        posterior: Any = estimator.answer(context, part.ids, real)
        columns = (posterior if fractions is None else posterior.under(fractions)).columns()
        columns["anomaly"] = np.where(seen, estimator.anomaly(observed, context), np.nan)
        if reject is not None:
            # Thresholds hold for the class fractions of the simulations, whatever the posterior assumes.
            plain = estimator.classify(context, part.ids).probabilities().values if isinstance(posterior, ClassPosterior) else None
            columns["status"] = statuses(rejected(estimator.normality, reject, columns["anomaly"], plain, reject_by), seen)
        parts.append(columns)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return joined, np.asarray(records.columns.get("image_flag", np.full(n, "")), dtype=str)
