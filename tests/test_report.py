"""Figures are drawn and the report holds what it was given, escaped, and nothing from elsewhere."""

import html
import json
import re

import numpy as np
import pytest
from matplotlib.figure import Figure

from sbi_da import plots
from sbi_da.diagnostics import evaluate_draws
from sbi_da.errors import SbiDaError
from sbi_da.evaluation_report import evaluation_report
from sbi_da.report import Report

NAMES = ["log_age", "A_V"]


@pytest.fixture(scope="module")
def evaluated():
    rng = np.random.default_rng(0)
    mean = rng.standard_normal((600, 2))
    truth = mean + rng.standard_normal((600, 2))
    draws = mean[:, None] + 0.6 * rng.standard_normal((600, 100, 2))
    pattern = np.where(np.arange(600) < 590, "gaia", "<b>none</b>")
    return draws, truth, evaluate_draws(draws, truth, NAMES, rng.standard_normal(600), strata={"pattern": pattern})


def drawn(draws, truth, metrics):
    overall = metrics["overall"]
    cover = overall["coverage"]
    bars = {"all": {**cover["error"], "n": 600}, "without truth": {"value": None}}
    subsets = {"gaia": draws[0], "gaia+wise": 0.5 * draws[0]}
    return {
        "coverage": plots.coverage_curves(cover["levels"], cover["curve"], 600),
        "sbc_ranks": plots.rank_histograms(overall["sbc"]["histogram"], overall["sbc"]["p_value"]),
        "tarp": plots.tarp_curve(cover["levels"], {"all": overall["tarp"]}, 600),
        "truth_and_posterior": plots.truth_vs_posterior(truth, draws, NAMES, {"A_V": "mag"}),
        "coverage_error_by_stratum": plots.coverage_error_bars(bars),
        "widths": plots.posterior_widths({"all": draws.std(1), "gaia": 2 * draws.std(1)}, NAMES, {"A_V": "mag"}),
        "one star": plots.corner(subsets, NAMES, {"A_V": "mag"}, [0.0, np.nan]),
        "residuals": plots.residual_histogram({"a": truth[:, 0], "b": np.append(truth[:, 1], np.nan)}, "Teff", "K"),
    }


def page(report, tmp_path):
    return report.write(tmp_path / "report.html").read_text(encoding="utf-8")


def test_report_holds_numbers_and_figures_and_needs_nothing_else(evaluated, tmp_path):
    draws, truth, metrics = evaluated
    figures = drawn(draws, truth, metrics)
    text = page(evaluation_report(metrics, figures, "Run <7>", "A *note*."), tmp_path)
    assert text.count("<img ") == text.count("data:image/png;base64,") == len(figures)
    assert not re.search(r'(?:src|href)="(?!#|data:)|https?:|url\(|@import|<script|<link', text)
    error = metrics["overall"]["coverage"]["error"]
    assert f"{100 * error['value']:.3g}" in text and f"{100 * error['limit']:.3g}" in text
    assert "more than" in text
    assert f"{metrics['overall']['point_errors']['A_V']['scatter']['value']:.2g}" in text
    assert "Run &lt;7&gt;" in text and "<em>note</em>" in text
    assert "<b>none" not in text and html.escape("<b>none</b>") + " (10)" in text
    assert set(re.findall(r'href="#(\w+)"', text)) == set(re.findall(r'<h2 id="(\w+)"', text))
    assert all(re.findall(r'<img [^>]*alt="([^"]*)"', text))
    assert list(tmp_path.iterdir()) == [tmp_path / "report.html"]


def test_report_from_stored_metrics_alone_and_without_any_truth(evaluated, tmp_path):
    draws, truth, metrics = evaluated
    assert "By stratum" in page(evaluation_report(json.loads(json.dumps(metrics))), tmp_path)
    empty = evaluate_draws(draws, np.full_like(truth, np.nan), NAMES)
    text = re.sub("base64,[^\"]*", "", page(evaluation_report(empty, drawn(draws, truth, empty)), tmp_path))
    assert not re.search(r"\b(nan|None)\b", text)


def test_text_is_escaped_and_lightly_marked_up(tmp_path):
    report = Report("T", "sub & title")
    report.text("## Head <x>\n\nOne **bold** & `a*b*c<d>`\nline, 2 * 3 * 4.\n\n- first\n- *second*\n\n### Small")
    text = page(report, tmp_path)
    assert '<h2 id="s1">Head &lt;x&gt;</h2>' in text
    assert "<p>One <strong>bold</strong> &amp; <code>a*b*c&lt;d&gt;</code> line, 2 * 3 * 4.</p>" in text
    assert "<ul><li>first</li><li><em>second</em></li></ul>" in text and "<h3>Small</h3>" in text
    assert "sub &amp; title" in text


def test_table_formats_and_checks_its_cells(tmp_path):
    text = page(Report("T").table(["a", "<b>"], [["x", 0.123456], ["y", None], ["z", 12345]]), tmp_path)
    assert "0.123<" in text and "–" in text and "12,345" in text and "&lt;b&gt;" in text
    with pytest.raises(SbiDaError, match="row 0 has 1 cells under 2 headers"):
        Report("T").table(["a", "b"], [["x"]])


def test_same_content_same_bytes_and_no_leftovers_on_failure(tmp_path, monkeypatch):
    def render():
        fig = Figure()
        fig.subplots().plot([1, 2])
        return Report("T").figure(fig, 'A "line" & more').render()

    assert render() == render()
    assert 'alt="A &quot;line&quot; &amp; more"' in render()
    report = Report("T")
    report.write(tmp_path / "r.html")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        report.text("new").write(tmp_path / "r.html")
    assert [p.name for p in tmp_path.iterdir()] == ["r.html"]
    assert "new" not in (tmp_path / "r.html").read_text()


def test_plots_leave_pyplot_alone(evaluated):
    import matplotlib.pyplot as plt

    drawn(*evaluated)
    assert plt.get_fignums() == []
