"""Conditionals, marginals and predictions of heads that are trained to answer them, or have them in closed form.

Asked variables are parameters, in normal scores of the prior, and scalar channels in the encoder's units. To say what the score of a
parameter means, those that its law or limits depend on must be asked or known too: they are asked along.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from sbi_da.errors import SbiDaError
from sbi_da.posteriors.known import KnownScores
from sbi_da.posteriors.noise import object_noise, resample

if TYPE_CHECKING:
    from sbi_da.posteriors.posterior import Posterior

__all__ = ["Answering", "Predicted", "answers", "asked_log_prob", "sample_asked"]

ROWS = 4096
"""Draws per network call."""
SPARE = 4
"""Draws of which one is kept where a known parameter's limits depend on others that are drawn."""


class Law(Protocol):
    """What a head says of a question."""

    def draw(self, noise: Tensor) -> Tensor:
        """Standard normal noise ``(object, draw, noise)`` to draws of all variables, the known ones as known."""
        ...

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of the asked ones of the variables ``(object, draw, variable)``, shape ``(object, draw)``."""
        ...


@runtime_checkable
class Answering(Protocol):
    """A head that answers questions."""

    asking_noise: int
    """Size of the noise that a draw takes."""

    def ask(self, context: Tensor, values: Tensor, known: Tensor, asked: Tensor) -> Law:
        """The law of asked variables given known ones; the rest is integrated out.

        Args:
            context: encoded objects, shape ``(object, context)``.
            values: of known variables as the head is told them, shape ``(object, variable)``; the others are not read.
            known: which are known, boolean, same shape.
            asked: which are asked.
        """
        ...


@dataclass(frozen=True)
class Predicted:
    """Channels that a head can predict.

    Attributes:
        names: ``survey.channel``.
        units: of each.
        unscaled: variables ``(..., channel)`` in the units of the channels.
        measured: which are known already, boolean, shape ``(object, channel)``; None: none.
    """

    names: tuple[str, ...]
    units: tuple[str, ...]
    unscaled: Callable[[Tensor], Tensor]
    measured: np.ndarray | None = None


def told(head: Any) -> KnownScores | None:
    """How a head is told parameters whose law depends on unknown ones; None: it cannot be."""
    found = getattr(head, "known", None)
    return found if isinstance(found, KnownScores) else None


def answers(posterior: "Posterior") -> bool:
    """Whether the head itself answers what is known: it is told each by a score that has a meaning."""
    if not isinstance(posterior.head, Answering) or (hasattr(posterior.head, "known") and told(posterior.head) is None):
        return False
    fixed = posterior.fixed
    return told(posterior.head) is not None or all(set(posterior.prior.parents(name)) <= set(fixed) for name in fixed)


def _possible(posterior: "Posterior") -> np.ndarray:
    """Whether what is known of each object can be, as far as that follows from what is known alone, shape ``(object,)``."""
    prior, n = posterior.prior, len(posterior)
    known = {k: np.broadcast_to(np.asarray(v, float), n) for k, v in posterior.fixed.items()}
    found = np.ones(n, bool)
    for name in known:
        if set(prior.parents(name)) <= set(known):
            found &= np.isfinite(prior.score(name, known))
    return found


def _variables(posterior: "Posterior", wanted: Sequence[str], channels: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Values, known and asked masks, each of shape ``(object, variable)``."""
    prior, predicted, fixed = posterior.prior, posterior.predicted, posterior.fixed
    names = [*prior.names, *(predicted.names if predicted else ())]
    n, scores = len(posterior), told(posterior.head)
    values = torch.zeros(n, len(names))
    known = {k: np.broadcast_to(np.asarray(v, float), n) for k, v in fixed.items()}
    for name in fixed:
        score = prior.score(name, known) if scores is None else scores.score(name, known[name])
        values[:, names.index(name)] = torch.from_numpy(np.where(np.isfinite(score), score, 0.0)).float()
    known_mask = torch.tensor([name in fixed for name in names]).expand(n, -1)
    asked_mask = torch.tensor([name in wanted or name in channels for name in names]).expand(n, -1)
    return values, known_mask, asked_mask & ~known_mask


