"""Observations as the tensors a network takes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sbi_da.layout import Observations
from sbi_da.records import ABSENT

__all__ = ["Batch", "measurements", "pictures", "stacked"]

Batch = dict[str, Tensor]
PIXELS, BANDS = "pixels.", "bands."


def measurements(observed: Observations, rows: Any = slice(None)) -> Batch:
    """Measurements of some objects; images as ``pixels.<survey>`` and ``bands.<survey>``.

    Bytes become 0 to 1. A band with a pixel that is not finite is absent.
    """
    batch = {
        "value": torch.from_numpy(observed.value[rows]).float(),
        "error": torch.from_numpy(observed.error[rows]).float(),
        "state": torch.from_numpy(observed.state[rows]),
    }
    for name, image in observed.images.items():
        pixels = torch.from_numpy(np.array(image.pixels[rows]))
        pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
        seen = torch.from_numpy(image.state[rows] != ABSENT)
        batch[PIXELS + name], batch[BANDS + name] = pixels, seen & torch.isfinite(pixels).all(-1).all(-1)
    return batch


def pictures(batch: Mapping[str, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """The images of a batch: by survey, pixels and which bands are there."""
    names = [key.removeprefix(PIXELS) for key in batch if key.startswith(PIXELS)]
    return {name: (batch[PIXELS + name], batch[BANDS + name]) for name in names}


def stacked(batches: list[Batch]) -> Batch:
    """Measurements of several batches, one after the other."""
    keys = [key for key in batches[0] if key in ("value", "error", "state") or key.startswith((PIXELS, BANDS))]
    return {key: torch.cat([batch[key] for batch in batches]) for key in keys}
