r"""The posterior of the fractions of votes: for every question a Dirichlet law of what infinitely many volunteers would answer.

With concentrations :math:`\alpha` of sum :math:`A`, the expected fraction of answer :math:`k` is :math:`\alpha_k / A`, its law by itself
:math:`\mathrm{Beta}(\alpha_k, A - \alpha_k)`. Of :math:`N` volunteers' votes the number of answer :math:`k` is beta-binomial: wider, as
so few votes scatter.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy.special import betaincinv

from sbi_da.errors import SbiDaError, UnknownNameError
from sbi_da.posteriors.noise import object_generator
from sbi_da.posteriors.votes import dirichlet_multinomial

__all__ = ["VotePosterior"]

QUANTILES = (0.05, 0.16, 0.5, 0.84, 0.95)


@dataclass(frozen=True)
class VotePosterior:
    """Laws of the fractions of votes of a set of objects.

    Attributes:
        ids: identifiers, shape ``(object,)``; an object's draws depend on its identifier and the seed only.
        questions: names of the answers of each, by name.
        concentrations: by question, positive, shape ``(object, answer)``.

    Raises:
        SbiDaError: shapes that do not fit, or concentrations that are not positive and finite.
    """

    ids: np.ndarray
    questions: Mapping[str, tuple[str, ...]]
    concentrations: Mapping[str, np.ndarray]

    def __post_init__(self) -> None:
        held = {name: np.asarray(self.concentrations[name], float) for name in self.questions}
        for name, answers in self.questions.items():
            if held[name].shape != (len(self.ids), len(answers)):
                raise SbiDaError(
                    f"{name}: a posterior of votes of {len(self.ids)} objects on {len(answers)} answers needs concentrations of that "
                    f"shape, got {held[name].shape}"
                )
            if not (held[name] > 0).all() or not np.isfinite(held[name]).all():
                raise SbiDaError(f"{name}: concentrations are not positive and finite: look at the inputs of those objects")
        object.__setattr__(self, "concentrations", held)

    def __len__(self) -> int:
        return len(self.ids)

    def fractions(self, question: str) -> xr.DataArray:
        """Expected fractions of votes on a question, dimensions ``(object, answer)``.

        Raises:
            UnknownNameError: no such question.
        """
        alpha = self._of(question)
        return self._array(question, alpha / alpha.sum(1, keepdims=True), "fraction")

    def quantiles(self, question: str, levels: tuple[float, ...] = QUANTILES) -> xr.DataArray:
        """Quantiles of the fractions, of each answer by itself, dimensions ``(quantile, object, answer)``."""
        alpha = self._of(question)
        values = betaincinv(alpha, alpha.sum(1, keepdims=True) - alpha, np.array(levels)[:, None, None])
        coords = {"quantile": list(levels), "object": self.ids, "answer": list(self.questions[question])}
        return xr.DataArray(values, dims=("quantile", "object", "answer"), coords=coords, name="quantiles")

    def log_prob(self, votes: Mapping[str, np.ndarray]) -> xr.DataArray:
        """Log-probability of votes, questions that are not given left out.

        Args:
            votes: by question, counts of shape ``(object, answer)``; a row of zeros was not asked and has probability one.

        Raises:
            SbiDaError: counts that are negative or of another shape.
            UnknownNameError: no such question.
        """
        total = np.zeros(len(self))
        for name, counts in votes.items():
            alpha, counts = self._of(name), np.asarray(counts, float)
            if counts.shape != alpha.shape or not (counts >= 0).all():
                raise SbiDaError(f"{name}: votes must be counts of shape {alpha.shape}, got shape {counts.shape}")
            total += dirichlet_multinomial(torch.from_numpy(counts), torch.from_numpy(alpha)).numpy()
        return xr.DataArray(total, dims="object", coords={"object": self.ids}, name="log_prob")

    def sample(self, n: int = 1000, seed: int = 0) -> xr.Dataset:
        """Draw fractions of votes.

        Returns:
            One variable for each question, dimensions ``(object, draw, <question>_answer)``; every draw sums to one over the answers.

        Raises:
            SbiDaError: fewer draws than one.
        """
        if n < 1:
            raise SbiDaError(f"draws must be at least 1, not {n}")
        out = xr.Dataset(coords={"object": self.ids, "draw": np.arange(n)}, attrs={"seed": seed})
        drawn = {name: np.empty((len(self), n, len(answers))) for name, answers in self.questions.items()}
        for i, identifier in enumerate(self.ids.tolist()):
            generator = object_generator(identifier, seed)
            for name in self.questions:
                drawn[name][i] = generator.dirichlet(self.concentrations[name][i], n)
        for name, answers in self.questions.items():
            out[name] = (("object", "draw", f"{name}_answer"), drawn[name])
            out.coords[f"{name}_answer"] = list(answers)
        return out

    def given(self, **fixed: Any) -> "VotePosterior":
        """Refused: questions are independent given the object.

        Raises:
            SbiDaError: always.
        """
        raise SbiDaError(f"cannot hold {', '.join(fixed) or 'nothing'} fixed: answers to questions are independent of each other here")

    def summary(self) -> xr.Dataset:
        """Of each question the answer expected to lead, expected fractions and their quantiles."""
        out = xr.Dataset(coords={"object": self.ids, "quantile": list(QUANTILES)})
        for name, answers in self.questions.items():
            best = self._of(name).argmax(1)
            place = {"answer": f"{name}_answer"}
            out[name] = ("object", np.array(answers, dtype=np.str_)[best])
            out[f"{name}_fraction"] = self.fractions(name).rename(place)
            out[f"{name}_quantiles"] = self.quantiles(name).rename(place)
        return out

    def columns(self) -> dict[str, np.ndarray]:
        """The same as columns of a table, shape ``(object,)`` each.

        Returns:
            For each question its leading answer ``<question>``, and of every answer the mean, standard deviation and 5, 16, 50, 84, 95 %
            quantiles of its fraction, ``<question>_<answer>_mean``, ``_sd``, ``_q05`` ...
        """
        found: dict[str, np.ndarray] = {}
        for name, answers in self.questions.items():
            alpha = self._of(name)
            total = alpha.sum(1, keepdims=True)
            mean = alpha / total
            sd, quantiles = np.sqrt(mean * (1 - mean) / (total + 1)), self.quantiles(name).values
            found[name] = np.array(answers, dtype=np.str_)[alpha.argmax(1)]
            for k, answer in enumerate(answers):
                found |= {f"{name}_{answer}_mean": mean[:, k], f"{name}_{answer}_sd": sd[:, k]}
                found |= {f"{name}_{answer}_q{round(100 * q):02d}": row[:, k] for q, row in zip(QUANTILES, quantiles, strict=True)}
        return found

    def _of(self, question: str) -> np.ndarray:
        if question not in self.questions:
            raise UnknownNameError("question", question, list(self.questions))
        return self.concentrations[question]

    def _array(self, question: str, values: np.ndarray, name: str) -> xr.DataArray:
        coords = {"object": self.ids, "answer": list(self.questions[question])}
        return xr.DataArray(values, dims=("object", "answer"), coords=coords, name=name)
