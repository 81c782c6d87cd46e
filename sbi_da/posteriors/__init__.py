"""Posterior heads: a context to a law over normal scores; and the posterior users hold."""

from sbi_da.posteriors.posterior import Posterior
from sbi_da.posteriors.spline import SplineHead

__all__ = ["Posterior", "SplineHead"]
