"""Faults put into simulated objects, for a network to learn to find them.

``offset``
    A survey's magnitudes are all off by the same amount: its zero point. Other channels have no common unit, each gets its own.
``mismatch``
    All that a survey measured is that of another object: a wrong cross-match.
``trend``
    A survey's magnitudes are off by an amount that grows from its first channel to its last, or the other way: an excess of warm dust,
    a hot companion.
``channel``
    One channel of a survey is off: a blend, an artefact.

Amounts are of either sign and log-uniform between :data:`LEAST` and :data:`LARGEST`. Quoted errors are those of an undisturbed
measurement, of all objects, faulty or not, times a common factor for each survey (:data:`FACTOR`): real surveys quote other errors at one
magnitude here and there on the sky, and that is no fault.
"""

import torch
from torch import Tensor

from sbi_da.records import ABSENT, OBSERVED

__all__ = ["KINDS", "spoilt"]

KINDS = ("offset", "mismatch", "trend", "channel")
LEAST, LARGEST = 0.05, 3.0
"""Of the amounts, in magnitudes; of parallaxes in mas, of other channels in standard deviations among simulated objects."""
FACTOR = 0.1
"""Standard deviation, in dex."""
FAULTY = 0.7
"""Share of objects with a fault, if there is something to spoil."""


def spoilt(value: Tensor, error: Tensor, state: Tensor, own: Tensor, unit: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Measurements of objects of which some have a fault in one survey.

    Args:
        value: shape ``(object, channel)``.
        error: same shape.
        state: same shape.
        own: channels of each survey, boolean, shape ``(survey, channel)``.
        unit: of amounts, shape ``(channel,)``, negative for channels that have none in common with others.

    Returns:
        Value, error and state, and which fault it is: 0 for none, else one plus ``survey + surveys * kind``, shape ``(object,)``.
    """
    objects, surveys = len(value), len(own)
    seen = ((state == OBSERVED)[:, None] & own).any(-1)
    survey = torch.multinomial(seen.float() + 1e-9, 1)[:, 0]
    kind = torch.randint(len(KINDS), (objects,))
    held = (state != ABSENT) & own[survey]
    shared = own[survey] & (unit > 0)
    faulty = (torch.rand(objects) < FAULTY) & seen.gather(1, survey[:, None])[:, 0]
    amount = torch.where(shared.any(1, keepdim=True), _amounts(objects, 1), _amounts(*value.shape))
    away = torch.zeros_like(value)
    for number, name in enumerate(KINDS):
        rows = faulty & (kind == number)
        if name == "mismatch":
            value, error, state = _mismatched(rows, survey, seen, own, value, error, state)
        elif name == "offset":
            away = torch.where(rows[:, None] & (shared | ~shared.any(1, keepdim=True)), amount, away)
        elif name == "trend":
            away = torch.where(rows[:, None] & shared, amount * _ramp(shared), away)
        elif name == "channel":
            one = torch.nn.functional.one_hot(torch.multinomial(held.float() + 1e-9, 1)[:, 0], value.shape[1]) > 0
            away = torch.where(rows[:, None] & one, amount, away)
    away = torch.where(held, away * unit.abs(), 0.0)
    changed = (away != 0).any(1) | (kind == KINDS.index("mismatch"))
    factor = 10 ** (FACTOR * torch.randn(objects, surveys) @ own.float())
    fault = torch.where(faulty & changed, 1 + survey + surveys * kind, 0)
    return value + away, error * factor, state, fault


def _amounts(*shape: int) -> Tensor:
    """Of either sign."""
    low, high = torch.tensor([LEAST, LARGEST]).log()
    return torch.exp(low + (high - low) * torch.rand(shape)) * (2 * torch.randint(2, shape) - 1)


def _ramp(channels: Tensor) -> Tensor:
    """From a share of one at the first of the channels to one at the last, or the other way, shape ``(object, channel)``."""
    place = (channels.cumsum(1) - 1) / (channels.sum(1, keepdim=True) - 1).clamp_min(1)
    place = torch.where(torch.rand(len(channels), 1) < 0.5, place, 1 - place)
    least = torch.rand(len(channels), 1) * 0.5
    return least + (1 - least) * place


def _mismatched(
    rows: Tensor, survey: Tensor, seen: Tensor, own: Tensor, value: Tensor, error: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Take the channels of the survey from another object of the batch."""
    other = torch.multinomial(seen.T.float() + 1e-9, len(value), replacement=True).gather(0, survey[None])[0]
    mine = rows[:, None] & own[survey]
    return torch.where(mine, value[other], value), torch.where(mine, error[other], error), torch.where(mine, state[other], state)
