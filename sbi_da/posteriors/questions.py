"""Questions a head is trained to answer: which variables are known, which are asked, and which are left out."""

import torch
from torch import Tensor

__all__ = ["draw_questions"]

PLAIN = 0.4
"""Share of training objects that are asked for all parameters, with nothing known."""
WHOLE = 0.5
"""Share of the other objects of which no parameter is left out."""


def draw_questions(
    count: int, parameters: int, hidden: Tensor | None, generator: torch.Generator | None, device: torch.device | None = None
) -> tuple[Tensor, Tensor]:
    """Masks of known and asked variables: parameters first, then channels.

    How many parameters are known, and how many left out, is uniform over objects, so that sparse and dense questions occur alike.

    Args:
        count: number of objects.
        parameters: number of parameters.
        hidden: which channels were measured but are kept from the encoder, boolean, shape ``(object, channel)``; None: no channels.
        generator: random numbers.
        device: where the masks live.

    Returns:
        Two boolean tensors of shape ``(object, parameter + channel)``, never both True; at least one variable of each object is asked.
    """
    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, device=device)

    plain = uniform(count, 1) < PLAIN
    known = (uniform(count, parameters) < uniform(count, 1)) & ~plain
    left = (uniform(count, parameters) < uniform(count, 1)) & (uniform(count, 1) > WHOLE) & ~plain
    asked = ~known & ~left
    if hidden is not None:
        others = hidden & ((uniform(*hidden.shape) < uniform(count, 1)) | (uniform(count, 1) < WHOLE))
        known = torch.cat([known, torch.zeros_like(hidden)], dim=1)
        asked = torch.cat([asked, others], dim=1)
    nothing = ~asked.any(1)
    first = torch.arange(known.shape[1], device=device) < parameters
    return known & ~(nothing[:, None] & first), asked | (nothing[:, None] & first)
