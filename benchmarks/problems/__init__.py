r"""Problems whose simulator is wrong in a known way and whose real posterior is exact.

A problem has a simulator :math:`x_s = f(\theta) + \sigma\varepsilon`, a real instrument :math:`p(x_o\mid\theta)` that differs from
it, and a population of real objects that may differ from the prior. Calibration pairs are same-noise twins: one
:math:`\theta` of the population and one :math:`\varepsilon`, seen through both. What an estimator should say of a real object,

.. math:: p(\theta\mid x_o) = \frac{p(\theta)\,p(x_o\mid\theta)}{\int p(\theta)\,p(x_o\mid\theta)\,d\theta},

is known with :math:`p(\theta)` either the real population or the simulator's prior. The setting, few pairs and a misspecified
simulator, is that of Wehenkel et al. (2024, arXiv 2405.08719).
"""

from collections.abc import Callable
from functools import partial

from benchmarks.problems.linear import Linear
from benchmarks.problems.oscillator import Oscillator
from benchmarks.problems.photometry import Photometry
from benchmarks.problems.problem import Problem

__all__ = ["PROBLEMS", "Problem"]

PROBLEMS: dict[str, Callable[[int], Problem]] = {
    "p1": partial(Linear, "p1", instrument="affine"),
    "p2": partial(Linear, "p2", instrument="rotation"),
    "p3": partial(Linear, "p3", shifted=True),
    "p4": partial(Linear, "p4", instrument="affine", shifted=True),
    "p5": Oscillator,
    "p6": Photometry,
}
"""From the seed of an instance to the problem, by name."""
