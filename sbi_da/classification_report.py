"""The page a classifier's evaluation is read on: what it is worth beside predictors that see no object, and where it fails."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from sbi_da.classification_sections import (
    anomalies_section,
    domains_section,
    fractions_section,
    points,
    span,
    strata_section,
)
from sbi_da.report import Report, number

__all__ = ["CAPTIONS", "classification_report"]

CAPTIONS = {
    "class_scores": "Recall, precision and F1 of each class with 95 % intervals over objects; in brackets how many objects are of it.",
    "confusion": "How each true class is answered: share in per cent with its 95 % interval, and number of objects.",
    "ranking": "Each class against the rest, whatever the threshold. Dotted: a blind score (on the right, the share of the class).",
    "reliability": "How often answers are right that are stated with some probability, in bins of equally many objects. Grey: where 95 % "
    "of calibrated classifiers lie for as many objects. Below the diagonal is overconfident.",
    "class_fractions": "Fractions of the training set; true ones of the objects judged; shares of the answers; and what EM finds from the "
    "probabilities without any label. Bars: 95 % over objects.",
    "gallery_right": "Most confidently right: each row a true class and the share of it that is answered rightly; below each image its "
    "stated probability.",
    "gallery_wrong": "Most confidently wrong: each row a true class and the share of it that is answered wrongly; below each image the "
    "answer and its stated probability.",
    "latent_tsne": "Features by Isomap and t-SNE. Neighbours are kept; densities, sizes and distances of groups are not.",
    "latent_umap": "The same features by UMAP, which also keeps neighbours alone.",
    "anomaly_scores": "Anomaly scores of objects whose class the classifier knows, and of those it does not know.",
    "gallery_anomalies": "Objects of the highest and of the lowest anomaly score, which stands below each.",
}
"""Figures that :func:`classification_report` knows where to put."""

WORDS = {
    "accuracy": "accuracy [%]", "balanced_accuracy": "balanced accuracy [%]", "macro_f1": "macro-F1 [%]", "nll": "NLL [nats]",
    "brier": "Brier score", "ece": "ECE [points]", "roc_auc": "ROC AUC, mean [%]", "average_precision": "average precision, mean [%]",
}
LOSSES = ("nll", "brier")


def _factor(key: str) -> float:
    return 1.0 if key in LOSSES else 100.0


def _verdict(metrics: Mapping[str, Any]) -> str:
    """What the classifier is worth, in plain words."""
    overall = metrics["overall"]
    base, parts = overall["baselines"]["majority"], []
    for key, word in (("accuracy", "Accuracy"), ("macro_f1", "Macro-F1")):
        gain = base["classifier_minus_this"][key]
        low, high = (gain[end] if gain[end] is not None else gain["value"] for end in ("low", "high"))
        if gain["value"] == 0:
            relation = "is **no better than that of the majority predictor**"
        elif gain["value"] < 0:
            relation = f"is **below that of the majority predictor**{', beyond doubt' if high < 0 else ', within the uncertainty'}"
        else:
            relation = "is above that of the majority predictor" + ("" if low > 0 else ", but **not beyond doubt**")
        parts.append(
            f"{word} {relation}: {span(overall[key])} % against {span(base[key])} % for always answering “{base['class']}”, "
            f"difference {span(gain, signed=True)} points."
        )
    loss = overall["baselines"]["prior"]["classifier_minus_this"]["nll"]
    if loss["value"] >= 0:
        parts.append(
            f"Its NLL is **no better than that of the training set's class fractions** (difference {span(loss, 1.0, True)} nats): as "
            "probabilities, its answers are worth nothing."
        )
    ece = overall["calibration"]["ece"]
    if ece.get("limit") is not None:
        over = "**more than**" if ece["value"] > ece["limit"] else "within"
        parts.append(
            f"The calibration error is {span(ece)} points, {over} the {100 * ece['limit']:.1f} that calibrated probabilities stay below in "
            "97.5 % of samples of this size."
        )
    return " ".join(parts) + "\n\nAll intervals are 95 % over objects; they do not hold what another training would change."


def classification_report(
    metrics: Mapping[str, Any], figures: Mapping[str, Figure] | None = None, title: str = "Classifier evaluation", notes: str = ""
) -> Report:
    """Report of one evaluation of a classifier.

    Args:
        metrics: from :func:`sbi_da.classifier_evaluation.evaluate_classifier` or
        :func:`sbi_da.diagnostics.classification.evaluate_classes`.
        figures: by a name in :data:`CAPTIONS`, which goes to its section, or by caption, for a section of their own.
        title: of the page.
        notes: what was evaluated on what; see :meth:`~sbi_da.report.Report.text`.
    """
    overall, extra = metrics["overall"], dict(figures or {})
    standard = {name: extra.pop(name) for name in CAPTIONS if name in extra}
    baselines, calibration = overall["baselines"], overall["calibration"]
    left_out = metrics.get("left_out", {}).get("unknown class", 0)
    report = Report(
        title, f"{overall['n']:,} objects of {len(metrics['classes'])} classes"
        + (f", and {left_out:,} of unknown classes, which only the section on anomalies judges." if left_out else "."),
    )

    def show(*names: str) -> None:
        for name in names:
            if name in standard:
                report.figure(standard[name], CAPTIONS[name])

    rarest = min((b for b in overall["per_class"].items() if b[1]["n_true"]), key=lambda item: item[1]["n_true"])
    report.section("Summary").tiles({
        "accuracy": span(overall["accuracy"]).split(" ")[0] + " %",
        "accuracy of the majority predictor": span(baselines["majority"]["accuracy"]).split(" ")[0] + " %",
        "macro-F1": span(overall["macro_f1"]).split(" ")[0] + " %",
        "macro-F1 of the majority predictor": span(baselines["majority"]["macro_f1"]).split(" ")[0] + " %",
        f"recall of the rarest class, {rarest[0]}": span(rarest[1]["recall"]).split(" ")[0] + " %",
        "NLL, and of the prior [nats]": f"{number(overall['nll']['value'])} / {number(baselines['prior']['nll']['value'])}",
    })
    report.text(_verdict(metrics))
    if overall["absent"]:
        report.text(
            f"No object is of class {', '.join(overall['absent'])} or answered so; macro-F1, the mean over all classes, counts 0 there."
        )
    if notes:
        report.text(notes)
    report.section("Scores beside trivial predictors")
    rows = []
    for key, word in WORDS.items():
        own = calibration["ece"] if key == "ece" else overall[key]
        cells = [span(own, _factor(key))] + [span(baselines[name].get(key), _factor(key)) for name in ("majority", "prior")]
        cells += [span(baselines[name]["classifier_minus_this"].get(key), _factor(key), True) for name in ("majority", "prior")]
        rows.append([word, *cells])
    report.table(
        ["", "classifier", f"always {baselines['majority']['class']}", "training fractions", "minus the first", "minus the second"], rows,
        "Of NLL, Brier score and ECE less is better. The majority class is that of the objects judged; the prior-only predictor states the "
        "class fractions of the training set for every object. Differences are of the same resamples",
    )
    report.section("By class")
    show("class_scores")
    report.table(
        ["class", "objects", "answers", "recall [%]", "precision [%]", "F1 [%]", "ROC AUC [%]", "average precision [%]", "ECE [points]"],
        [[name, b["n_true"], b["n_predicted"], span(b["recall"]), span(b["precision"] if b["n_predicted"] else None), span(b["f1"]),
          span(b["roc_auc"]), span(b["average_precision"]), span(calibration["by_class"][name])]
         for name, b in overall["per_class"].items()],
        "Each class against the rest",
    )
    report.section("Confusion")
    show("confusion", "ranking")
    report.section("Calibration")
    show("reliability")
    report.table(
        ["", "error [points]", "by chance alone", "97.5 % limit"],
        [[word, span(c), points(c.get("expected")), points(c.get("limit"))]
         for word, c in (("stated answer", calibration["ece"]), ("mean over classes", calibration["classwise_ece"]),
                         *calibration["by_class"].items())],
        "Expected calibration errors, and what labels drawn from the probabilities themselves give for as many objects",
    )
    report.section("Class fractions")
    show("class_fractions")
    fractions_section(report, metrics)
    for heading, names in (("Examples", ("gallery_right", "gallery_wrong")), ("Latent space", ("latent_tsne", "latent_umap"))):
        if any(name in standard for name in names):
            report.section(heading)
            show(*names)
    if metrics.get("domains"):
        domains_section(report, metrics["domains"])
    if metrics.get("anomalies"):
        report.section("Anomalies")
        show("anomaly_scores")
        anomalies_section(report, metrics["anomalies"])
        show("gallery_anomalies")
    if metrics["strata"]:
        strata_section(report, metrics)
    if metrics.get("notes"):
        report.section("Left out").text("\n".join(f"- {line}" for line in metrics["notes"]))
    if extra:
        report.section("Figures")
        for caption, fig in extra.items():
            report.figure(fig, caption)
    return report
