"""Evaluating and asking an estimator of votes or of labels: from records to what the diagnostics take."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sbi_da.diagnostics.labels import evaluate_labels
from sbi_da.diagnostics.votes import evaluate_votes
from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.label_prior import LabelPrior
from sbi_da.plots.calibration import coverage_curves
from sbi_da.plots.classification import reliability_figure
from sbi_da.plots.votes import vote_fractions_figure
from sbi_da.posteriors.vote_posterior import VotePosterior
from sbi_da.records import Records
from sbi_da.vote_prior import VotePrior, vote_column

__all__ = ["evaluate_target_records", "open_targets"]


def open_targets(estimator: Estimator, records: Records) -> np.ndarray:
    """Votes or labels of records, sealed ones included, as the prior lays them out, shape ``(object, column)``.

    Questions or labels that the records do not hold are unknown.

    Raises:
        SbiDaError: the records hold none, or not all answers to a question.
    """
    known, prior = records.opened().parameters, estimator.prior
    held = [column for column in prior.columns if column in known]
    if not held:
        raise SbiDaError(
            f"the records hold no {estimator.target} ({', '.join(prior.columns[:4])} ...) to judge by; they hold "
            f"{', '.join(known) or 'nothing'}"
        )
    if isinstance(prior, VotePrior):
        for name, answers in prior.questions.items():
            lacking = [answer for answer in answers if vote_column(name, answer) not in known]
            if lacking and len(lacking) < len(answers):
                raise SbiDaError(f"{name}: the records hold no votes for {', '.join(lacking)}: pack those of all answers, or none")
    return prior.to_normal({column: known.get(column, np.full(len(records), np.nan)) for column in prior.columns})


def evaluate_target_records(estimator: Estimator, records: Records, seed: int = 0) -> tuple[dict[str, Any], dict[str, Figure]]:
    """Metrics and figures of an estimator of votes or labels on records that hold them, which are opened here.

    Raises:
        SbiDaError: no votes, or no labels, that the estimator knows.
    """
    z = open_targets(estimator, records)
    kept = np.isfinite(z).all(1)
    if not kept.any():
        raise SbiDaError(f"none of the records has {estimator.target} of {', '.join(estimator.parameter_names)}")
    records, z = records.isel(kept), z[kept]
    posterior = estimator(records)
    judge = _votes if isinstance(posterior, VotePosterior) else _labels
    metrics, figures = judge(estimator, posterior, z, seed)
    metrics["left_out"] = {f"without {estimator.target}": int((~kept).sum())}
    metrics["provenance"] = {"records": {str(k): _plain(v) for k, v in records.attrs.items()}, "estimator": estimator.metadata}
    return metrics, figures


def _votes(estimator: Estimator, posterior: Any, z: np.ndarray, seed: int) -> tuple[dict[str, Any], dict[str, Figure]]:
    prior = estimator.prior
    assert isinstance(prior, VotePrior)
    counts, base = prior.by_question(z), prior.by_question(np.array(prior.concentrations))
    metrics = evaluate_votes(counts, posterior.concentrations, base, prior.questions, seed)
    figures = {}
    for name, block in metrics["questions"].items():
        if block["n"]:
            expected = posterior.fractions(name).values
            figures[f"fractions_{name}"] = vote_fractions_figure(counts[name], expected, prior.questions[name])
            figures[f"coverage_{name}"] = coverage_curves(block["coverage"]["levels"], block["coverage"]["curve"], block["n"])
    return metrics, figures


def _labels(estimator: Estimator, posterior: Any, z: np.ndarray, seed: int) -> tuple[dict[str, Any], dict[str, Figure]]:
    prior = estimator.prior
    assert isinstance(prior, LabelPrior)
    metrics = evaluate_labels(z, posterior.probabilities().values, prior.rates, seed)
    drawn = {f"reliability_{name}": reliability_figure(block["calibration"]) for name, block in metrics["labels"].items() if block}
    return metrics, drawn


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
