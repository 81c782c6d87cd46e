"""Co-training of a network and of what is measured: each teaches the other the classes of real objects.

The network sees images alone, the measurements being withheld; a regression on measurements and on the network's logits classifies real
objects anew (:mod:`sbi_da.alignment.class_refinement`); a fresh network learns that from images, and so on. Two views that err
independently mend each other (Blum & Mitchell 1998, COLT, 92), which a network that sees the measurements too would not: it would learn
the regression by heart. Only the last one sees everything.
"""

import numpy as np

from sbi_da.alignment.class_refinement import Refined, physical_features, refine
from sbi_da.class_alignment_config import Refinement
from sbi_da.encoders.morphometry import NAMES
from sbi_da.errors import SbiDaError, UnknownNameError
from sbi_da.estimator import Estimator
from sbi_da.layout import Observations
from sbi_da.records import ABSENT
from sbi_da.turned import turned_log_probabilities
from sbi_da.views import measured

__all__ = ["refined"]


def refined(estimator: Estimator, real: Observations, how: Refinement) -> Refined:
    """Classes of the real objects by what is measured of them and what the estimator thinks of them.

    Objects without an image in the survey that has most of them cannot be measured: the estimator alone classifies them, under the
    fractions that were found, and they teach nothing.

    Raises:
        UnknownNameError: a summary that is not measured.
        SbiDaError: no images, or too few objects.
    """
    tokens = estimator.images
    if tokens is None or not real.images:
        raise SbiDaError("refinement needs images to measure")
    for key in how.summaries:
        if key not in NAMES:
            raise UnknownNameError("summary", key, list(NAMES))
    name = max(real.images, key=lambda key: int((real.images[key].state != ABSENT).sum()))
    summaries = measured(tokens, name, real)
    chosen = (*(NAMES.index(key) for key in how.summaries), *range(len(NAMES), summaries.shape[1]))
    log_p = turned_log_probabilities(estimator, real)
    seen = np.isfinite(summaries).all(1)
    found = refine(physical_features(summaries[seen], log_p[seen], chosen), np.exp(log_p[seen]), how.share, how.even)
    return found.among(seen, np.exp(log_p))
