r"""Laws of data given parameters that simulations teach: mixtures of Gaussians about a mean.

.. math:: q(x\mid\theta) = \sum_k w_k\, N\bigl(\Lambda_k (x - m(\theta));\, s_k, 1\bigr)\,|\Lambda_k|

Either weights, roots of precisions and shifts come from a network of :math:`\theta` and the mean :math:`m` is linear
(:class:`VaryingScatter`), or they are the same for all :math:`\theta` and the network bends the mean (:class:`ConstantScatter`). All
components share the mean: where data scatter little, it has to be known far better than a network's layers round it.
"""

from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from sklearn.mixture import GaussianMixture
from torch import Tensor, nn

from sbi_da.artefact import read_artefact, write_artefact
from sbi_da.errors import ArtefactError
from sbi_da.gated import Residual
from sbi_da.posteriors.gaussian import Gaussian, GaussianLayer
from sbi_da.posteriors.mixture import LOG_TWO_PI, MixtureLaw

__all__ = ["ConstantScatter", "Emulator", "VaryingScatter"]

NARROWEST = 1e-9
"""Least variance of a component, of that of the data."""


class Emulator(nn.Module):
    """Draws data for parameters: a ``simulate`` for :class:`~sbi_da.from_sbi.SbiSimulator`.

    Args:
        parameters: how many.
        entries: of the data of one object.
        components: of the mixture.
        width: of the network.
        blocks: residual perceptrons.
        dropout: in training.
    """

    centre: Tensor
    scale: Tensor
    data_centre: Tensor
    data_scale: Tensor

    def __init__(
        self, parameters: int, entries: int, components: int = 1, width: int = 64, blocks: int = 3, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.width, self.blocks = width, blocks
        for name, size in (("", parameters), ("data_", entries)):
            self.register_buffer(f"{name}centre", torch.zeros(size))
            self.register_buffer(f"{name}scale", torch.ones(size))
        self.trunk = nn.Sequential(
            nn.Linear(parameters, width), *(Residual(width, 2 * width, dropout, gated=True) for _ in range(blocks)), nn.LayerNorm(width)
        )
        self.mean = nn.Linear(parameters, entries)

    @property
    def components(self) -> int:
        """Of the mixture."""
        raise NotImplementedError

    def standardised(self, theta: Tensor, x: Tensor) -> Self:
        """Itself, in units of simulations, with the plane through them as mean.

        Args:
            theta: parameters, shape ``(simulation, parameter)``.
            x: their data, shape ``(simulation, entry)``.
        """
        for centre, scale, values in ((self.centre, self.scale, theta), (self.data_centre, self.data_scale, x)):
            centre.copy_(values.mean(0))
            scale.copy_(values.std(0).clamp_min(1e-12))
        known = nn.functional.pad(self._known(theta), (0, 1), value=1.0)
        fitted = torch.linalg.lstsq(known.double(), self._seen(x).double()).solution  # double, so that rounding leaves no trace
        with torch.no_grad():
            self.mean.weight.copy_(fitted[:-1].mT)
            self.mean.bias.copy_(fitted[-1])
        return self

    def save(self, path: str | Path) -> Path:
        """Write a folder of two files; replaces an earlier emulator."""
        sizes = {
            "parameters": len(self.centre), "entries": len(self.data_centre), "components": self.components, "width": self.width,
            "blocks": self.blocks,
        }
        law = next(name for name, kind in _laws().items() if isinstance(self, kind))
        weights = {name: values.contiguous() for name, values in self.state_dict().items()}
        return write_artefact(path, {"law": law, "sizes": sizes}, weights, "emulator")

    @staticmethod
    def load(path: str | Path) -> "Emulator":
        """Read what :meth:`save` wrote.

        Raises:
            ArtefactError: missing, truncated, altered, or of another schema version; the message says what to do.
        """
        path = Path(path)
        content, weights = read_artefact(path, "emulator")
        try:
            found = _laws()[content["law"]](**content["sizes"])
            found.load_state_dict(load_file(weights))
        except (KeyError, TypeError, SafetensorError, RuntimeError) as error:
            raise ArtefactError(f"{path}: cannot be read ({' '.join(str(error).split())}): learn it again") from error
        return found.eval()

    def _known(self, theta: Tensor) -> Tensor:
        return (theta - self.centre) / self.scale

    def _seen(self, x: Tensor) -> Tensor:
        return (x - self.data_centre) / self.data_scale

    def law(self, theta: Tensor) -> MixtureLaw:
        """The law of standardised data, for parameters ``(object, parameter)``."""
        raise NotImplementedError

    def log_likelihood(self, theta: Tensor, x: Tensor) -> Tensor:
        """Log-density of what was seen, in the data's units, shape ``(object,)``.

        Args:
            theta: shape ``(object, parameter)``.
            x: shape ``(object, entry)``, or ``(entry,)`` for all objects; NaN is not seen, and integrated out.
        """
        seen = torch.isfinite(x)
        scaled = torch.where(seen, self._seen(torch.where(seen, x, 0.0)), 0.0).expand(len(theta), -1)
        units = torch.where(seen, self.data_scale.log(), 0.0).sum(-1)
        if seen.all():
            return self.law(theta).log_prob(scaled) - units
        found = scaled.new_zeros(len(theta))
        for rows, there in _alike(seen, len(theta)):
            law = self.law(theta[rows])
            found[rows] = law.given(scaled[rows], torch.zeros_like(there), there).log_prob(scaled[rows])
        return found + 0.5 * LOG_TWO_PI * (~seen).sum(-1) - units

    def forward(self, theta: Tensor) -> Tensor:
        """Data for parameters ``(object, parameter)``, shape ``(object, entry)``; torch's global generator draws them."""
        return self._drawn(self.law(theta), len(theta))

    def complete(self, theta: Tensor, x: Tensor) -> Tensor:
        """Data with what was not seen drawn given the rest; arguments as of :meth:`log_likelihood`, random numbers as of a call."""
        seen = torch.isfinite(x).expand(len(theta), -1)
        filled = torch.where(seen, x, 0.0)
        for rows, there in _alike(seen, len(theta)):
            if not there.all():
                law = self.law(theta[rows]).given(self._seen(filled[rows]), there, ~there)
                filled[rows] = torch.where(there, filled[rows], self._drawn(law, len(filled[rows])))
        return filled

    def _drawn(self, law: MixtureLaw, count: int) -> Tensor:
        noise = torch.randn(count, 1, 1 + len(self.data_centre), device=self.data_centre.device)
        return law.draw(noise)[:, 0] * self.data_scale + self.data_centre


def _laws() -> dict[str, type[Emulator]]:
    return {"varying_scatter": VaryingScatter, "constant_scatter": ConstantScatter}


def _alike(seen: Tensor, count: int) -> list[tuple[Any, Tensor]]:
    """Rows that saw the same entries, and these, shape ``(1, entry)``."""
    if seen.ndim == 1:
        return [(slice(count), seen[None])]
    patterns, which = torch.unique(seen, dim=0, return_inverse=True)
    return [(torch.nonzero(which == i)[:, 0], patterns[i, None]) for i in range(len(patterns))]


class VaryingScatter(Emulator):
    """Scatter that depends on the parameters, about a linear mean; arguments as of :class:`Emulator`."""

    def __init__(self, parameters: int, entries: int, components: int = 1, **options: Any) -> None:
        super().__init__(parameters, entries, components, **options)
        self.weights = nn.Linear(self.width, components)
        self.each = GaussianLayer(entries, self.width, self.width, components)
        self.start = nn.Parameter(0.5 * torch.randn(components, entries) * (components > 1))

    @property
    def components(self) -> int:  # noqa: D102
        return self.weights.out_features

    def law(self, theta: Tensor) -> MixtureLaw:  # noqa: D102
        known = self._known(theta)
        h = self.trunk(known)
        each = self.each(h)
        shift = torch.linalg.solve_triangular(each.root, (each.location + self.start)[..., None], upper=False)[..., 0]
        components = Gaussian(self.mean(known)[..., None, :] + shift, each.root, each.log_det)
        return MixtureLaw(self.weights(h).log_softmax(-1), components)


class ConstantScatter(Emulator):
    """Scatter that is the same for all parameters, about a mean that a network bends; arguments as of :class:`Emulator`."""

    def __init__(self, parameters: int, entries: int, components: int = 1, **options: Any) -> None:
        super().__init__(parameters, entries, components, **options)
        self.bend = nn.Linear(self.width, entries)
        nn.init.zeros_(self.bend.weight)
        nn.init.zeros_(self.bend.bias)
        self.log_weights = nn.Parameter(torch.zeros(components))
        self.shifts = nn.Parameter(torch.zeros(components, entries))
        self.log_scales = nn.Parameter(torch.zeros(components, entries))
        self.below = nn.Parameter(torch.zeros(components, entries, entries))

    @property
    def components(self) -> int:  # noqa: D102
        return len(self.shifts)

    def standardised(self, theta: Tensor, x: Tensor) -> Self:  # noqa: D102
        return super().standardised(theta, x).scattered(theta, x, self.components)

    def _mean(self, theta: Tensor) -> Tensor:
        known = self._known(theta)
        mean: Tensor = self.mean(known) + self.bend(self.trunk(known))
        return mean

    def scattered(self, theta: Tensor, x: Tensor, components: int) -> Self:
        """Itself, with a mixture that is fitted to what simulations scatter about the mean as it is now."""
        with torch.no_grad():
            away = (self._seen(x) - self._mean(theta)).double().numpy()
        seed = int(torch.randint(2**31, (1,)))
        mixture = GaussianMixture(components, reg_covar=NARROWEST, random_state=seed).fit(away)
        root = torch.linalg.inv(torch.linalg.cholesky(torch.from_numpy(mixture.covariances_)))
        scale = root.diagonal(dim1=-2, dim2=-1)
        found = {
            "log_weights": torch.from_numpy(mixture.weights_).log(), "shifts": torch.from_numpy(mixture.means_),
            "log_scales": scale.log(), "below": (root / scale[..., None]).tril(-1),
        }
        for name, values in found.items():
            self.register_parameter(name, nn.Parameter(values.float().contiguous()))
        return self

    def law(self, theta: Tensor) -> MixtureLaw:  # noqa: D102
        unit = self.below.tril(-1) + torch.eye(self.below.shape[-1], device=self.below.device)
        root = self.log_scales.exp()[..., None] * unit
        components = Gaussian(self._mean(theta)[:, None] + self.shifts, root[None], self.log_scales.sum(-1)[None])
        return MixtureLaw(self.log_weights.log_softmax(-1)[None], components)
