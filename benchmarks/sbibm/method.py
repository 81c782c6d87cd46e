"""What a method of inference is to the benchmark."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from benchmarks.sbibm.tasks import Task

__all__ = ["AnyConditional", "Fitted", "Method", "Methods"]


class Fitted(Protocol):
    """A trained method."""

    def sample(self, x: np.ndarray, n: int, seed: int) -> np.ndarray:
        """``n`` draws ``(n, d)`` of the posterior of one observation ``(m,)``."""
        ...


@runtime_checkable
class AnyConditional(Protocol):
    """A trained method that can also draw any variables given any others, and whose ``sample`` takes NaN for data that were not taken."""

    def sample_given(self, known: np.ndarray, values: np.ndarray, n: int, seed: int) -> np.ndarray:
        """Draws ``(n, unknown)``, in the order of parameters, then data; arguments as of ``conditionals.sample``."""
        ...


class Method(Protocol):
    """A method to be trained on simulations of a task."""

    def fit(self, task: Task, theta: np.ndarray, x: np.ndarray, seed: int) -> Fitted:
        """Train on parameters ``(n, d)`` and their data ``(n, m)``, float32; nothing else of the task may be used but its prior."""
        ...


Methods = dict[str, Callable[[], Method]]
"""Methods by name; each is made when it is asked for, so that what it needs is imported only then."""
