"""What an import brings along."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["sbi_da", "sbi_da.cli"])
def test_importing_the_package_or_its_commands_loads_nothing_heavy(module):
    heavy = ("torch", "lightning", "xarray", "matplotlib", "numpy", "astropy", "pydantic", "yaml")
    code = f"import sys, {module}; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_numerical_rooms_do_not_import_the_outer_shell():
    code = (
        "import sys, sbi_da.fusion, sbi_da.encoders, sbi_da.posteriors, sbi_da.alignment.registry, sbi_da.alignment.discrepancy;"
        "print([m for m in sys.modules if m in ('lightning', 'sbi_da.cli', 'sbi_da.config', 'matplotlib', 'sklearn')])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
