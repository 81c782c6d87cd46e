"""Methods by name: those of sbi, and our own where ``ours.py`` gives them."""

from importlib import import_module
from importlib.util import find_spec

from benchmarks.sbibm.method import Methods
from benchmarks.sbibm.peers import PEERS

__all__ = ["headline", "registered"]

OURS = "benchmarks.sbibm.ours"
"""A module with ``OURS: Methods`` and ``HEADLINE``, the name of the one that makes the figures; it imports little itself."""


def registered() -> Methods:
    """All methods, ours first."""
    ours: Methods = import_module(OURS).OURS if find_spec(OURS) else {}
    return {**ours, **PEERS}


def headline() -> str | None:
    """The method of the figures; None as long as there is none of ours."""
    return import_module(OURS).HEADLINE if find_spec(OURS) else None
