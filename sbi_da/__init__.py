"""Posteriors for objects seen by some surveys and not by others."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("sbi-da")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
