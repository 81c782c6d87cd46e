"""Sections of a classifier's report that are there when they were asked for: class fractions, domains, anomalies, strata."""

from collections.abc import Mapping
from typing import Any

from sbi_da.report import Report

__all__ = ["anomalies_section", "domains_section", "fractions_section", "points", "span", "strata_section"]


def span(content: Mapping[str, Any] | None, factor: float = 100.0, signed: bool = False) -> str:
    """``value (low … high)``, in per cent by default."""
    if not content or content.get("value") is None:
        return "–"

    def text(value: float) -> str:
        value = factor * float(value)
        shown = f"{value:.1f}" if factor == 100 else f"{value:.3f}"
        if float(shown) == 0:
            shown = shown.lstrip("-")
        return ("+" + shown if signed and value > 0 and float(shown) else shown).replace("-", "−")

    if content.get("low") is None or content.get("high") is None:
        return text(content["value"])
    return f"{text(content['value'])} ({text(content['low'])} … {text(content['high'])})"


def points(value: float | None) -> str:
    """A share in percentage points."""
    return "–" if value is None else f"{100 * value:.1f}"


def fractions_section(report: Report, metrics: Mapping[str, Any]) -> None:
    """Fractions by class, and whether EM's can be trusted."""
    fractions, shift = metrics["overall"]["fractions"], metrics.get("label_shift")
    em = shift["fractions"] if shift else {}
    report.table(
        ["class", "training", "true", "answers", "mean probability", "EM"],
        [[c, points(metrics["train_fractions"][c]), span(fractions["true"][c]), span(fractions["predicted"][c]),
          span(fractions["mean_probability"][c]), span(em.get(c))] for c in metrics["classes"]],
        "Fractions of the classes, per cent",
    )
    if shift and not shift["trusted"]:
        report.text("The objects hardly constrain the fractions that EM finds: the classes cannot be told apart well enough.")


def domains_section(report: Report, domains: Mapping[str, Any]) -> None:
    """Two-sample tests overall and within classes."""
    report.section("Domain tests")
    tests = {"all objects": domains["overall"], "known classes, simulations weighted to the real fractions": domains["reweighted"]}
    tests |= {f"within {name}": test for name, test in domains["within"].items()}
    report.table(
        ["", "AUC [%]", "p", "p, all classes together", "simulated", "evaluated", "probe"],
        [[name, span(t), t["p_value"], t.get("adjusted_p_value"), t["n_simulated"], t["n_real"],
          "degenerate" if t["degenerate"] else "sound"] for name, t in tests.items() if t],
        "Can a probe tell simulated from evaluated objects by their features? 50 %: it cannot. p: by permutation; within classes "
        "also after Holm",
    )
    lines = [f"Real classes are the {domains['labels']} ones."]
    if domains["degenerate"]:
        lines.append("**A degenerate probe gives almost all objects to one domain, so its AUC is no evidence of mixing.**")
    few = [f"{name} ({rows[0]} simulated, {rows[1]} evaluated)" for name, rows in domains["too_few"].items()]
    if few:
        lines.append(f"Too few objects: {', '.join(few)}.")
    report.text(" ".join(lines))


def anomalies_section(report: Report, anomalies: Mapping[str, Any]) -> None:
    """How well unknown objects are found, and what rejection does to the known classes."""
    report.text(
        f"{anomalies['n_unknown']:,} objects of unknown and {anomalies['n_known']:,} of known classes; score: {anomalies['score']}. "
        f"AUROC {span(anomalies['auroc'])} %, average precision {span(anomalies['auprc'])} % (a blind score has "
        f"{points(anomalies['share_unknown'])} %)."
    )
    report.table(
        ["rejection", "threshold", "known rejected [%]", "unknown rejected [%]", "macro-F1, all [%]", "change",
         "macro-F1, known [%]", "change", "macro-F1, accepted [%]", "change"],
        [[name, r["threshold"], span(r["rejected_known"]), span(r["rejected_unknown"])]
         + [text for key in ("open", "known", "accepted")
            for text in (span(r[f"macro_f1_{key}"]), "–" if name == "none" else span(r[f"gain_{key}"], signed=True))]
         for name, r in anomalies["rejection"].items()],
        "Macro-F1 of the known classes: on all objects (an unknown one that is not rejected is a false answer), on the known ones (a "
        "rejected one is missed), on the known ones that are accepted. Changes are against no rejection, in points",
    )


def strata_section(report: Report, metrics: Mapping[str, Any]) -> None:
    """Scores by stratum."""
    report.section("By stratum")
    blocks = {"all objects": metrics["overall"]}
    for name, by_label in metrics["strata"].items():
        blocks |= {f"{name}: {label}": block for label, block in by_label.items()}
    report.table(
        ["stratum", "n", "accuracy [%]", "majority [%]", "macro-F1 [%]", "balanced acc. [%]", "NLL [nats]", "ECE [points]", "limit"],
        [[label, b["n"], span(b["accuracy"]), span(b["baselines"]["majority"]["accuracy"]),
          span(b["macro_f1"]) + ("*" if any(not c["n_true"] for c in b["per_class"].values()) else ""), span(b["balanced_accuracy"]),
          span(b["nll"], 1.0), span(b["calibration"]["ece"]), points(b["calibration"]["ece"].get("limit"))]
         for label, b in blocks.items()],
        "* a class without objects counts 0 in macro-F1 and is left out of balanced accuracy",
    )
    few = [f"{name}: {label} ({n})" for name, by in metrics["too_few"].items() for label, n in by.items()]
    if few:
        report.text(f"Not evaluated, fewer than {metrics['min_count']} objects: {', '.join(few)}.")
