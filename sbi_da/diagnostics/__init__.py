"""Is the posterior right, and where is it not? Pure functions of arrays, one question per file."""

from sbi_da.diagnostics.calibration import coverage, coverage_error, ranks, sbc_p_values
from sbi_da.diagnostics.errors import point_errors
from sbi_da.diagnostics.evaluation import bins, evaluate_draws
from sbi_da.diagnostics.joint_calibration import highest_density_coverage, tarp
from sbi_da.diagnostics.twosample import c2st

__all__ = [
    "bins", "c2st", "coverage", "coverage_error", "evaluate_draws", "highest_density_coverage", "point_errors", "ranks",
    "sbc_p_values", "tarp",
]
