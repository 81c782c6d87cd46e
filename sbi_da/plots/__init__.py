"""Figures for reports and papers: one function, one figure; no global state, colours for colour-blind readers."""

from sbi_da.plots.calibration import coverage_curves, coverage_error_bars, rank_histograms, tarp_curve
from sbi_da.plots.latent import latent_figure
from sbi_da.plots.posteriors import corner, posterior_widths, residual_histogram, truth_vs_posterior
from sbi_da.plots.shift import shift_figure
from sbi_da.plots.style import COLOURS

__all__ = [
    "COLOURS", "corner", "coverage_curves", "coverage_error_bars", "latent_figure", "posterior_widths",
    "rank_histograms", "residual_histogram", "shift_figure", "tarp_curve", "truth_vs_posterior",
]
