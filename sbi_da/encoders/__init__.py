"""Encoders: measurements of one kind to tokens."""

from sbi_da.encoders.scalars import ScalarEncoder

__all__ = ["ScalarEncoder"]
