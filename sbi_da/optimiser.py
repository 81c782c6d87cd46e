"""Optimisers; by default Muon for the matrices of the hidden layers, AdamW for everything else.

Muon (Jordan et al. 2024, by torch) orthogonalises the momentum of a weight matrix before it steps, so that directions with
small gradients are followed as fast as the others. A posterior that photometry confines to a thin, curved sheet is mostly
such directions. Its steps are scaled to the size of AdamW's (``match_rms_adamw``), so one learning rate serves both.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import SGD, AdamW, Muon, Optimizer

__all__ = ["MuonAdamW", "OptimiserKind", "optimiser"]

OptimiserKind = Literal["muon", "adamw", "sgd"]

SMALLEST = 16
"""Matrices narrower than this are left to AdamW: there is little to orthogonalise."""


class MuonAdamW(Optimizer):
    """Both, as the single optimiser that Lightning and learning-rate schedules expect.

    Args:
        module: what is trained.
        lr: learning rate of both.
        weight_decay: of both, decoupled.
    """

    def __init__(self, module: nn.Module, lr: float, weight_decay: float = 0.0) -> None:
        parameters = [p for p in module.parameters() if p.requires_grad]
        hidden = [p for p in parameters if p.ndim == 2 and min(p.shape) >= SMALLEST]
        chosen = {id(p) for p in hidden}
        rest = [p for p in parameters if id(p) not in chosen]
        self.parts: list[Optimizer] = []
        super().__init__(parameters, {"lr": lr})
        if hidden:
            self.parts.append(Muon(hidden, lr=lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw"))
        if rest:
            self.parts.append(AdamW(rest, lr=lr, weight_decay=weight_decay))
        self._share_groups()

    def _share_groups(self) -> None:
        """The groups are those of the parts: a schedule that sets a rate here sets it there."""
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of each part, after ``closure`` has computed the gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """States of the parts."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Inverse of :meth:`state_dict`."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self._share_groups()


def optimiser(kind: OptimiserKind, module: nn.Module, lr: float, weight_decay: float) -> Optimizer:
    """An optimiser of what is trained of a module.

    Args:
        kind: ``muon`` (with AdamW, see above), ``adamw``, or ``sgd`` with Nesterov momentum 0.9.
        module: what is trained.
        lr: learning rate.
        weight_decay: of all parameters.
    """
    if kind == "muon":
        return MuonAdamW(module, lr, weight_decay)
    parameters = [p for p in module.parameters() if p.requires_grad]
    if kind == "adamw":
        return AdamW(parameters, lr=lr, weight_decay=weight_decay)
    return SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=0.9, nesterov=True)
