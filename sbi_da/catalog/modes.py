"""The densest of an object's draws."""

import numpy as np
import torch

__all__ = ["densest"]

RIDGE = 1e-4
"""Added to the correlation matrix, so that draws in a plane are an ordinary case."""

AT_ONCE = 40
"""Objects whose pairs of draws are compared at a time, when each has a hundred: few enough to stay in cache."""
MOST = 1000
"""Draws of an object that are compared with one another: the effort grows with their square."""


def densest(theta: np.ndarray) -> np.ndarray:
    """Which draw has the highest density, by a Gaussian kernel estimate with the draws' own covariance.

    Args:
        theta: draws, shape ``(object, draw, parameter)``.

    Returns:
        Shape ``(object,)``. The bandwidth is Scott's (1992, Multivariate Density Estimation).
    """
    theta = theta[:, :MOST]
    _, draws, size = theta.shape
    step = max(1, AT_ONCE * 100**2 // draws**2)
    spread = theta.std(1, keepdims=True)
    standard = np.divide(theta - theta.mean(1, keepdims=True), spread, out=np.zeros_like(theta), where=spread > 0)
    scores = torch.from_numpy(standard).float()
    root = torch.linalg.cholesky(scores.mT @ scores / draws + RIDGE * torch.eye(size))
    white = torch.linalg.solve_triangular(root, scores.mT, upper=False).mT * draws ** (1 / (size + 4))
    kernel = torch.empty(scores.shape[:2])
    for start in range(0, len(white), step):
        some = white[start : start + step]
        half = -0.5 * some.square().sum(-1)
        exponent = torch.baddbmm(half[:, None, :] + half[:, :, None], some, some.mT)
        kernel[start : start + step] = exponent.clamp_max_(0).exp_().sum(-1)
    return kernel.argmax(1).numpy()