def sample_asked(
    posterior: "Posterior", n: int, seed: int, wanted: Sequence[str], channels: Sequence[str]
) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Draws of parameters and channels by a head that answers.

    Args:
        posterior: whose.
        n: draws per object.
        seed: seed.
        wanted: parameters to draw, with all that they depend on.
        channels: channels to predict.

    Returns:
        By name, each of shape ``(object, draw)``; and where a known parameter bounds drawn ones (a mass its age) the effective sample size
        of what is left after draws outside the prior are rejected.
    """
    prior, head, predicted = posterior.prior, posterior.head, posterior.predicted
    assert isinstance(head, Answering)
    values, known, asked = _variables(posterior, wanted, channels)
    bound = [name for name in posterior.fixed if set(prior.parents(name)) & set(wanted) - set(posterior.fixed)]
    if bound:
        wanted = prior.with_ancestors([*wanted, *bound])
        values, known, asked = _variables(posterior, wanted, channels)
    count = SPARE * n if bound else n
    drawn = np.empty((len(posterior), count, values.shape[1]), np.float32)
    step = max(1, ROWS // count)
    with torch.inference_mode():
        for start in range(0, len(posterior), step):
            rows = slice(start, start + step)
            noise = torch.from_numpy(object_noise(posterior.ids[rows], count, head.asking_noise, seed))
            law = head.ask(posterior.context[rows], values[rows], known[rows], asked[rows])
            drawn[rows] = law.draw(noise).cpu().numpy()
    size = len(prior.names)
    fixed = {k: np.broadcast_to(np.asarray(v, float).reshape(-1, 1), (len(posterior), count)) for k, v in posterior.fixed.items()}
    found = prior.from_normal(drawn[..., :size], fixed, wanted)
    if predicted is not None and channels:
        scaled = predicted.unscaled(torch.from_numpy(drawn[..., size:])).numpy()
        found |= {name: scaled[..., predicted.names.index(name)].astype(float) for name in channels}
    impossible = ~_possible(posterior)
    if not bound and not impossible.any():
        return found, None
    outside = np.broadcast_to(impossible[:, None], (len(posterior), count)).copy()
    for name in bound:
        outside |= np.isnan(prior.score(name, found))
    chosen, ess = resample(np.where(outside, -np.inf, 0.0), n, posterior.ids, seed)
    kept = {k: np.where(ess[:, None] > 0, np.take_along_axis(v, chosen, axis=1), np.nan) for k, v in found.items()}
    return kept, ess


def asked_log_prob(posterior: "Posterior", theta: Mapping[str, np.ndarray], names: Sequence[str]) -> np.ndarray:
    """Log-density of some parameters given the known ones, in their own units.

    Args:
        posterior: whose.
        theta: the parameters, each of shape ``(object, draw)``.
        names: which are asked.

    Returns:
        Shape ``(object, draw)``; ``-inf`` outside the prior.

    Raises:
        SbiDaError: the law of one of them, or of a known one, depends on a parameter that is neither asked nor known.
    """
    prior, head = posterior.prior, posterior.head
    assert isinstance(head, Answering)
    held = set(posterior.fixed)
    for name in [*names, *held]:
        missing = [k for k in prior.parents(name) if k not in held | (set(names) if name in names else set())]
        if missing:
            raise SbiDaError(f"log_prob: the prior of {name} depends on {', '.join(missing)}: ask for them too, or give them")
    shape = np.shape(next(iter(theta.values())))
    values, known, asked = _variables(posterior, names, ())
    whole = {**theta, **{k: np.broadcast_to(np.asarray(v, float).reshape(-1, 1), shape) for k, v in posterior.fixed.items()}}
    scores = {name: prior.score(name, whole) for name in names}
    inside = np.all([np.isfinite(score) for score in scores.values()], axis=0)
    z = np.zeros((*shape, values.shape[1]), np.float32)
    density = np.zeros(shape)
    for name, score in scores.items():
        z[..., prior.names.index(name)] = np.where(inside, score, 0.0)
        with np.errstate(invalid="ignore"):
            density = density + prior.log_density_ratio(name, whole, np.where(inside, score, 0.0))
    step = max(1, ROWS // shape[1])
    with torch.inference_mode():
        for start in range(0, len(posterior), step):
            rows = slice(start, start + step)
            law = head.ask(posterior.context[rows], values[rows], known[rows], asked[rows])
            density[rows] += law.log_prob(torch.from_numpy(z[rows])).numpy()
    return np.where(inside & _possible(posterior)[:, None], density, -np.inf)
