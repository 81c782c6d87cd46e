r"""The prior of votes: for each question a Dirichlet law of the probabilities of its answers, the same for every object.

Its concentrations maximise the Dirichlet-multinomial likelihood (:mod:`sbi_da.posteriors.votes`) of the training objects' votes, so
that it is what one can say of an object without looking at it: base rates, and how far objects differ from them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import digamma

from sbi_da.errors import SbiDaError, UnknownNameError
from sbi_da.posteriors.votes import LEAST, dirichlet_multinomial

__all__ = ["VotePrior", "vote_column"]

STRONGEST = 1e4
"""Largest concentration: objects that all have the same probabilities do not determine it."""


def vote_column(question: str, answer: str) -> str:
    """What records call the votes for an answer."""
    return f"{question}_votes_{answer}"


@dataclass(frozen=True)
class VotePrior:
    """Laws of the answers to some questions where an estimator is trained.

    Attributes:
        questions: names of the answers of each, by name.
        concentrations: of the answers of all questions in a row, positive.
        objects: how many training objects have votes.
    """

    questions: Mapping[str, tuple[str, ...]]
    concentrations: tuple[float, ...]
    objects: int

    def __post_init__(self) -> None:
        for name, answers in self.questions.items():
            if len(answers) < 2 or len(set(answers)) != len(answers):
                raise SbiDaError(f"{name}: needs two or more different answers, not {', '.join(answers) or 'none'}")
        if len(self.concentrations) != sum(self.sizes) or not all(c > 0 for c in self.concentrations):
            raise SbiDaError(f"votes need one positive concentration an answer, not {list(self.concentrations)}")

    @classmethod
    def of_votes(cls, questions: Mapping[str, tuple[str, ...]], votes: Mapping[str, np.ndarray]) -> "VotePrior":
        """Fitted to votes.

        Args:
            questions: names of the answers of each, by name.
            votes: by :func:`vote_column`, each of shape ``(object,)``, NaN where a question was not asked.

        Raises:
            SbiDaError: votes that are negative, or a question without any.
        """
        counts = _counts(questions, votes)
        found: list[float] = []
        for name, own in _split(questions, counts).items():
            asked = own[own.sum(-1) > 0]
            if not len(asked):
                raise SbiDaError(f"{name}: no training object has votes: leave the question out")
            found += _most_likely(asked).tolist()
        return cls(dict(questions), tuple(found), int((counts.sum(-1) > 0).sum()))

    @property
    def names(self) -> list[str]:
        """The questions."""
        return list(self.questions)

    @property
    def columns(self) -> list[str]:
        """What records must hold: the votes for every answer."""
        return [vote_column(name, answer) for name, answers in self.questions.items() for answer in answers]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of answers of each question."""
        return tuple(len(answers) for answers in self.questions.values())

    def bounds(self, name: str) -> tuple[float, float]:
        """Of a fraction of votes."""
        if name not in self.questions:
            raise UnknownNameError("question", name, self.names)
        return 0.0, 1.0

    def to_normal(self, theta: Mapping[str, np.ndarray]) -> np.ndarray:
        """Votes of all answers in a row, shape ``(object, answer)``: zeros of a question not asked, NaN of objects without any vote."""
        counts = _counts(self.questions, theta)
        return np.where(counts.sum(-1, keepdims=True) > 0, counts, np.nan)

    def by_question(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Numbers of all answers in a row, shape ``(..., answer)``, by question."""
        return _split(self.questions, values)

    def log_prob(self, theta: Mapping[str, np.ndarray]) -> np.ndarray:
        """Log-probability of the votes on all questions, shape ``(object,)``."""
        counts, alpha = _counts(self.questions, theta), np.array(self.concentrations)
        parts = zip(_split(self.questions, counts).values(), _split(self.questions, alpha).values(), strict=True)
        return np.sum([dirichlet_multinomial(torch.from_numpy(n), torch.from_numpy(a)).numpy() for n, a in parts], axis=0)

    def to_dict(self) -> dict[str, Any]:
        """Plain content, for JSON."""
        questions = {name: list(answers) for name, answers in self.questions.items()}
        return {"questions": questions, "concentrations": list(self.concentrations), "objects": self.objects}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "VotePrior":
        """Inverse of :meth:`to_dict`."""
        questions = {name: tuple(answers) for name, answers in content["questions"].items()}
        return cls(questions, tuple(content["concentrations"]), content["objects"])


def _counts(questions: Mapping[str, tuple[str, ...]], votes: Mapping[str, np.ndarray]) -> np.ndarray:
    """Votes of all answers in a row, shape ``(object, answer)``; a question with a null was not asked."""
    parts = []
    for name, answers in questions.items():
        own = np.stack([np.asarray(votes[vote_column(name, answer)], float) for answer in answers], -1)
        if (own < 0).any() or np.isinf(own).any():
            raise SbiDaError(f"{name}: votes must be counts, not {own[(own < 0) | np.isinf(own)][0]:g}: leave them empty where unknown")
        parts.append(np.where(np.isnan(own).any(-1, keepdims=True), 0.0, own))
    return np.concatenate(parts, -1)


def _split(questions: Mapping[str, tuple[str, ...]], values: np.ndarray) -> dict[str, np.ndarray]:
    ends = np.cumsum([len(answers) for answers in questions.values()])[:-1]
    return dict(zip(questions, np.split(values, ends, axis=-1), strict=True))


def _most_likely(counts: np.ndarray) -> np.ndarray:
    """Concentrations that maximise the likelihood of counts ``(object, answer)``, shape ``(answer,)``."""
    total = counts.sum(1)

    def loss(log_alpha: np.ndarray) -> tuple[float, np.ndarray]:
        alpha = np.exp(log_alpha)
        value = dirichlet_multinomial(torch.from_numpy(counts), torch.from_numpy(alpha)).mean()
        slope = (digamma(counts + alpha) - digamma(alpha)).mean(0) + (digamma(alpha.sum()) - digamma(total + alpha.sum())).mean()
        return -float(value), -alpha * slope

    shares = counts.sum(0) / counts.sum()
    start = np.log(np.clip(5 * shares, LEAST, None))
    bounds = [(np.log(LEAST), np.log(STRONGEST))] * counts.shape[1]
    return np.exp(minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 1000}).x)
