"""Single stars, with unresolved companions: isochrones, atmospheres, dust, distance. See ``README.md`` for sources and limits."""

from .simulator import Stars

__all__ = ["SIMULATOR", "Stars"]

SIMULATOR = Stars
