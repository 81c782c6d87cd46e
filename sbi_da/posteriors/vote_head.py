r"""The posterior of votes: a context to a Dirichlet law over the probabilities of the answers to each question.

.. math:: \alpha_k(c) = s_q \,(\alpha_0 + \mathrm{softplus}(f_k(c))),

with :math:`f` a perceptron and the likelihood of :mod:`sbi_da.posteriors.votes`. Trained on counts, it separates what two numbers of
volunteers leave open from what the image does: ten votes of ten say less than forty of forty. The strengths :math:`s_q` are one until
they are fitted to held-out objects, as a temperature is: a network that has learned its objects by heart is too sure of all others,
which a factor below one mends and the mean fractions do not feel.
"""

import math
from collections.abc import Sequence

import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from sbi_da.errors import SbiDaError
from sbi_da.posteriors.perceptron import perceptron, start_biases
from sbi_da.posteriors.votes import concentrations, logits_of, question_log_probs

__all__ = ["VoteHead"]

WEAKEST, STRONGEST = 0.02, 50.0
"""Bounds of the fitted strengths."""


class VoteHead(nn.Module):
    """Law over vote counts given a context.

    Args:
        sizes: number of answers of each question.
        context: width of the context.
        hidden: widths of hidden layers.
        dropout: probability at which a unit before the last layer is dropped in training.

    Raises:
        SbiDaError: no question, or one with fewer than two answers.
    """

    strength: Tensor
    question: Tensor

    def __init__(self, sizes: Sequence[int], context: int, hidden: Sequence[int] = (), dropout: float = 0.0) -> None:
        super().__init__()
        if min(sizes, default=0) < 2:
            raise SbiDaError(f"votes need questions of two answers or more, got {list(sizes)}")
        self.sizes = tuple(sizes)
        self.layers = perceptron(context, sum(sizes), hidden, dropout)
        self.register_buffer("strength", torch.ones(len(self.sizes)))
        question = torch.arange(len(self.sizes)).repeat_interleave(torch.tensor(self.sizes))
        self.register_buffer("question", question, persistent=False)

    def concentrations(self, context: Tensor) -> Tensor:
        """Concentrations of the answers of all questions in a row, shape ``(n, answer)``."""
        return concentrations(self.layers(context)) * self.strength[self.question]

    def log_prob(self, counts: Tensor, context: Tensor) -> Tensor:
        """Log-probability of votes ``(n, answer)``, zero of a question that nobody was asked; shape ``(n,)``."""
        return question_log_probs(counts, self.concentrations(context), self.sizes).sum(-1)

    def start(self, concentration: Tensor) -> None:
        """Let the training start near a law that sees no object, of shape ``(answer,)``."""
        start_biases(self.layers, logits_of(concentration))

    def calibrate(self, counts: Tensor, context: Tensor) -> None:
        """Fit the strengths to the votes of objects that took no part in the training; those of unasked questions stay."""
        with torch.inference_mode():
            plain = concentrations(self.layers(context)).double()
            for q, (n, alpha) in enumerate(zip(counts.double().split(self.sizes, -1), plain.split(self.sizes, -1), strict=True)):
                asked = n.sum(-1) > 0
                if asked.any():
                    self.strength[q] = _strength(n[asked], alpha[asked])


def _strength(counts: Tensor, alpha: Tensor) -> float:
    """The most probable factor on concentrations of one question, under a standard normal prior of its logarithm."""

    def loss(log_s: float) -> float:
        log_p = question_log_probs(counts, alpha * math.exp(log_s), [counts.shape[-1]])
        return float(-log_p.sum()) + 0.5 * log_s**2

    bounds = (math.log(WEAKEST), math.log(STRONGEST))
    return math.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x)
