r"""Ratios from draws alone: a Gaussian mixture for each member's marginal, fitted to its draws.

Where the parameters a member has for itself lie on a thin curved sheet (distance is shared; age, metallicity, mass and extinction are
not), no simple law proposes them, and the integral of :mod:`sbi_da.cluster.ratios` fails; the marginal itself is smooth. A mixture is
fitted by EM in the coordinates of the shared prior, where that prior is N(0, I). :data:`FLOOR` of the prior is added: draws say nothing
of values so improbable that none of them lies there.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import logsumexp, ndtr, ndtri
from scipy.stats import norm, qmc

from sbi_da.cluster.shared_prior import SharedPrior

__all__ = ["Mixtures", "PartFits"]

COMPONENTS, STEPS, PARTS = 6, 40, 4
"""Components of a mixture, steps of its fit, and parts of the draws whose fits tell how uncertain it is."""
FLOOR, RIDGE, NODES = 1e-3, 1e-3, 32
"""Share of the prior, least variance as a share of a member's, and values about a shared one that has a spread."""
BLOCK = 2_000_000


@dataclass(frozen=True)
class Mixtures:
    """One Gaussian mixture for each member.

    Attributes:
        log_share: of the components, shape ``(member, component)``.
        mean: shape ``(member, component, dimension)``.
        precision_root: upper-triangular R with precision R R^T, shape ``(member, component, dimension, dimension)``.
    """

    log_share: np.ndarray
    mean: np.ndarray
    precision_root: np.ndarray

    @classmethod
    def fit(cls, draws: np.ndarray) -> "Mixtures":
        """Fit to draws, shape ``(member, draw, dimension)``."""
        step = max(1, BLOCK // (draws.shape[1] * COMPONENTS))
        parts = [_fit(draws[start : start + step]) for start in range(0, len(draws), step)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("log_share", "mean", "precision_root")))

    def log_components(self, u: np.ndarray) -> np.ndarray:
        """Log of share times density of each component at ``u``, shape ``(member, point, dimension)``."""
        found = np.empty((*np.broadcast_shapes((len(self.mean), 1), u.shape[:2]), self.mean.shape[1]))
        for k in range(found.shape[-1]):
            noise = (u - self.mean[:, None, k]) @ self.precision_root[:, k]
            log_det = np.log(np.diagonal(self.precision_root[:, k], axis1=-2, axis2=-1)).sum(-1)
            constant = log_det + self.log_share[:, k] - 0.5 * u.shape[-1] * np.log(2 * np.pi)
            found[..., k] = constant[:, None] - 0.5 * np.square(noise).sum(-1)
        return found

    def log_prob(self, u: np.ndarray) -> np.ndarray:
        """Log-density at ``u``, shape ``(member or 1, point, dimension)``, with the floor; shape ``(member, point)``."""
        own = np.asarray(logsumexp(self.log_components(u), axis=-1))
        return np.logaddexp(np.log1p(-FLOOR) + own, np.log(FLOOR) + norm.logpdf(u).sum(-1))

    def log_ratio(self, shared: SharedPrior, spread: dict[str, float], u: np.ndarray) -> np.ndarray:
        """Log p(phi | x) / p(phi) at points ``u``, shape ``(point, dimension)``; with a spread, its mean about the points."""
        if not spread:
            return self.log_prob(u[None]) - norm.logpdf(u).sum(-1)
        phi = shared.coordinates.from_normal(u)
        levels = qmc.Sobol(len(spread), rng=np.random.default_rng(0)).random(NODES).clip(1e-9, 1 - 1e-9)
        own = {k: np.repeat(v[:, None], NODES, axis=1) for k, v in phi.items()}
        for j, (name, sd) in enumerate(spread.items()):
            low, high = (ndtr((bound - own[name]) / sd) for bound in shared.prior.bounds(name))
            own[name] = np.clip(own[name] + sd * ndtri(low + levels[:, j] * (high - low)), *shared.prior.bounds(name))
        v = shared.coordinates.to_normal(own).reshape(1, -1, u.shape[1])
        ratio = np.where(np.isnan(v).any(-1), -np.inf, self.log_prob(np.nan_to_num(v)) - norm.logpdf(np.nan_to_num(v)).sum(-1))
        return np.asarray(logsumexp(ratio.reshape(len(self.mean), len(u), NODES), axis=2)) - np.log(NODES)


class PartFits:
    """Mixtures of parts of the draws.

    Args:
        draws: shape ``(member, draw, dimension)``.
    """

    def __init__(self, draws: np.ndarray) -> None:
        self.fits = [Mixtures.fit(draws[:, k::PARTS]) for k in range(PARTS)]

    def errors(self, shared: SharedPrior, spread: dict[str, float], u: np.ndarray) -> np.ndarray:
        """Independent errors, by their standard deviations, of the log ratio of all draws, shape ``(member, point, part)``."""
        found = np.stack([fit.log_ratio(shared, spread, u) for fit in self.fits], axis=-1)
        return (found - found.mean(-1, keepdims=True)) / np.sqrt(PARTS * (PARTS - 1))


def _fit(draws: np.ndarray) -> Mixtures:
    """EM from a division of the draws along their longest axis; a log-density is linear in products of coordinates."""
    members, count, size = draws.shape
    middle, scale = draws.mean(1, keepdims=True), draws.std(1, keepdims=True) + 1e-9
    x = (draws - middle) / scale
    squares = np.einsum("nma,nmb->nmab", x, x).reshape(members, count, -1)
    features = np.concatenate([np.ones((members, count, 1)), x, squares], axis=-1)
    along = np.einsum("nma,na->nm", x, np.linalg.eigh(squares.mean(1).reshape(members, size, size))[1][..., -1])
    share = np.eye(COMPONENTS)[along.argsort(1).argsort(1) * COMPONENTS // count]
    for _ in range(STEPS):
        moments = share.swapaxes(1, 2) @ features
        total = moments[..., 0] + 1e-6
        centre = moments[..., 1 : 1 + size] / total[..., None]
        second = (moments[..., 1 + size :] / total[..., None]).reshape(*total.shape, size, size)
        covariance = second - centre[..., None] * centre[..., None, :] + RIDGE * np.eye(size)
        root = np.linalg.inv(np.linalg.cholesky(covariance)).swapaxes(-1, -2)
        precision = root @ root.swapaxes(-1, -2)
        linear = np.einsum("nkab,nkb->nka", precision, centre)
        log_share = np.log(total / total.sum(1, keepdims=True))
        constant = log_share + np.log(np.diagonal(root, axis1=-2, axis2=-1)).sum(-1) - 0.5 * (linear * centre).sum(-1)
        terms = [constant[..., None], linear, -0.5 * precision.reshape(*total.shape, -1)]
        log_p = features @ np.concatenate(terms, axis=-1).swapaxes(1, 2)
        share = np.exp(log_p - log_p.max(-1, keepdims=True))
        share /= share.sum(-1, keepdims=True)
    return Mixtures(log_share, middle + scale * centre, root / scale[..., None])
