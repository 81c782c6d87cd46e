r"""Mixture density (Bishop 1994, Aston University NCRG/94/004): Gaussians with full covariances given the context.

.. math:: q(z\mid x) = |\Lambda| \sum_k w_k\, N(\Lambda(z - \mu); m_k, C_k)

in the units of a Gaussian of the context, like the other heads. One evaluation gives the whole law, so that draws cost next to nothing,
and its conditionals and marginals are mixtures again.
"""

import math

import torch
from torch import Tensor, nn

from sbi_da.posteriors.gaussian import Gaussian, GaussianLayer

__all__ = ["MixtureHead", "MixtureLaw"]

LOG_TWO_PI = math.log(2 * math.pi)
SPREAD = 0.5
"""Standard deviation of the components' locations before training, so that they differ."""


class MixtureLaw:
    """Mixtures of a batch, in normal scores.

    Args:
        log_weights: of the components, normalised, shape ``(..., component)``.
        components: their Gaussians, of shape ``(..., component, variable)``.
    """

    def __init__(self, log_weights: Tensor, components: Gaussian) -> None:
        self.log_weights, self.components = log_weights, components

    def log_prob(self, z: Tensor) -> Tensor:
        """Log-density of ``z``, shape ``(..., variable)``; leading dimensions broadcast."""
        return torch.logsumexp(self.log_weights + self._each(z), dim=-1)

    def _each(self, z: Tensor) -> Tensor:
        u = self.components.whiten(z[..., None, :])
        return self.components.log_det - 0.5 * u.square().sum(-1) - 0.5 * u.shape[-1] * LOG_TWO_PI

    def draw(self, noise: Tensor) -> Tensor:
        """Draws from standard normal noise of shape ``(..., draw, 1 + variable)``, of which the first chooses the component."""
        levels = self.log_weights.exp().cumsum(-1)
        share = torch.special.ndtr(noise[..., 0])
        chosen = torch.searchsorted(levels.expand(*share.shape[:-1], levels.shape[-1]).contiguous(), share.contiguous())
        chosen = chosen.clamp_max(levels.shape[-1] - 1)
        size = noise.shape[-1] - 1
        inverse = torch.linalg.solve_triangular(
            self.components.root, torch.eye(size, device=noise.device).expand_as(self.components.root), upper=False
        )
        leading = (*share.shape[:-1], levels.shape[-1])
        location = self.components.location.expand(*leading, size)
        spread = inverse.expand(*leading, size, size).flatten(-2)
        place = location.gather(-2, chosen[..., None].expand(*chosen.shape, size))
        root = spread.gather(-2, chosen[..., None].expand(*chosen.shape, size * size)).unflatten(-1, (size, size))
        return place + torch.einsum("...ij,...j->...i", root, noise[..., 1:])

    def for_draws(self) -> "MixtureLaw":
        """The same with a dimension for draws after that of the objects."""
        each = self.components
        return MixtureLaw(self.log_weights[:, None], Gaussian(each.location[:, None], each.root[:, None], each.log_det[:, None]))

    def given(self, z: Tensor, known: Tensor, asked: Tensor) -> "MixtureLaw":
        """The law of asked variables; the others are independent standard normals in it.

        Args:
            z: values of the known variables, shape ``(..., variable)``.
            known: which are known, boolean, same shape.
            asked: which are asked; the rest is integrated out.
        """
        z, known, asked = z[..., None, :], known[..., None, :], asked[..., None, :]
        held = self.components.given(z, torch.zeros_like(known), known)
        u = torch.where(known, held.whiten(z), 0.0)
        evidence = held.log_det - 0.5 * u.square().sum(-1)
        return MixtureLaw((self.log_weights + evidence).log_softmax(-1), self.components.given(z, known, asked))


class _Answer:
    """What a mixture says of the asked variables of a batch; the others are as known."""

    def __init__(self, law: MixtureLaw, values: Tensor, known: Tensor, asked: Tensor) -> None:
        self.law, self.values, self.known, self.asked = law, values[:, None], known[:, None], asked[:, None]

    def draw(self, noise: Tensor) -> Tensor:
        drawn = self.law.draw(noise)
        return torch.where(self.asked, drawn, torch.where(self.known, self.values, 0.0))

    def log_prob(self, z: Tensor) -> Tensor:
        others = (~self.asked).sum(-1)
        return self.law.for_draws().log_prob(torch.where(self.asked, z, 0.0)) + 0.5 * others * LOG_TWO_PI


class MixtureHead(nn.Module):
    """Conditional law over normal scores.

    Args:
        parameters: number of parameters.
        context: width of the context.
        components: how many.
        hidden: widths of hidden layers.
    """

    def __init__(self, parameters: int, context: int, components: int = 8, hidden: tuple[int, ...] = (128, 128)) -> None:
        super().__init__()
        self.parameters_count, self.components = parameters, components
        self.noise_size = self.asking_noise = 1 + parameters
        self.gaussian = GaussianLayer(parameters, context, hidden[-1])
        widths = (context, *hidden)
        layers = [part for a, b in zip(widths, hidden, strict=False) for part in (nn.Linear(a, b), nn.SiLU())]
        self.trunk = nn.Sequential(*layers)
        self.weights = nn.Linear(hidden[-1], components)
        self.each = GaussianLayer(parameters, hidden[-1], hidden[-1], components)
        self.start = nn.Parameter(SPREAD * torch.randn(components, parameters))
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)

    def law(self, context: Tensor) -> MixtureLaw:
        """The law of contexts ``(..., context)``."""
        whole = self.gaussian(context)
        h = self.trunk(context)
        each = self.each(h)
        outer, place = whole.root[..., None, :, :], each.location + self.start
        location = whole.location[..., None, :] + torch.linalg.solve_triangular(outer, place[..., None], upper=False)[..., 0]
        components = Gaussian(location, each.root @ outer, each.log_det + whole.log_det[..., None])
        return MixtureLaw(self.weights(h).log_softmax(-1), components)

    def ask(self, context: Tensor, values: Tensor, known: Tensor, asked: Tensor) -> _Answer:
        """The law of asked variables; arguments as of :meth:`sbi_da.posteriors.asking.Answering.ask`."""
        return _Answer(self.law(context).given(values, known, asked), values, known, asked)

    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """Log-density of ``z``, shape ``(..., parameter)``, given contexts ``(..., context)``; leading dimensions broadcast."""
        return self.law(context).log_prob(z)

    def transform(self, noise: Tensor, context: Tensor) -> Tensor:
        """Map standard normal noise, shape ``(..., 1 + parameter)``, to draws; leading dimensions broadcast with the contexts'."""
        if context.ndim > 1 and context.ndim == noise.ndim and context.shape[-2] == 1:  # one law for all draws of an object
            return self.law(context[..., 0, :]).draw(noise)
        leading = torch.broadcast_shapes(noise.shape[:-1], context.shape[:-1])
        law = self.law(context.expand(*leading, -1))
        return law.draw(noise.expand(*leading, -1)[..., None, :])[..., 0, :]
