"""Evaluating an estimator on objects whose parameters are known: figures, tables and a report."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from sbi_da import plots
from sbi_da.atomic import whole_folder
from sbi_da.class_evaluation import evaluate_class_records
from sbi_da.classification_report import classification_report
from sbi_da.diagnostics import bins, evaluate_draws
from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.evaluation_report import evaluation_report
from sbi_da.layout import Observations
from sbi_da.posteriors.few_step import FewStepHead
from sbi_da.records import LIMIT, OBSERVED, Records
from sbi_da.target_evaluation import evaluate_target_records
from sbi_da.target_report import target_report

__all__ = ["evaluate", "signal_to_noise", "strata", "write_evaluation"]

AGE_EDGES = (7.0, 7.8, 9.0)
SNR_EDGES = (20.0, 60.0, 100.0)
CHUNK = 2000
OUTPUTS = ("metrics.json", "report.html", "figures")
"""What an evaluation writes."""
NOTES = (
    "Strata by what was observed (missing pattern, detection, signal-to-noise) are calibrated when the posterior is right. Strata by "
    "the true age need not be: where the data say little, even the exact posterior leans towards the prior and away from a "
    "truth that was selected."
)


def signal_to_noise(observed: Observations, estimator: Estimator) -> np.ndarray:
    """Largest signal-to-noise ratio over the observed channels of each object, NaN where there is none."""
    magnitude = np.array([c.kind == "magnitude" for c in estimator.layout.channels])
    seen = observed.state == OBSERVED
    value, error = np.where(seen, observed.value, 0.0), np.where(seen, observed.error, 1.0)
    ratio = np.where(magnitude, 2.5 / np.log(10) / error, np.abs(value) / error)
    best = np.where(seen, ratio, -np.inf).max(1)
    return np.where(seen.any(1), best, np.nan)


def strata(estimator: Estimator, records: Records) -> dict[str, np.ndarray]:
    """Labels by missing pattern, by what was detected, by signal-to-noise, and by log age where it is known."""
    observed = estimator.layout.read(records)
    kept = records.select([s for s in estimator.surveys if s in records.surveys])
    detected, looked = (observed.state == OBSERVED).any(1), (observed.state == LIMIT).any(1)
    labels = {
        "pattern": kept.pattern(),
        "detection": np.where(detected, "detected", np.where(looked, "only limits", "no data")),
        "snr": bins(signal_to_noise(observed, estimator), SNR_EDGES),
    }
    if "log_age" in records.parameters:
        age = records.parameters["log_age"]
        labels["log_age"] = bins(age, AGE_EDGES)
        labels["young"] = np.where(age < 7.8, "log age < 7.8", "log age ≥ 7.8")
    return labels


def draw(estimator: Estimator, records: Records, names: list[str], draws: int, seed: int) -> np.ndarray:
    """Posterior draws of ``names``, shape ``(object, draw, parameter)``, float32, in chunks of objects."""
    out = np.empty((len(records), draws, len(names)), np.float32)
    posterior_names = list(names)
    for start in range(0, len(records), CHUNK):
        rows = slice(start, start + CHUNK)
        sample = estimator(records.isel(rows)).marginal(posterior_names).sample(draws, seed)
        for k, name in enumerate(names):
            out[rows, :, k] = sample[name].values
    return out


def evaluate(
    estimator: Estimator, records: Records, draws: int = 500, seed: int = 0
) -> tuple[dict[str, Any], dict[str, Figure]]:
    """Metrics and figures.

    Of a classifier those of :func:`~sbi_da.classifier_evaluation.evaluate_classifier`, of votes and labels those of
    :func:`~sbi_da.target_evaluation.evaluate_target_records`. A few-step copy has no density: its log scores are left out.

    Args:
        estimator: what is judged.
        records: labels that were sealed are opened; objects with every inferred parameter known; derived quantities are judged where known.
        draws: posterior draws per object.
        seed: of draws, ranks and bootstrap.

    Raises:
        SbiDaError: a parameter is not in the records, or they were drawn from a proposal.
    """
    if estimator.classes:
        return evaluate_class_records(estimator, records, seed)
    if estimator.target != "density":
        return evaluate_target_records(estimator, records, seed)
    records = records.opened()
    known = records.parameters
    lacking = [n for n in estimator.parameter_names if n not in known]
    if lacking:
        raise SbiDaError(f"the records lack the true {', '.join(lacking)}: evaluation needs every inferred parameter")
    if "log_weight" in records.columns:
        raise SbiDaError("these records were drawn from a proposal: calibration is judged on draws from the prior")
    emptied = records.columns.get("emptied", np.zeros(len(records), bool))
    records = records.isel(~emptied)
    known = records.parameters
    names = [*estimator.parameter_names, *(n for n in estimator.derived if n in known)]
    truth = np.stack([known[n] for n in names], axis=1)
    drawn = draw(estimator, records, names, draws, seed)
    theta = {n: known[n] for n in estimator.parameter_names}
    dense = not isinstance(estimator.head, FewStepHead)
    log_prob = estimator(records).log_prob(theta).values if dense else None
    log_prior = estimator.prior.log_prob(theta)
    metrics = evaluate_draws(
        drawn, truth, names, log_prob, log_prior, strata(estimator, records), min_count=min(500, max(50, len(records) // 4)),
        seed=seed,
    )
    metrics["left_out"] = {"emptied by brightness": int(emptied.sum())}
    metrics["provenance"] = {"records": {str(k): _plain(v) for k, v in records.attrs.items()}, "estimator": estimator.metadata}
    return metrics, figures(metrics, drawn, truth, names, estimator)


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def figures(
    metrics: Mapping[str, Any], drawn: np.ndarray, truth: np.ndarray, names: list[str], estimator: Estimator
) -> dict[str, Figure]:
    """The report's figures, by title."""
    overall, units = metrics["overall"], {n: estimator.parameter(n).unit for n in names}
    coverage = overall["coverage"]
    bars = {"all": {**coverage["error"], "n": overall["n"]}}
    tarp = {"all": overall["tarp"]}
    for stratum in ("young", "detection", "snr", "pattern"):
        for label, block in metrics["strata"].get(stratum, {}).items():
            bars[label] = {**block["coverage"]["error"], "n": block["n"]}
            if stratum == "young":
                tarp[label] = block["tarp"]
    return {
        "truth_and_posterior": plots.truth_vs_posterior(truth, drawn, names, units),
        "coverage": plots.coverage_curves(coverage["levels"], coverage["curve"], overall["n"]),
        "coverage_error_by_stratum": plots.coverage_error_bars(bars),
        "sbc_ranks": plots.rank_histograms(overall["sbc"]["histogram"], overall["sbc"]["p_value"]),
        "tarp": plots.tarp_curve(overall["tarp"]["levels"], tarp, overall["n"]),
    }


def write_evaluation(metrics: Mapping[str, Any], figures: Mapping[str, Figure], out: str | Path) -> None:
    """Write ``metrics.json``, ``report.html`` and ``figures/*.png`` into a folder that appears whole."""
    with whole_folder(out, replace=OUTPUTS) as folder:
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=1))
        if "classes" in metrics:
            report = classification_report(metrics, figures)
        elif "target" in metrics:
            report = target_report(metrics, figures)
        else:
            report = evaluation_report(metrics, figures, "Evaluation", NOTES)
        report.write(folder / "report.html")
        (folder / "figures").mkdir()
        for name, picture in figures.items():
            picture.savefig(folder / "figures" / f"{name}.png", dpi=150)
