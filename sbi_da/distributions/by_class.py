r"""A law of its own for every class.

.. math:: p(x \mid k) = p_k(x)

with k the code of an earlier, discrete parameter (:class:`~sbi_da.distributions.categorical.Categorical`). The supports may differ;
that of the whole is their union, and a value outside the support of its own class has density zero.
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from sbi_da.distributions.law import Array, Distribution, Law
from sbi_da.distributions.mixture import Component

__all__ = ["ByClass"]


class ByClass(Law):
    """A law that depends on the class of the object.

    Attributes:
        parameter: name of the parameter that holds the class code.
        laws: one law per code, in order.
    """

    kind: Literal["by_class"] = "by_class"
    parameter: str = "morphology"
    laws: tuple[Annotated[Component, Field(discriminator="kind")], ...] = Field(min_length=1)

    @property
    def given(self) -> tuple[str, ...]:
        """The class."""
        return (self.parameter,)

    @property
    def bounds(self) -> tuple[float, float]:
        """From the lowest to the highest value any class can have."""
        return min(law.bounds[0] for law in self.laws), max(law.bounds[1] for law in self.laws)

    def at(self, theta: Mapping[str, Array]) -> "_Chosen":
        """The laws of these objects' classes; a code no class has gives NaN."""
        values: dict[str, Any] = {"code": np.asarray(theta[self.parameter], float), "laws": self.laws}
        return _Chosen.model_construct(**values)


class _Chosen(Distribution):
    """Each object's own law, picked by its code."""

    code: Any
    laws: tuple[Any, ...]

    @property
    def bounds(self) -> tuple[Array, Array]:
        """Support of each object's law."""
        return self._each(lambda law, _: law.bounds[0], self.code), self._each(lambda law, _: law.bounds[1], self.code)

    def _each(self, evaluate: Callable[..., Array], *arguments: Array) -> np.ndarray:
        code, *values = np.broadcast_arrays(self.code, *(np.asarray(v, float) for v in arguments))
        result = np.full(code.shape, np.nan)
        for k, law in enumerate(self.laws):
            mine = np.abs(code - k) <= 0.5
            if mine.any():
                result[mine] = evaluate(law, *(v[mine] for v in values))
        return result

    def log_density(self, x: Array) -> Array:
        def one(law: Distribution, x: np.ndarray) -> np.ndarray:
            low, high = law.bounds
            inside = (x >= low) & (x <= high)
            return np.where(inside, law.log_density(np.clip(x, low, high)), -np.inf)

        return self._each(one, x)

    def mass(self, a: Array, b: Array) -> Array:
        return self._each(lambda law, a, b: law.mass(np.clip(a, *law.bounds), np.clip(b, *law.bounds)), a, b)

    def quantile(self, low: Array, high: Array, below: Array, above: Array) -> Array:
        def one(law: Distribution, low: Array, high: Array, below: Array, above: Array) -> Array:
            low, high = np.clip(low, *law.bounds), np.clip(high, *law.bounds)
            return np.clip(law.quantile(low, high, below, above), low, high)

        return self._each(one, low, high, below, above)
