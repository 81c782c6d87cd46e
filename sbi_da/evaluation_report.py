"""The page an evaluation is read on: a summary, calibration, point estimates, strata."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from sbi_da.report import Report, number

__all__ = ["CAPTIONS", "evaluation_report"]


def _span(content: Mapping[str, Any] | None, factor: float = 1.0, digits: int = 3) -> str:
    """``value (low … high)``."""
    if not content or content.get("value") is None:
        return "–"
    value, low, high = (number(float(content[key]) * factor, digits) for key in ("value", "low", "high"))
    return f"{value} ({low} … {high})"


def _strata(metrics: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """All evaluated blocks by label, the overall one first."""
    blocks = {"all objects": metrics["overall"]}
    for name, by_label in metrics["strata"].items():
        blocks.update({f"{name}: {label}": block for label, block in by_label.items()})
    return blocks


CAPTIONS = {
    "coverage": "Share of objects whose central interval holds the truth. Right: its difference from the nominal "
    "level; curves below zero are overconfident. Grey: where a calibrated posterior lies for 95 % of data "
    "sets of this size, level by level.",
    "sbc_ranks": "Simulation-based calibration: rank of the truth among the draws. Flat is right, a bowl is "
    "overconfident, a hill too cautious, a slope biased. Band: 95 % for each bin; p from chi-square.",
    "tarp": "TARP: coverage of balls about random points, which tests all parameters together. Shaded: 95 % bootstrap "
    "band.",
    "truth_and_posterior": "Posterior mean against truth. Blue: all objects, on a logarithmic scale where there are "
    "many. Bars: 16 to 84 % of the posterior for a few objects.",
    "coverage_error_by_stratum": "Coverage error by stratum with 95 % intervals. Diamonds lie beyond the grey bar, "
    "which a calibrated posterior with as many objects exceeds in 2.5 % of cases.",
}
"""Figures that :func:`evaluation_report` knows where to put."""


def evaluation_report(
    metrics: Mapping[str, Any], figures: Mapping[str, Figure] | None = None, title: str = "Evaluation", notes: str = ""
) -> Report:
    """Report of one evaluation.

    Args:
        metrics: from :func:`sbi_da.diagnostics.evaluate_draws`.
        figures: by a name in :data:`CAPTIONS`, which goes to its section, or by caption, for a section of their own.
        title: of the page.
        notes: what was evaluated on what; see :meth:`Report.text`.
    """
    overall, extra = metrics["overall"], dict(figures or {})
    standard = {name: extra.pop(name) for name in CAPTIONS if name in extra}
    error = overall["coverage"]["error"]
    report = Report(title, f"{overall['n']:,} objects, {metrics['n_draws']} posterior draws each.")
    tiles = {"coverage error (percentage points)": number(error["value"] and 100 * error["value"])}
    tiles["of which finite samples alone explain"] = number(error["expected"] and 100 * error["expected"])
    if "nll" in overall:
        tiles["mean NLL (nats)"] = number(overall["nll"]["mean"]["value"])
    if "information_gain" in overall:
        tiles["mean information gain (nats)"] = number(overall["information_gain"]["mean"]["value"])
    report.section("Summary").tiles(tiles)
    if error["value"] is not None:
        over = error["value"] > error["limit"]
        verdict = "more than" if over else "within"
        report.text(
            f"The coverage error is {_span(error, 100)} percentage points, **{verdict}** the "
            f"{number(100 * error['limit'])} that a calibrated posterior stays below in 97.5 % of data sets of this "
            "size. All intervals are 95 % over objects."
        )
    if notes:
        report.text(notes)
    report.section("Calibration")
    for key in ("coverage", "sbc_ranks", "tarp"):
        if key in standard:
            report.figure(standard[key], CAPTIONS[key])
    per, sbc = overall["coverage"]["error_by_parameter"], overall["sbc"]
    report.table(
        ["parameter", "coverage error [points]", "limit", "SBC p (chi-square)", "SBC p (KS)"],
        [[n, _span(per[n], 100), number(per[n]["limit"] and 100 * per[n]["limit"]), sbc["p_value"][n],
          sbc["ks_p_value"][n]] for n in metrics["parameters"]],
        "Calibration by parameter",
    )
    points = overall["point_errors"]
    report.section("Point estimates")
    if "truth_and_posterior" in standard:
        report.figure(standard["truth_and_posterior"], CAPTIONS["truth_and_posterior"])
    errors = {"bias": "bias (median)", "scatter": "1.48 MAD", "rmse": "RMSE", "outliers": "outliers"}
    report.table(
        ["parameter", "n", *errors.values()],
        [[name, p["n"], *(_span(p.get(k), 1.0, 2) for k in errors)] for name, p in points.items()],
        "Posterior median minus truth, in the unit of each parameter. Outliers: share beyond 5 × 1.48 MAD of the bias",
    )
    widths = {"z_mean": "mean z", "z_sd": "sd of z", "coverage_68": "in 68 %", "coverage_90": "in 90 %"}
    report.table(
        ["parameter", "posterior sd", *widths.values()],
        [[name, p.get("posterior_sd"), *(_span(p.get(k)) for k in widths)] for name, p in points.items()],
        "Stated uncertainties: median width, z-scores (0 and 1 if right), share of truths in central intervals",
    )
    report.section("By stratum")
    if "coverage_error_by_stratum" in standard:
        report.figure(standard["coverage_error_by_stratum"], CAPTIONS["coverage_error_by_stratum"])
    report.table(
        ["stratum", "n", "coverage error [points]", "limit", "TARP deviation [points]", "mean NLL [nats]",
         "median NLL [nats]", "mean gain [nats]"],
        [_stratum_row(label, block) for label, block in _strata(metrics).items()],
    )
    few = [f"{name}: {label} ({n})" for name, by in metrics["too_few"].items() for label, n in by.items()]
    if few:
        report.text(f"Not evaluated, fewer than {metrics['min_count']} objects: {', '.join(few)}.")
    if extra:
        report.section("Figures")
        for caption, fig in extra.items():
            report.figure(fig, caption)
    return report


def _stratum_row(label: str, block: Mapping[str, Any]) -> list[Any]:
    error, nll = block["coverage"]["error"], block.get("nll", {})
    return [
        label, block["n"], _span(error, 100), number(error["limit"] and 100 * error["limit"]),
        _span(block["tarp"]["deviation"], 100), _span(nll.get("mean")), _span(nll.get("median")),
        _span(block.get("information_gain", {}).get("mean")),
    ]
