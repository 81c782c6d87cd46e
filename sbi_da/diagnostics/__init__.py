"""Is the posterior right, and where is it not? Pure functions of arrays, one question per file."""

from sbi_da.diagnostics.calibration import coverage, coverage_error, ranks, sbc_p_values
from sbi_da.diagnostics.collapse import contraction, pair_error
from sbi_da.diagnostics.domains import domain_auc, mmd_test
from sbi_da.diagnostics.errors import point_errors
from sbi_da.diagnostics.evaluation import bins, evaluate_draws
from sbi_da.diagnostics.groups import by_group
from sbi_da.diagnostics.joint_calibration import highest_density_coverage, tarp
from sbi_da.diagnostics.twosample import c2st
from sbi_da.diagnostics.twosample_many import c2st_many

__all__ = [
    "bins", "by_group", "c2st", "c2st_many", "contraction", "coverage", "coverage_error", "domain_auc", "evaluate_draws",
    "highest_density_coverage", "mmd_test", "pair_error", "point_errors", "ranks", "sbc_p_values", "tarp",
]
