"""Importance sampling: weights, and mixtures of Student kernels that propose (Cappe et al. 2004, J. Comput. Graph. Stat. 13, 907)."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.spatial import cKDTree
from scipy.special import gammaln, logsumexp

__all__ = ["StudentMixture", "effective", "kernels_about", "local_kernels", "low_ess", "normalised", "student_log_prob", "tempered"]

DEGREES = 5.0
LOCAL, SHARED = 300, 3
"""Number of local kernels, and how many of them a point is a neighbour of, on average."""
EVERY, WIDER = 5, 3.0
"""One of how many local kernels is wider, and by how much."""
KERNELS, WIDTH = 100, 0.35
"""Number of kernels, and their covariance as a share of that of the points."""


def student_log_prob(square: np.ndarray, log_det: np.ndarray | float, size: int) -> np.ndarray:
    """Log-density of a Student law.

    Args:
        square: squared distance from its centre in units of its scale.
        log_det: logarithm of the determinant of the root of its scale matrix.
        size: number of dimensions.
    """
    constant = gammaln((DEGREES + size) / 2) - gammaln(DEGREES / 2) - size / 2 * np.log(DEGREES * np.pi)
    return np.asarray(constant - log_det - (DEGREES + size) / 2 * np.log1p(square / DEGREES))


@dataclass(frozen=True)
class StudentMixture:
    """Student laws of equal weight.

    Attributes:
        centres: shape ``(kernel, dimension)``.
        roots: lower-triangular roots of the scale matrices, shape ``(kernel, dimension, dimension)``, or one for all.
    """

    centres: np.ndarray
    roots: np.ndarray

    def sample(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """``n`` draws, shape ``(n, dimension)``, as evenly from all kernels as can be."""
        count, size = self.centres.shape
        which = rng.permutation(np.arange(n) % count)
        student = rng.standard_normal((n, size)) / np.sqrt(rng.chisquare(DEGREES, (n, 1)) / DEGREES)
        roots = np.broadcast_to(self.roots, (count, size, size))[which]
        return self.centres[which] + np.einsum("nij,nj->ni", roots, student)

    def log_prob(self, u: np.ndarray) -> np.ndarray:
        """Log-density at ``u``, shape ``(n, dimension)``."""
        count, size = self.centres.shape
        inverse = np.broadcast_to(np.linalg.inv(self.roots), (count, size, size))
        square = np.stack([np.square((u - c) @ i.T).sum(1) for c, i in zip(self.centres, inverse, strict=True)], 1)
        log_det = np.log(np.diagonal(self.roots, axis1=-2, axis2=-1)).sum(-1)
        return np.asarray(logsumexp(student_log_prob(square, log_det, size), axis=1)) - np.log(count)


def kernels_about(u: np.ndarray, weight: np.ndarray, rng: np.random.Generator, width: float = WIDTH) -> StudentMixture:
    """Kernels about the points ``u``, shape ``(point, dimension)``, that carry the weight."""
    centres = u[rng.choice(len(u), KERNELS, p=weight)]
    about = u - weight @ u
    covariance = (about * weight[:, None]).T @ about
    floor = 1e-12 + 1e-6 * np.trace(covariance) / len(covariance)
    return StudentMixture(centres, np.linalg.cholesky(width * covariance + floor * np.eye(u.shape[1]))[None])


def local_kernels(u: np.ndarray, weight: np.ndarray, rng: np.random.Generator, kernels: int = LOCAL) -> StudentMixture:
    """Kernels about the points ``u``, shape ``(point, dimension)``, that carry the weight, each as wide as its neighbourhood.

    They follow what is bent or in several parts, where kernels of one shape for all would fill the space between. Some are wider, for
    points that do not reach as far as they should.
    """
    size = u.shape[1]
    points = u[np.unique(rng.choice(len(u), len(u), p=weight))]
    whiten = np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(points.T)) + 1e-12 * np.eye(size)))
    near = points @ whiten.T
    centres = rng.choice(len(points), min(kernels, len(points)), replace=False)
    about = min(len(points), max(5 * size, SHARED * len(points) // len(centres)))
    found = near[cKDTree(near).query(near[centres], about)[1]] - near[centres, None]
    spread = np.einsum("kni,knj->kij", found, found) / about
    floor = 1e-3 * np.trace(spread, axis1=1, axis2=2)[:, None, None] / size * np.eye(size) + 1e-9 * np.eye(size)
    width = np.where(np.arange(len(centres)) % EVERY, 1.0, WIDER)[:, None, None]
    return StudentMixture(points[centres], width * (np.linalg.inv(whiten) @ np.linalg.cholesky(spread + floor)))


def normalised(log_weight: np.ndarray, axis: int = -1) -> np.ndarray:
    """Weights that sum to one along an axis; equal ones where none is finite."""
    largest = log_weight.max(axis, keepdims=True)
    weight = np.where(np.isfinite(largest), np.exp(log_weight - np.where(np.isfinite(largest), largest, 0.0)), 1.0)
    return np.asarray(weight / weight.sum(axis, keepdims=True))


def effective(weight: np.ndarray, axis: int = -1) -> np.ndarray:
    """Effective sample size of normalised weights."""
    return np.asarray(1 / np.square(weight).sum(axis))


def low_ess(draws: int) -> float:
    """Effective sample size below which weighted draws are to be used with care."""
    return min(100, draws / 2)


def tempered(log_weight: np.ndarray, least: float) -> np.ndarray:
    """Normalised weights, shape ``(point,)``, raised to the largest power up to one that leaves an effective size of ``least``."""
    possible = np.isfinite(log_weight)
    if effective(normalised(log_weight)) >= least or possible.sum() <= least:
        return normalised(log_weight)
    largest = log_weight.max()
    scale = largest - log_weight[possible].min()  # of any size: what an error of 1e-9 leaves spans 1e18 and more
    relative = (log_weight - largest) / scale

    def excess(log_power: float) -> float:
        return float(effective(normalised(np.exp(log_power) * relative))) - least

    return normalised(np.exp(brentq(excess, np.log(1e-6 * min(1.0, scale)), np.log(scale), xtol=1e-6)) * relative)
