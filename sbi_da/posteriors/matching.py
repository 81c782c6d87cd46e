r"""Flow matching (Lipman et al. 2023, arXiv 2210.02747; for posteriors Wildberger et al. 2023, arXiv 2305.17161).

In the units of a Gaussian that the context or the measurements give, a draw :math:`u` is reached from noise :math:`\varepsilon` on a
straight line,

.. math:: x_t = \bigl(1 - (1-\sigma_{\min})t\bigr)\,\varepsilon + t\,u,\qquad \dot x_t = u - (1-\sigma_{\min})\,\varepsilon,

and a network learns the mean of :math:`\dot x_t` given :math:`x_t`, with times of density :math:`\propto t^a`, and a share of them with
what is left of the noise log-uniform: where a narrow mode lies is learned at times when no more is left than it is wide. Were the posterior
that Gaussian, this mean would be linear in :math:`x_t`: the network learns what remains, in units of its spread, and begins as zero.
Draws are the velocity's integral from noise; the density is that of the noise they come from, less the integral of the divergence.

With questions, a training object has some of its variables known, some asked and the others left out (Gloeckler et al. 2024, arXiv
2404.09636), so that one network answers any conditional of any marginal.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from sbi_da.posteriors.gaussian import Gaussian, GaussianLayer, JointGaussian, StandardNormal
from sbi_da.posteriors.known import KnownScores
from sbi_da.posteriors.solvers import integrate
from sbi_da.posteriors.told import Told
from sbi_da.posteriors.velocity import Memory, VelocityTransformer

__all__ = ["FlowMatchingHead"]

LOG_TWO_PI = math.log(2 * math.pi)
LEFT = 0.005
"""Of the noise, at the latest of the times that are log-uniform in it."""


class FlowMatchingHead(nn.Module):
    """Conditional law over normal scores, and over channels if it is to predict them.

    Args:
        parameters: number of parameters.
        told: what it is told of an object.
        channels: number of scalar channels that are variables too.
        width: of tokens.
        layers: of the velocity transformer.
        heads: of attention.
        tokens: that the context is read as.
        hidden: width of the hidden layer that gives the Gaussian.
        dropout: in the velocity transformer, in training.
        time_exponent: a of the law of times.
        late: share of times that have another law instead, what is left of the noise being log-uniform.
        sigma_min: width that is left of the noise.
        repeats: times and noises per training object.
        solver: ``midpoint``, ``rk4`` or ``dopri5``.
        steps: of the solvers of fixed step.
        gaussian: in whose units it works: one that is learned of the ``context``, one ``linear`` in the measurements, or ``none``, in
            normal scores.
        gated: whether hidden units of the velocity transformer are products.
        known: how it is told known parameters; None: it answers no questions.
    """

    def __init__(
        self, parameters: int, told: Told, channels: int = 0, width: int = 64, layers: int = 3, heads: int = 4, tokens: int = 4,
        hidden: int = 128, dropout: float = 0.0, time_exponent: float = 0.0, late: float = 0.5, sigma_min: float = 1e-3, repeats: int = 1,
        solver: str = "midpoint", steps: int = 16, gaussian: str = "context", gated: bool = False, known: KnownScores | None = None,
    ) -> None:
        super().__init__()
        self.row, self.known = told, known
        self.parameters_count, self.variables = parameters, parameters + channels
        self.noise_size, self.asking_noise = parameters, self.variables
        self.gaussian: GaussianLayer | JointGaussian | StandardNormal = StandardNormal(self.variables)
        if gaussian == "context":
            self.gaussian = GaussianLayer(self.variables, told.context, hidden)
        elif gaussian == "linear":
            self.gaussian = JointGaussian(parameters, told.channels)
        self.velocity = VelocityTransformer(self.variables, told, width, layers, heads, tokens, dropout=dropout, gated=gated)
        self.time_exponent, self.late, self.sigma_min, self.repeats = time_exponent, late, sigma_min, repeats
        self.solver, self.steps = solver, steps

    def losses(
        self, values: Tensor, context: Tensor, known: Tensor | None = None, asked: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """What is minimised: the error of the velocity, and the negative log-density of the Gaussian, per asked variable.

        Args:
            values: shape ``(object, question, variable)``; one question, or as many as times and noises are drawn.
            context: shape ``(object, context)``.
            known: which variables are known, boolean, same shape as values; None: none.
            asked: which are asked; None: all.
            generator: of times and noises.

        Returns:
            Shape ``(object,)``.
        """
        at = None if known is None or asked is None else (values, known, asked)
        law = self._units(context[:, None], at)
        share = torch.ones_like(values) if asked is None else asked.to(values.dtype)
        count = share.sum(-1, keepdim=True).clamp_min(1)
        scaled = law.whiten(values)
        if asked is not None:
            scaled = torch.where(asked, scaled, 0.0)
        u = scaled.detach()
        n, draws = len(values), self.repeats
        time = torch.rand(n, draws, generator=generator, device=values.device)
        if generator is not None or not self.training:  # one time in each of as many intervals: less scatter
            time = (torch.arange(draws, device=values.device) + time) / draws
        time = self._times(time)
        noise = torch.randn(n, draws, values.shape[-1], generator=generator, device=values.device)
        left = (1 - (1 - self.sigma_min) * time)[..., None]
        x = left * noise + time[..., None] * u
        aim = u - (1 - self.sigma_min) * noise
        found = self._velocity(x, time, self.velocity.remember(context), at)
        error = ((found - aim).square() * share / count).sum(-1).mean(1)
        if not isinstance(self.gaussian, GaussianLayer):
            return error
        rough = 0.5 * scaled.square().sum(-1) - law.log_det
        return error + (rough / count[..., 0]).mean(1)

    def _times(self, uniform: Tensor) -> Tensor:
        """Times of uniform numbers: below ``late``, what is left of the noise is log-uniform."""
        late, exponent = self.late, 1 / (1 + self.time_exponent)
        last = 1 - LEFT ** (uniform / max(late, 1e-6))
        return torch.where(uniform < late, last, ((uniform - late).clamp_min(0) / max(1 - late, 1e-6)) ** exponent)

    def fit(self, z: Tensor, measured: Tensor, seen: Tensor) -> None:
        """Settle what is not trained; arguments as of :meth:`sbi_da.posteriors.gaussian.JointGaussian.fit`."""
        if isinstance(self.gaussian, JointGaussian):
            self.gaussian.fit(z, measured, seen)

    def _units(self, row: Tensor, at: tuple[Tensor, Tensor, Tensor] | None) -> Gaussian:
        """The Gaussian of asked variables in whose units the flow works."""
        if isinstance(self.gaussian, JointGaussian):
            return self.gaussian(*self.row.measured(row), at)
        law = self.gaussian(self.row.fused(row))
        return law.given(*at) if at is not None and isinstance(self.gaussian, GaussianLayer) else law

    def told(self, z: Tensor) -> Tensor:
        """How parameters of normal scores ``(..., parameter)`` are told if they are known, same shape."""
        return z if self.known is None else self.known.of_normal(z)

    def _velocity(self, x: Tensor, time: Tensor, memory: Memory, at: tuple[Tensor, Tensor, Tensor] | None) -> Tensor:
        """Velocity of ``x`` ``(object, draw, variable)`` at times ``(object or 1, draw or 1)``; ``at``: values, known and asked."""
        keep = 1 - self.sigma_min
        t, left = time[..., None], 1 - keep * time[..., None]
        spread = t.square() + left.square()
        slope = (t - keep * left) / spread
        scale = (1 + keep**2 - slope.square() * spread).sqrt()
        scaled = x / spread.sqrt()
        if at is None:
            return slope * x + scale * self.velocity(scaled, time, memory)
        values, known, asked = at
        seen = torch.where(known, values, torch.where(asked, scaled, 0.0))
        found = slope * x + scale * self.velocity(seen, time, memory, known, asked)
        return torch.where(asked, found, 0.0)

    def ask(self, context: Tensor, values: Tensor, known: Tensor, asked: Tensor) -> "FlowLaw":
        """The law of asked variables; arguments as of :meth:`sbi_da.posteriors.asking.Answering.ask`."""
        at = values[:, None], known[:, None], asked[:, None]
        return FlowLaw(self, self._units(context[:, None], at), self.velocity.remember(context), at)

    def transform(self, noise: Tensor, context: Tensor) -> Tensor:
        """Map standard normal ``noise``, shape ``(..., parameter)``, to draws; leading dimensions broadcast with the contexts'."""
        arranged, own, shape = _arranged(noise[..., : self.parameters_count], context)
        return self._all(own).draw(self._wide(arranged))[..., : self.parameters_count].reshape(shape)

    def noise(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """The standard normal noise that :meth:`transform` maps to ``z``, and the log-determinant of that map's inverse."""
        arranged, own, shape = _arranged(z, context)
        noise, log_det = self._all(own).noise(self._wide(arranged))
        return noise[..., : self.parameters_count].reshape(shape), log_det.reshape(shape[:-1])

    def log_prob(self, z: Tensor, context: Tensor) -> Tensor:
        """Log-density of ``z``, shape ``(..., parameter)``, given contexts ``(..., context)``; leading dimensions broadcast."""
        noise, log_det = self.noise(z, context)
        return log_det - 0.5 * noise.square().sum(-1) - 0.5 * self.parameters_count * LOG_TWO_PI

    def _all(self, context: Tensor) -> "FlowLaw":
        """The law of all parameters, nothing known."""
        if self.variables == self.parameters_count:
            return FlowLaw(self, self._units(context[:, None], None), self.velocity.remember(context), None)
        shape = (len(context), self.variables)
        asked = (torch.arange(self.variables, device=context.device) < self.parameters_count).expand(shape)
        return self.ask(context, context.new_zeros(shape), torch.zeros_like(asked), asked)

    def _wide(self, x: Tensor) -> Tensor:
        """Parameters and, for channels that are not asked, zeros."""
        return nn.functional.pad(x, (0, self.variables - x.shape[-1]))


class FlowLaw:
    """Laws of a batch of objects, encoded once.

    Args:
        head: whose they are.
        gaussian: whose units the flow works in.
        memory: of the encoded objects.
        at: values, known and asked variables, each of shape ``(object, 1, variable)``; None: all are asked.
    """

    def __init__(self, head: FlowMatchingHead, gaussian: Gaussian, memory: Memory, at: tuple[Tensor, Tensor, Tensor] | None) -> None:
        self.head, self.gaussian, self.memory, self.at = head, gaussian, memory, at

    def _rate(self, time: Tensor, x: Tensor) -> Tensor:
        return self.head._velocity(x, time.reshape(1, 1), self.memory, self.at)

    def draw(self, noise: Tensor, solver: str | None = None, steps: int | None = None) -> Tensor:
        """Standard normal noise ``(object, draw, variable)`` to draws of the asked variables; the others are as known, or zero."""
        head = self.head
        if self.at is not None:
            noise = torch.where(self.at[2], noise, 0.0)
        u = integrate(self._rate, noise, 0.0, 1.0, solver or head.solver, steps or head.steps)
        drawn = self.gaussian.colour(u)
        return drawn if self.at is None else torch.where(self.at[2], drawn, torch.where(self.at[1], self.at[0], 0.0))

    def noise(self, z: Tensor, solver: str | None = None, steps: int | None = None) -> tuple[Tensor, Tensor]:
        """The noise that :meth:`draw` maps to ``z``, and the log-determinant of that map's inverse, shape ``(object, draw)``."""
        u = self.gaussian.whiten(z)
        if self.at is not None:
            u = torch.where(self.at[2], u, 0.0)
        directions = torch.eye(u.shape[-1], dtype=u.dtype, device=u.device)

        outer: Any = (None, 0)

        def rate(time: Tensor, state: Tensor) -> Tensor:
            x = state[..., :-1]

            def along(direction: Tensor) -> tuple[Tensor, Tensor]:
                found: Any = torch.func.jvp(lambda y: self._rate(time, y), (x,), (direction.expand_as(x),))
                return found[0], (found[1] * direction).sum(-1)

            velocity, changes = torch.func.vmap(along, out_dims=outer)(directions)
            return torch.cat([velocity, changes.sum(0)[..., None]], dim=-1)

        head = self.head
        state = nn.functional.pad(u, (0, 1))
        start = integrate(rate, state, 1.0, 0.0, solver or head.solver, steps or head.steps)
        return start[..., :-1], self.gaussian.log_det + start[..., -1]

    def log_prob(self, z: Tensor, solver: str | None = None, steps: int | None = None) -> Tensor:
        """Log-density of the asked variables of ``z`` ``(object, draw, variable)``, shape ``(object, draw)``."""
        noise, log_det = self.noise(z, solver, steps)
        count = z.shape[-1] if self.at is None else self.at[2].sum(-1)
        return log_det - 0.5 * noise.square().sum(-1) - 0.5 * count * LOG_TWO_PI


def _arranged(x: Tensor, context: Tensor) -> tuple[Tensor, Tensor, torch.Size]:
    """Values as ``(object, draw, parameter)``, contexts as ``(object, context)``, and the shape to give back."""
    leading = torch.broadcast_shapes(x.shape[:-1], context.shape[:-1])
    shape = torch.Size((*leading, x.shape[-1]))
    if x.ndim == 3 and context.ndim == 3 and context.shape[1] == 1:
        return x.expand(shape), context[:, 0].expand(leading[0], -1), shape
    return x.expand(shape).reshape(-1, 1, x.shape[-1]), context.expand(*leading, -1).reshape(-1, context.shape[-1]), shape
