"""Class probabilities from images turned by 0, 90, 180 and 270 degrees together: a galaxy's class does not depend on its orientation."""

from typing import TYPE_CHECKING

import numpy as np
import torch

from sbi_da.layout import Observations
from sbi_da.measured import measurements, pictures
from sbi_da.posteriors.categorical import CategoricalHead

if TYPE_CHECKING:
    from sbi_da.estimator import Estimator

__all__ = ["turned_log_probabilities"]

CHUNK = 256


def turned_log_probabilities(estimator: "Estimator", real: Observations) -> np.ndarray:
    """Log-probabilities under equal class fractions, from the mean logits of the turned images of real objects.

    Shape ``(object, class)``.
    """
    head = estimator.head
    assert isinstance(head, CategoricalHead)
    training, device = estimator.training, next(estimator.parameters()).device
    estimator.eval()
    found = [torch.zeros(0, head.classes)]
    with torch.inference_mode():
        for start in range(0, len(real), CHUNK):
            batch = {name: value.to(device) for name, value in measurements(real, slice(start, start + CHUNK)).items()}
            side = torch.full((len(batch["state"]),), True, device=device)
            turns = [{name: (torch.rot90(x, k, (2, 3)), seen) for name, (x, seen) in pictures(batch).items()} for k in range(4)]
            logits = [head.logits(estimator.context(batch["value"], batch["error"], batch["state"], side, images)) for images in turns]
            found.append(torch.stack(logits).mean(0).cpu())
    estimator.train(training)
    likelihood = torch.cat(found).double() - torch.from_numpy(estimator.assumed_fractions(corrected=False)).log()
    return likelihood.log_softmax(-1).numpy()
