"""Simulated examples whose images are restaged for the surveys of real objects."""

import numpy as np

from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.layout import Observations
from sbi_da.restaging import Restaging, restage
from sbi_da.sources import Examples

__all__ = ["restaged", "restaging_of"]


def restaged(estimator: Estimator, examples: Examples, real: Observations, how: Restaging, rng: np.random.Generator) -> Examples:
    """Examples as the real objects' surveys would show them.

    Args:
        estimator: whose surveys these are.
        examples: simulated objects of known class.
        real: unlabelled objects that give flux, size, colour, seeing, sky and noise.
        how: what is done.
        rng: source of chance.

    Returns:
        ``how.copies`` of every example; what is not an image stays as it is.

    Raises:
        SbiDaError: a number of thicknesses that is not that of the classes, several surveys, or nothing to restage or to learn from.
    """
    if np.ndim(how.thickness) and len(np.atleast_1d(how.thickness)) != len(estimator.classes):
        raise SbiDaError(f"restage: thickness needs one number for each of {', '.join(estimator.classes)}, or a single one")
    cameras = estimator.layout.cameras
    if len(cameras) != 1 or estimator.layout.channels:
        raise SbiDaError(
            "restage: only one survey with images, without photometry, can be restaged, for what one object shows in several would no "
            f"longer agree; this estimator has {', '.join(estimator.surveys)}"
        )
    (name, camera), = cameras.items()
    image, rows = restage(examples.observed.images[name], examples.z[:, 0].astype(int), real.images[name], camera, how, rng)
    seen = examples.observed.take(rows)
    return Examples(Observations(seen.value, seen.error, seen.state, {name: image}), examples.z[rows], examples.log_weight[rows])


def restaging_of(estimator: Estimator) -> Restaging | None:
    """How the simulations were restaged that an adapted estimator learned from; None if they were not."""
    alignment = estimator.metadata.get("alignment")
    if alignment is None or not alignment["verdict"]["kept"] or alignment["config"]["classes"]["restage"] is None:
        return None
    return Restaging.model_validate(alignment["config"]["classes"]["restage"])
