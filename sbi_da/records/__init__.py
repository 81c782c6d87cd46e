"""Records: measurements in three states, their parameters, tables in and out, missing-data laws, splits."""

from sbi_da.records.images import Images, LazyPixels
from sbi_da.records.missing import (
    AnyMissing,
    CoverageMissing,
    DepthMissing,
    EmpiricalMissing,
    MixedMissing,
    NothingMissing,
    UniformMissing,
)
from sbi_da.records.records import ABSENT, LIMIT, OBSERVED, Measurements, Records
from sbi_da.records.splits import split_by_group
from sbi_da.records.tables import read_table, write_table

__all__ = [
    "ABSENT", "LIMIT", "OBSERVED", "AnyMissing", "CoverageMissing", "DepthMissing", "EmpiricalMissing", "Images", "LazyPixels",
    "Measurements", "MixedMissing",
    "NothingMissing", "Records", "UniformMissing", "read_table", "split_by_group", "write_table",
]
