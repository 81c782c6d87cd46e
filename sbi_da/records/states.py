"""What is known of a channel, band or pixel of an object."""

__all__ = ["ABSENT", "LIMIT", "OBSERVED"]

ABSENT, OBSERVED, LIMIT = 0, 1, 2
"""Never looked or not matched; measured; looked, not detected (the value is the limit)."""
