"""Resolved galaxies: ellipticals, irregulars, spirals and mergers. Conventions, sources and limits: ``README.md``."""

from .population import Population
from .simulator import Galaxies
from .sky import GalaxySky

__all__ = ["SIMULATOR", "Galaxies", "GalaxySky", "Population"]

SIMULATOR = Galaxies
