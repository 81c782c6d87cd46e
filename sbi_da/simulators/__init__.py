"""Simulators: parameters with a prior, and what the sky sends for given parameters."""

from sbi_da.plugins import mount

mount(__path__, "simulators")

from sbi_da.simulators.interface import Parameter, PhotographedSky, Simulator, Sky  # noqa: E402
from sbi_da.simulators.registry import get_simulator, list_simulators, simulator_class  # noqa: E402

__all__ = ["Parameter", "PhotographedSky", "Simulator", "Sky", "get_simulator", "list_simulators", "simulator_class"]
