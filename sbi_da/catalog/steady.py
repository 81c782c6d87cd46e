"""Answers that depend on the object alone, to the last bit: not on how many others there are, nor on their order.

Arithmetic in floating point depends on the shapes of arrays, as kernels for other shapes add in another order. So the network is called
with arrays of fixed shapes only: objects with equally many tokens, of whom nothing is masked, in blocks that are filled up with repeats.
That also spends nothing on what was not measured.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import torch

from sbi_da.alignment.features import Features
from sbi_da.estimator import Estimator
from sbi_da.layout import Observations
from sbi_da.measured import measurements, pictures
from sbi_da.posteriors import Posterior
from sbi_da.posteriors.posterior import objects_per_call
from sbi_da.records import ABSENT
from sbi_da.trust import Reference
from sbi_da.trust.reference import Statistics

__all__ = ["chunks", "filled", "steady_features", "steady_statistics"]

BLOCK = 512
"""Objects of which it is computed at a time how strange they are."""
CHUNK = 2000
"""Objects whose draws are held at a time, when there are a hundred draws of each."""


def steady_features(estimator: Estimator, observed: Observations, real: bool = False, bf16: bool = False) -> Features:
    """Features of all objects, real or not, computed in blocks of a fixed shape, with matrix products in bfloat16 or not."""
    size, count, told = estimator.network, len(observed), estimator.told.size
    device = next(estimator.parameters()).device
    context = torch.empty(count, told, device=device)
    surveys = torch.empty(count, len(estimator.surveys), size.width, device=device)
    present = torch.empty(count, len(estimator.surveys), dtype=torch.bool, device=device)
    for some, found in _blocks(estimator, observed, real, bf16):
        rows = torch.from_numpy(some).to(device)
        for whole, part in ((context, found.told), (surveys, found.surveys), (present, found.present)):
            whole[rows] = part[: len(some)].to(whole.dtype)
    return Features(context[:, : size.context], surveys, present, context[:, size.context :] if told > size.context else None)


def steady_statistics(reference: Reference, estimator: Estimator, features: Features, observed: Observations) -> Statistics:
    """How strange objects are, computed in blocks of a fixed shape."""
    parts, device = [], features.context.device
    for start in range(0, max(1, len(observed)), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(observed)))
        index = filled(rows, BLOCK)
        part = {k: v.to(device) for k, v in measurements(observed.take(index)).items()}
        found = reference.statistics(estimator, features[torch.from_numpy(index).to(device)], part["value"], part["error"], part["state"])
        parts.append((found, len(rows)))
    value = {k: np.concatenate([found.value[k][:count] for found, count in parts]) for k in parts[0][0].value}
    return Statistics(value, {k: np.concatenate([found.group[k][:count] for found, count in parts]) for k in value})


def _blocks(estimator: Estimator, observed: Observations, real: bool, bf16: bool) -> Iterator[tuple[np.ndarray, Features]]:
    """Which objects, and features of so many, behind which stand repeats, to be cut off."""
    block, tokens = estimator.fusion.group, _tokens(estimator, observed)
    device = next(estimator.parameters()).device
    for count in np.unique(tokens):
        rows = np.flatnonzero(tokens == count)
        for start in range(0, len(rows), block):
            some = rows[start : start + block]
            part = {k: v.to(device) for k, v in measurements(observed.take(filled(some, block))).items()}
            side = torch.full((block,), True, device=device) if real else None
            with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16) if bf16 else nullcontext():
                found = estimator.features(part["value"], part["error"], part["state"], side, pictures(part))
            yield some, found


def _tokens(estimator: Estimator, observed: Observations) -> np.ndarray:
    """How many tokens each object has, shape ``(object,)``."""
    device = estimator.encoder.membership.device
    present = estimator.encoder.present(torch.from_numpy(np.ascontiguousarray(observed.state)).to(device)).cpu().numpy()
    for name, image in observed.images.items():
        present[:, 1 + estimator.surveys.index(name)] |= (image.state != ABSENT).any(1)
    return present.sum(1)


def filled(rows: np.ndarray, size: int) -> np.ndarray:
    """Indices, filled up to a multiple of ``size`` with the first of them."""
    return np.concatenate([rows, np.repeat(rows[:1], -len(rows) % size)])


def chunks(posterior: Posterior, draws: int) -> Iterator[tuple[slice, Posterior]]:
    """Posteriors of a few objects at a time, filled up so that the head is called with full blocks.

    Yields:
        Which objects, and their posteriors; behind them stand repeats, to be cut off.
    """
    call = objects_per_call(draws, posterior.context.device)
    size = max(1, CHUNK * 100 // (draws * call)) * call
    for start in range(0, len(posterior), size):
        rows = np.arange(start, min(start + size, len(posterior)))
        index = filled(rows, call)
        context = posterior.context[torch.from_numpy(index).to(posterior.context.device)]
        yield slice(start, start + len(rows)), replace(posterior, context=context, ids=posterior.ids[index])
