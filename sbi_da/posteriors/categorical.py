r"""The categorical posterior: a context to the probabilities of classes.

.. math:: p_k(c) \propto \exp\left( \frac{\log u_k(c) + b_k}{T} + d_k \right), \qquad u = \Psi_\gamma(\mathrm{softmax}(s \odot f(c))),

with logits :math:`f` (a linear layer, or two with a ReLU and dropout between), a learnable scale :math:`s` of each class, and what
undoes the training: :math:`\Psi_\gamma` of the focal loss, :math:`b` of the class weights (:mod:`sbi_da.posteriors.class_losses`),
and a temperature :math:`T` and biases :math:`d` (:mod:`sbi_da.posteriors.temperature`). The latter four do nothing until they are
set, after the training.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sbi_da.errors import SbiDaError
from sbi_da.posteriors.class_losses import unfocused
from sbi_da.posteriors.perceptron import perceptron

__all__ = ["CategoricalHead"]


class CategoricalHead(nn.Module):
    """Law over class codes given a context.

    Args:
        classes: number of them.
        context: width of the context.
        hidden: width of the hidden layer, or of several; None: none.
        dropout: probability at which a hidden unit (without hidden layer, a feature of the context) is dropped in training.
        logit_scale: whether each class's logit has a learnable scale.

    Raises:
        SbiDaError: fewer than two classes, a width below one, or a dropout outside [0, 1).
    """

    log_prior_correction: Tensor
    temperature: Tensor
    bias: Tensor
    gamma: Tensor

    def __init__(
        self, classes: int, context: int, hidden: int | Sequence[int] | None = None, dropout: float = 0.0, logit_scale: bool = False
    ) -> None:
        super().__init__()
        widths = () if hidden is None else (hidden,) if isinstance(hidden, int) else tuple(hidden)
        if classes < 2 or context < 1 or min(widths, default=1) < 1 or not 0 <= dropout < 1:
            raise SbiDaError(
                "a categorical head needs two classes, widths of one and a dropout in [0, 1), got "
                f"{classes=}, {context=}, {hidden=}, {dropout=}"
            )
        self.classes = classes
        self.layers = perceptron(context, classes, widths, dropout)
        self.scale = nn.Parameter(torch.ones(classes)) if logit_scale else None
        self.register_buffer("log_prior_correction", torch.zeros(classes))
        self.register_buffer("temperature", torch.ones(()))
        self.register_buffer("bias", torch.zeros(classes))
        self.register_buffer("gamma", torch.zeros(()))

    def logits(self, context: Tensor) -> Tensor:
        """Raw logits, for training; context ``(n, context)`` to ``(n, class)``."""
        logits = self.layers(context)
        return logits if self.scale is None else self.scale * logits

    def corrected(self, logits: Tensor) -> Tensor:
        """Log-probabilities with the training's weights and focus undone, not calibrated; what a calibration is fitted to."""
        log_p = logits.log_softmax(-1)
        if float(self.gamma):
            log_p = unfocused(log_p, self.gamma)
        return (log_p + self.log_prior_correction).log_softmax(-1)

    def log_probabilities(self, context: Tensor) -> Tensor:
        """Corrected and calibrated log-probabilities, shape ``(n, class)``."""
        return (self.corrected(self.logits(context)) / self.temperature + self.bias).log_softmax(-1)

    def probabilities(self, context: Tensor) -> Tensor:
        """Corrected and calibrated probabilities, shape ``(n, class)``."""
        return self.log_probabilities(context).exp()

    def log_prob(self, code: Tensor, context: Tensor) -> Tensor:
        """Log-probability of classes ``(n,)``, corrected and calibrated; shape ``(n,)``."""
        return self.log_probabilities(context).gather(-1, code[:, None])[:, 0]

    def forward(self, context: Tensor) -> Tensor:
        """Raw logits; see :meth:`logits`."""
        return self.logits(context)

    def start_scale(self, scale: Tensor) -> None:
        """Where the scales of the logits start, shape ``(class,)``.

        Raises:
            SbiDaError: a head without scales.
        """
        if self.scale is None:
            raise SbiDaError("this categorical head has no logit scale: build it with logit_scale=True")
        with torch.no_grad():
            self.scale.copy_(scale)

    def correct(
        self,
        log_prior_correction: Tensor | None = None,
        gamma: float | None = None,
        temperature: float | None = None,
        bias: Tensor | None = None,
    ) -> None:
        """Set what undoes the training, and the calibration; None leaves as it is.

        Args:
            log_prior_correction: of :func:`~sbi_da.posteriors.class_losses.log_weight_correction`, shape ``(class,)``.
            gamma: of the focal loss that was trained with.
            temperature: T.
            bias: d, shape ``(class,)``.

        Raises:
            SbiDaError: a temperature that is not positive or a negative gamma.
        """
        if (temperature is not None and not temperature > 0) or (gamma is not None and not gamma >= 0):
            raise SbiDaError(f"a temperature is positive and gamma not negative, got {temperature=}, {gamma=}")
        given = {"log_prior_correction": log_prior_correction, "gamma": gamma, "temperature": temperature, "bias": bias}
        for name, value in given.items():
            if value is not None:
                getattr(self, name).copy_(torch.as_tensor(value))
