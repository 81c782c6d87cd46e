"""One-dimensional laws a prior is built from."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from sbi_da.distributions.by_class import ByClass
from sbi_da.distributions.categorical import Categorical
from sbi_da.distributions.elementary import Exponential, LogOfUniform, LogUniform, Normal, Uniform
from sbi_da.distributions.family import Family
from sbi_da.distributions.galaxy import DustLayer, VolumeDensity
from sbi_da.distributions.isotropic import Isotropic
from sbi_da.distributions.law import Distribution, Law
from sbi_da.distributions.linear_normal import LinearNormal
from sbi_da.distributions.mixture import Component, Mixture
from sbi_da.distributions.power_law import BrokenPowerLaw
from sbi_da.distributions.tabulated import Tabulated
from sbi_da.errors import ConfigError

__all__ = [
    "AnyDistribution", "BrokenPowerLaw", "ByClass", "Categorical", "Distribution", "DustLayer", "Exponential", "Family", "Isotropic",
    "Law", "LinearNormal", "LogOfUniform", "LogUniform", "Mixture", "Normal", "Tabulated", "Uniform", "VolumeDensity",
    "distribution_from_dict",
]

AnyDistribution = Annotated[Component | ByClass | Categorical | DustLayer | LinearNormal | Mixture, Field(discriminator="kind")]
_ADAPTER: TypeAdapter[Any] = TypeAdapter(AnyDistribution)


def distribution_from_dict(content: Mapping[str, Any], where: str = "prior") -> Law:
    """Build a law from plain content such as ``{kind: normal, mean: 0, sd: 1, low: -3, high: 3}``.

    Raises:
        ConfigError: naming the key that does not fit.
    """
    try:
        return _ADAPTER.validate_python(dict(content))
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in (where, *first["loc"]))
        raise ConfigError(f"{path}: {first['msg']}") from error
