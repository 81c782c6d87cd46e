r"""Losses of an unbalanced classification, and what they do to its probabilities.

Class weights, for :math:`n_k` training objects of class :math:`k` out of :math:`N` in :math:`K` classes:

- effective number (Cui et al. 2019, arXiv 1901.05555): :math:`(1 - \beta) / (1 - \beta^{n_k})`, rescaled to mean one;
- inverse frequency: :math:`N / (K n_k)`.

The focal loss (Lin et al. 2017, arXiv 1708.02002) is :math:`\mathrm{mean}\; a_y (1 - p_y)^\gamma (-\log p_y)`; at :math:`\gamma = 0`
it is the weighted cross-entropy.

Neither leaves :math:`p` a posterior. Its minimiser :math:`v`, for an object whose classes have probabilities :math:`\eta`, obeys

.. math:: a_k\, \eta_k \propto h(v_k), \qquad h(v) = \frac{v}{(1 - v)^\gamma - \gamma (1 - v)^{\gamma - 1} v \log v},

from the stationary point of :math:`\sum_k \eta_k a_k (1 - v_k)^\gamma (-\log v_k)` on the simplex (for equal weights: Charoenphakdee
et al. 2021, arXiv 2011.09172). So :math:`\eta_k \propto h(v_k) / a_k` undoes both: ``unfocused`` is the map by :math:`h`,
``log_weight_correction`` the division. This is exact for a network flexible and trained enough to reach the minimiser for every object.
One that is not has spent its flexibility where the weights told it to, and one stopped early lies in between: calibrate afterwards
(:mod:`sbi_da.posteriors.temperature`).
"""

import numpy as np
import torch
from torch import Tensor

from sbi_da.errors import SbiDaError

__all__ = [
    "effective_number_weights", "focal_loss", "focal_losses", "initial_logit_scale", "inverse_frequency_weights", "log_weight_correction",
    "unfocused",
]


def effective_number_weights(counts: np.ndarray, beta: float = 0.9999) -> np.ndarray:
    """Weights by effective number, of mean one.

    Args:
        counts: training objects of each class, shape ``(class,)``.
        beta: in [0, 1): 0 weighs all classes alike, close to 1 by inverse frequency.

    Raises:
        SbiDaError: a class without objects, or a beta outside [0, 1).
    """
    if not 0 <= beta < 1:
        raise SbiDaError(f"effective-number weights need beta in [0, 1), got {beta:g}")
    weights = (1 - beta) / -np.expm1(_counts(counts) * np.log(beta)) if beta else np.ones(len(_counts(counts)))
    return weights / weights.mean()


def inverse_frequency_weights(counts: np.ndarray) -> np.ndarray:
    """Weights by inverse frequency, of mean one over the objects; shape ``(class,)``.

    Raises:
        SbiDaError: a class without objects.
    """
    counts = _counts(counts)
    return counts.sum() / (len(counts) * counts)


def initial_logit_scale(counts: np.ndarray, damped: bool = True) -> np.ndarray:
    """Where a learnable scale of each class's logit starts: :math:`s = (n_max / n_k)^{1/2}`, which is 1 for the commonest class.

    Args:
        counts: training objects of each class, shape ``(class,)``.
        damped: half way between 1 and s, as galaxy-da's paper has it; its code has s itself.

    Raises:
        SbiDaError: a class without objects.
    """
    counts = _counts(counts)
    scale = np.sqrt(counts.max() / counts)
    return 1 + (scale - 1) / 2 if damped else scale


def focal_losses(
    logits: Tensor, codes: Tensor, weights: Tensor | None = None, gamma: float = 2.0, smoothing: float = 0.0
) -> Tensor:
    """Focal loss of each object [nats], shape ``(n,)``.

    Args:
        logits: shape ``(n, class)``.
        codes: integer classes, shape ``(n,)``.
        weights: of the classes, shape ``(class,)``; None: one.
        gamma: how little objects count that are right already; 0 for cross-entropy.
        smoothing: share of a label that is spread over all classes, each of which then has a focal loss of its own.

    Raises:
        SbiDaError: a negative gamma.
    """
    if not gamma >= 0:
        raise SbiDaError(f"focal loss: gamma must not be negative, got {gamma:g}")
    log_all = logits.log_softmax(-1)
    classes = logits.shape[-1]
    loss = -log_all
    if gamma:
        # 1 - p as the sum over the others: of 1 - exp(log p) nothing is left where p is almost one.
        itself = torch.eye(classes, dtype=torch.bool, device=logits.device)
        others = log_all[:, None].expand(-1, classes, -1).masked_fill(itself, -torch.inf).exp().sum(-1)
        loss = loss * others.clamp_min(torch.finfo(others.dtype).tiny) ** gamma
    own = loss.gather(-1, codes[:, None])[:, 0]
    if smoothing:
        own = (1 - smoothing) * own + smoothing * loss.mean(-1)
    return own if weights is None else own * weights.to(loss)[codes]


def focal_loss(logits: Tensor, codes: Tensor, weights: Tensor | None = None, gamma: float = 2.0) -> Tensor:
    """Mean of :func:`focal_losses` over a batch; zero of an empty one."""
    loss = focal_losses(logits, codes, weights, gamma)
    return loss.mean() if len(loss) else 0.0 * logits.sum()


def unfocused(log_probabilities: Tensor, gamma: float | Tensor = 2.0) -> Tensor:
    """Outputs of a network trained by focal loss as (weighted) posterior probabilities.

    Args:
        log_probabilities: log-softmax of its logits, shape ``(n, class)``.
        gamma: of the loss; 0 changes nothing.

    Returns:
        Log-probabilities, shape ``(n, class)``, float64 inside.
    """
    log_v = log_probabilities.double().clamp_min(-1e300)  # a probability of zero stays one, without infinities less infinities
    classes = log_v.shape[-1]
    itself = torch.eye(classes, dtype=torch.bool, device=log_v.device)
    others = log_v[:, None].expand(-1, classes, -1).masked_fill(itself, -torch.inf).logsumexp(-1)
    others = others.clamp(-1e300, 0.0)  # log(1 - v), exact where v is almost one
    surprise = torch.where(log_v < -0.5, -log_v, -torch.log1p(-others.exp().clamp_max(0.5)))
    # The denominator of h is (1 - v)^gamma (1 + gamma v (-log v) / (1 - v)), of which the last quotient tends to one as v does.
    ratio = torch.where(others < -30, 1.0, surprise / others.exp().clamp_min(1e-30))
    log_h = log_v - gamma * others - torch.log1p(gamma * log_v.exp() * ratio)
    return log_h.log_softmax(-1).to(log_probabilities.dtype)


def log_weight_correction(weights: np.ndarray | Tensor) -> Tensor:
    """What to add to log-probabilities, before they are normalised again, so that class weights of the loss are undone.

    Args:
        weights: that multiplied the loss of each class, or the factors by which its objects were drawn more often, shape ``(class,)``.

    Raises:
        SbiDaError: a weight that is not positive.
    """
    weights = torch.as_tensor(weights, dtype=torch.float64)
    if not bool((weights > 0).all()) or not bool(torch.isfinite(weights).all()):
        raise SbiDaError(f"class weights must be positive and finite to be undone, got {weights.tolist()}")
    return (weights.log().mean() - weights.log()).float()


def _counts(counts: np.ndarray) -> np.ndarray:
    """Positive counts as floats."""
    counts = np.asarray(counts, float)
    if counts.ndim != 1 or not counts.size or not (counts > 0).all():
        raise SbiDaError(f"every class needs training objects, got counts {counts.tolist()}: add some or drop the class")
    return counts
