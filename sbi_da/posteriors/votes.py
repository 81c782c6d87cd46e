r"""Targets that are not one class: votes of volunteers on a question, and labels of which an object may have several.

Of :math:`N` volunteers, :math:`n_k` gave answer :math:`k`. If the probabilities of the answers follow a Dirichlet law with
concentrations :math:`\alpha`, the counts follow the Dirichlet-multinomial (as for Galaxy Zoo: Walmsley et al. 2020, arXiv 1905.07424;
2022, arXiv 2102.08414)

.. math:: P(n \mid \alpha) = \frac{N!\,\Gamma(A)}{\Gamma(N + A)} \prod_k \frac{\Gamma(n_k + \alpha_k)}{n_k!\,\Gamma(\alpha_k)},
    \qquad A = \sum_k \alpha_k.

A question nobody was asked has probability one and teaches nothing. Concentrations come from logits by
:math:`\alpha = \alpha_0 + \mathrm{softplus}(l)`. The mean answer is :math:`\alpha / A`; the larger :math:`A`, the better it is known.

Labels that do not exclude each other are independent Bernoulli variables, with probabilities :math:`\sigma(l)`.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from sbi_da.errors import SbiDaError

__all__ = ["concentrations", "dirichlet_multinomial", "logits_of", "multilabel", "question_log_probs", "vote_log_prob"]

LEAST = 0.01
"""Least concentration: an answer that is never given stays possible."""


def concentrations(logits: Tensor) -> Tensor:
    """Concentrations of logits, shape of ``logits``."""
    return LEAST + softplus(logits)


def logits_of(concentration: Tensor) -> Tensor:
    """Inverse of :func:`concentrations`."""
    excess = (concentration - LEAST).clamp_min(1e-6)
    return excess + torch.log(-torch.expm1(-excess))


def dirichlet_multinomial(counts: Tensor, concentration: Tensor) -> Tensor:
    """Log-probability of counts.

    Args:
        counts: votes, not negative, shape ``(..., answer)``.
        concentration: positive, shape ``(..., answer)``.

    Returns:
        Shape ``(...)``; zero, with zero gradient, where there are no votes.
    """
    total, strength = counts.sum(-1), concentration.sum(-1)
    ways = torch.lgamma(total + 1) - torch.lgamma(counts + 1).sum(-1)
    drawn = (torch.lgamma(counts + concentration) - torch.lgamma(concentration)).sum(-1)
    return ways + torch.lgamma(strength) - torch.lgamma(total + strength) + drawn


def vote_log_prob(counts: Tensor, logits: Tensor, questions: Sequence[int] | None = None) -> Tensor:
    """Log-probability of the votes on one or several questions, which are independent given the object.

    Args:
        counts: votes of each answer, shape ``(n, answer)``; a question none of whose answers has votes was not asked.
        logits: shape ``(n, answer)``.
        questions: number of answers of each question, in the order of the columns; None: one question.

    Returns:
        Shape ``(n,)``.

    Raises:
        SbiDaError: numbers of answers that do not add up to the columns, or counts that do not fit.
    """
    sizes = [logits.shape[-1]] if questions is None else list(questions)
    if counts.shape != logits.shape or sum(sizes) != logits.shape[-1] or min(sizes) < 2:
        raise SbiDaError(
            f"votes: counts and logits need one column for each answer of questions with {sizes} answers (two or more each), got "
            f"shapes {tuple(counts.shape)} and {tuple(logits.shape)}"
        )
    return question_log_probs(counts.to(logits), concentrations(logits), sizes).sum(-1)


def question_log_probs(counts: Tensor, concentration: Tensor, sizes: Sequence[int]) -> Tensor:
    """Log-probability of the votes on each question.

    Args:
        counts: votes, shape ``(n, answer)``, the answers of all questions in a row.
        concentration: positive, same shape.
        sizes: number of answers of each question.

    Returns:
        Shape ``(n, question)``; zero where nobody was asked.
    """
    parts = zip(counts.split(list(sizes), -1), concentration.split(list(sizes), -1), strict=True)
    return torch.stack([dirichlet_multinomial(n, alpha) for n, alpha in parts], -1)


def multilabel(labels: Tensor, logits: Tensor) -> Tensor:
    """Log-probability of labels of which any number may hold.

    Args:
        labels: 1 where a label holds, 0 where not, between for a fraction of votes, negative where unknown; shape ``(n, label)``.
        logits: shape ``(n, label)``.

    Returns:
        Shape ``(n,)``: the sum over the known labels.

    Raises:
        SbiDaError: shapes that do not fit.
    """
    if labels.shape != logits.shape:
        raise SbiDaError(f"labels and logits must have one shape, got {tuple(labels.shape)} and {tuple(logits.shape)}")
    y = labels.to(logits)
    terms = y * logsigmoid(logits) + (1 - y) * logsigmoid(-logits)
    return torch.where(y >= 0, terms, torch.zeros_like(terms)).sum(-1)
