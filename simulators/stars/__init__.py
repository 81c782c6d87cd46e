"""Stars with unresolved companions: isochrones, atmospheres, dust, distance. Sources and limits: ``README.md``."""

from .simulator import Stars

__all__ = ["SIMULATOR", "Stars"]

SIMULATOR = Stars
