"""How far features lie from those of simulated objects: Mahalanobis distances, one Gaussian for each kind of feature."""

import torch
from torch import Tensor, nn

__all__ = ["Familiarity"]

RIDGE = 1e-3
"""Added to the correlation matrix of features."""


class Familiarity(nn.Module):
    """A Gaussian of the fused context, and one of the token of each survey.

    Args:
        context: width of the context.
        surveys: how many there are.
        width: of a token.
    """

    context_mean: Tensor
    context_root: Tensor
    token_mean: Tensor
    token_root: Tensor

    def __init__(self, context: int, surveys: int, width: int) -> None:
        super().__init__()
        self.register_buffer("context_mean", torch.zeros(context))
        self.register_buffer("context_root", torch.eye(context))
        self.register_buffer("token_mean", torch.zeros(surveys, width))
        self.register_buffer("token_root", torch.eye(width).repeat(surveys, 1, 1))

    def fit(self, context: Tensor, tokens: Tensor, present: Tensor) -> None:
        """Take means and covariances from simulated objects; shapes as of :meth:`forward`."""
        self.context_mean, self.context_root = _gaussian(context)
        for k in range(tokens.shape[1]):
            if int(present[:, k].sum()) > 2 * tokens.shape[2]:
                self.token_mean[k], self.token_root[k] = _gaussian(tokens[present[:, k], k])

    def forward(self, context: Tensor, tokens: Tensor) -> Tensor:
        """Squared distances of contexts ``(object, context)`` and tokens ``(object, survey, width)``, shape ``(object, 1 + survey)``."""
        whole = ((context - self.context_mean) @ self.context_root).square().sum(-1, keepdim=True)
        away = torch.einsum("osw,swv->osv", tokens - self.token_mean, self.token_root)
        return torch.cat([whole, away.square().sum(-1)], dim=1)


def _gaussian(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean, and the matrix that makes features uncorrelated, of unit variance."""
    x = x.double()
    mean, scale = x.mean(0), x.std(0).clamp_min(1e-6)
    y = (x - mean) / scale
    values, vectors = torch.linalg.eigh(y.mT @ y / len(y) + RIDGE * torch.eye(y.shape[1]))
    return mean.float(), (vectors / values.sqrt() / scale[:, None]).float()
