"""The page an evaluation of votes or labels is read on: beside the base rates, and by answer or label."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from sbi_da.classification_sections import span
from sbi_da.report import Report

__all__ = ["target_report"]

CAPTIONS = {
    "fractions": "Fractions of the votes against those expected: objects in grey, means in bins of equally many in blue.",
    "coverage": "Share of objects whose votes lie in the central interval of their beta-binomial law, answer by answer. Right: its "
    "difference from the nominal level; curves below zero are overconfident. Grey: where calibrated ones lie for 95 % of data sets.",
    "reliability": "How often the stated answer, yes or no, is right. Grey: where 95 % of calibrated ones lie for as many objects.",
}


def target_report(metrics: Mapping[str, Any], figures: Mapping[str, Figure]) -> Report:
    """Report of one evaluation of votes or labels.

    Args:
        metrics: from :func:`sbi_da.target_evaluation.evaluate_target_records`.
        figures: by name: ``<kind>_<question or label>`` with a kind in :data:`CAPTIONS`.
    """
    overall, votes = metrics["overall"], metrics["target"] == "votes"
    report = Report("Evaluation of votes" if votes else "Evaluation of labels", f"{overall['n']:,} objects.")
    report.section("Summary").tiles({
        "NLL [nats]": _number(overall["nll"]), "NLL of the base rates [nats]": _number(overall["baseline_nll"]),
        "gain [nats]": _number(overall["gain"]),
    })
    low = overall["gain"]["low"]
    said = "better than the base rates" if low is not None and low > 0 else "**no better than the base rates**, within the uncertainty"
    report.text(f"Gain over the base rates of the training set: {span(overall['gain'], 1.0, True)} nats an object; {said}. "
                "All intervals are 95 % over objects; they do not hold what another training would change.")
    if votes:
        _votes(report, metrics["questions"], figures)
    else:
        _labels(report, metrics["labels"], figures)
    return report


def _number(content: Mapping[str, Any]) -> str:
    return span(content, 1.0).split(" ")[0]


def _votes(report: Report, questions: Mapping[str, Any], figures: Mapping[str, Figure]) -> None:
    for name, block in questions.items():
        report.section(name)
        if not block["n"]:
            report.text("Nobody was asked.")
            continue
        report.table(
            ["", "posterior", "base rates"],
            [["NLL [nats]", span(block["nll"], 1.0), span(block["baseline_nll"], 1.0)],
             ["leading answer right [%]", span(block["leading"]), span(block["baseline_leading"])]],
            f"{block['n']:,} objects, {block['votes']:,.0f} votes",
        )
        error = block["coverage"]["error"]
        over = "**more than**" if error["value"] > error["limit"] else "within"
        report.text(f"Coverage error {span(error)} points, {over} the {100 * error['limit']:.1f} that calibrated laws stay below in 97.5 % "
                    "of samples of this size.")
        report.table(
            ["answer", "training rate [%]", "votes [%]", "error [points]", "of base rates", "rank correlation"],
            [[answer, span({"value": b["base_fraction"]}), span(b["observed_fraction"]), span(b["error"]), span(b["baseline_error"]),
              span(b["rank_correlation"], 1.0)] for answer, b in block["answers"].items()],
            "Errors are mean absolute differences from the fractions of the votes, which scatter themselves",
        )
        _show(report, figures, ("fractions", "coverage"), name)


def _labels(report: Report, labels: Mapping[str, Any], figures: Mapping[str, Figure]) -> None:
    report.section("By label").table(
        ["label", "objects", "training rate [%]", "true [%]", "ROC AUC [%]", "average precision [%]", "NLL [nats]", "of the rate",
         "ECE [points]"],
        [[name, b["n"], span({"value": b["rate"]}), span(b["fractions"]["true"]["yes"]), span(b["per_class"]["yes"]["roc_auc"]),
          span(b["per_class"]["yes"]["average_precision"]), span(b["nll"], 1.0), span(b["baselines"]["prior"]["nll"], 1.0),
          span(b["calibration"]["by_class"]["yes"])] if b else [name, 0, *["–"] * 7] for name, b in labels.items()],
    )
    for name in labels:
        _show(report, figures, ("reliability",), name)


def _show(report: Report, figures: Mapping[str, Figure], kinds: tuple[str, ...], name: str) -> None:
    for kind in kinds:
        if f"{kind}_{name}" in figures:
            report.figure(figures[f"{kind}_{name}"], f"**{name}.** {CAPTIONS[kind]}")
