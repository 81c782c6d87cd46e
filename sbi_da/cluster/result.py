"""What combining the members of a cluster gives: the shared parameters, the share that says nothing, the members given all that."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from sbi_da.cluster.mixtures import Mixtures
from sbi_da.cluster.ratios import MemberRatios
from sbi_da.errors import SbiDaError
from sbi_da.importance import effective, kernels_about
from sbi_da.posteriors.noise import resample
from sbi_da.posteriors.posterior import QUANTILES

__all__ = ["LOW_ESS", "NOISY", "Cluster"]

FEWEST = 100
"""Effective points below which a result is flagged."""
LOW_ESS, NOISY = "low_ess", "monte_carlo_error"
LARGEST_ERROR = 0.3
"""Monte Carlo error, in standard deviations, above which a result is flagged."""
PROPOSALS, SMOOTHING = 2000, 0.1
"""Proposals, at least, for a member's own parameters; where its own draws serve instead, kernels that smooth the cluster's points, as a
share of their covariance."""


@dataclass(frozen=True)
class Cluster:
    """The posterior of shared parameters as weighted points, made by :func:`~sbi_da.cluster.combine`.

    Attributes:
        ratios: of the members.
        mixtures: fitted to the members' draws.
        trusted: whose ratios are integrals of their densities; the others' are mixtures. Boolean, shape ``(member,)``.
        scores: of the points, shape ``(point, shared)``.
        phi: shared parameters of the points, each of shape ``(point,)``.
        weight: of the points, sums to one.
        log_ratio: log p(phi | x_i) / p(phi), shape ``(member, point)``.
        errors: of the log ratio, as independent deviations whose squares add up, shape ``(member, point, deviation)``.
        shares: values of f, shape ``(share,)``.
        share_weight: probability of each at each point, shape ``(point, share)``.
        log_bayes_factor: log of the evidence for one cluster (of such contamination) over that for unrelated objects.
    """

    ratios: MemberRatios
    mixtures: Mixtures
    trusted: np.ndarray
    scores: np.ndarray
    phi: dict[str, np.ndarray]
    weight: np.ndarray
    log_ratio: np.ndarray
    errors: np.ndarray
    shares: np.ndarray
    share_weight: np.ndarray
    log_bayes_factor: float

    def __len__(self) -> int:
        return len(self.log_ratio)

    @property
    def names(self) -> list[str]:
        """Shared parameters."""
        return list(self.phi)

    @property
    def effective_sample_size(self) -> float:
        """Of the points."""
        return float(effective(self.weight))

    @property
    def relative_error(self) -> float:
        """Largest Monte Carlo error of a mean, in standard deviations of its posterior."""
        summary = self.summary()
        return float((summary["mc_error"] / (summary["sd"] + 1e-300)).sel(parameter=self.names).max())

    @property
    def flag(self) -> str:
        """Empty, or :data:`LOW_ESS`, :data:`NOISY`, joined by ``+``."""
        few = self.effective_sample_size < FEWEST
        return "+".join(name for name, on in ((LOW_ESS, few), (NOISY, self.relative_error > LARGEST_ERROR)) if on)

    def _belongs(self) -> np.ndarray:
        """Probability that a member says something of the cluster, at each point, shape ``(member, point)``."""
        total = np.zeros(self.log_ratio.shape)
        for k, f in enumerate(self.shares):
            with np.errstate(divide="ignore"):
                odds = np.log1p(-f) + self.log_ratio
                total += self.share_weight[:, k] * np.exp(odds - np.logaddexp(odds, np.log(f)))
        return np.where(np.isnan(total), 0.0, total)

    def membership(self) -> xr.DataArray:
        """Probability that each member says something of the cluster; 1 for all where f is 0."""
        return xr.DataArray(self._belongs() @ self.weight, dims="object", coords={"object": self.ratios.posterior.ids}, name="membership")

    def sample(self, n: int = 1000, seed: int = 0) -> xr.Dataset:
        """Draws of the shared parameters and, where it has a prior, of the share ``contamination``; dimension ``draw``.

        They are weighted points drawn again: beyond the effective sample size they repeat.
        """
        if n < 1:
            raise SbiDaError(f"draws must be at least 1, not {n}")
        with np.errstate(divide="ignore"):
            chosen = resample(np.log(self.weight)[None], n, np.array(["cluster"]), seed)[0][0]
        rng = np.random.default_rng([seed, 3])
        units = self.ratios.posterior.units
        data: dict[str, Any] = {k: ("draw", v[chosen], {"units": units.get(k, "")}) for k, v in self.phi.items()}
        if len(self.shares) > 1:
            which = (self.share_weight[chosen].cumsum(1) < rng.random((n, 1))).sum(1).clip(0, len(self.shares) - 1)
            data["contamination"] = ("draw", self.shares[which], {"units": ""})
        attrs = {"seed": seed, "effective_sample_size": self.effective_sample_size, "flag": self.flag}
        return xr.Dataset(data, coords={"draw": np.arange(n)}, attrs=attrs)

    def summary(self) -> xr.Dataset:
        """Mean, standard deviation, 5, 16, 50, 84, 95 % quantiles and the Monte Carlo error of the mean, dimension ``parameter``.

        The error counts the finite number of points and that of the draws behind the members' ratios.
        """
        rows: dict[str, list[float]] = {}
        belongs = self._belongs()
        for name, value in self.phi.items():
            mean = float(self.weight @ value)
            low_to_high = np.quantile(value, QUANTILES, weights=self.weight, method="inverted_cdf")
            points = float(np.sqrt(np.square(self.weight * (value - mean)).sum()))
            error = float(np.hypot(points, self._inner_error(value - mean, belongs)))
            rows[name] = [mean, float(np.sqrt(self.weight @ np.square(value - mean))), *low_to_high, error]
        if len(self.shares) > 1:
            of_share = self.weight @ self.share_weight
            mean, points_mean = float(of_share @ self.shares), self.share_weight @ self.shares
            levels = np.quantile(self.shares, QUANTILES, weights=of_share, method="inverted_cdf")
            error = float(np.sqrt(np.square(self.weight * (points_mean - mean)).sum()))
            rows["contamination"] = [mean, float(np.sqrt(of_share @ np.square(self.shares - mean))), *levels, error]
        table = np.array(list(rows.values()))
        columns = ["mean", "sd", *(f"q{round(100 * q):02d}" for q in QUANTILES), "mc_error"]
        units = self.ratios.posterior.units
        out = xr.Dataset({name: ("parameter", table[:, k]) for k, name in enumerate(columns)}, coords={"parameter": list(rows)})
        return out.assign_coords(unit=("parameter", [units.get(k, "") for k in rows]))

    def _inner_error(self, about: np.ndarray, belongs: np.ndarray) -> float:
        """Standard error of a mean from the errors of the ratios: how each deviation, the same at all points, moves it."""
        return float(np.sqrt(np.square(np.einsum("np,npr->nr", belongs * (self.weight * about), self.errors)).sum()))

    def members(self, n: int = 1000, seed: int = 0) -> xr.Dataset:
        """Each member's parameters and derived quantities, given that it belongs to this cluster.

        Returns:
            Dimensions ``(object, draw)``; besides, by object, ``membership`` and ``effective_sample_size``: a member whose
            membership is low says what it would be if it belonged.
        """
        if n < 1:
            raise SbiDaError(f"draws must be at least 1, not {n}")
        posterior = self.ratios.posterior
        theta, log_weight = self._integrated(max(PROPOSALS, 2 * n), seed)
        if not self.trusted.all():
            own, own_weight = self._reweighted(seed)
            some = np.flatnonzero(~self.trusted)
            short = own_weight.shape[1] - log_weight.shape[1]
            log_weight = np.pad(log_weight, ((0, 0), (0, max(0, short))), constant_values=-np.inf)
            log_weight[some] = -np.inf
            log_weight[some, : own_weight.shape[1]] = own_weight[some]
            for k in theta:
                theta[k] = np.pad(theta[k], ((0, 0), (0, max(0, short))))
                theta[k][some, : own_weight.shape[1]] = own[k][some]
        kept, ess = resample(np.where(np.isnan(log_weight), -np.inf, log_weight), n, posterior.ids, seed)
        theta = {k: np.where(ess[:, None] > 0, np.take_along_axis(v, kept, axis=1), np.nan) for k, v in theta.items()}
        if posterior.derived and posterior.derive is not None:
            valid = ess > 0
            found = posterior.derive({k: v[valid].ravel() for k, v in theta.items()})
            for name in posterior.derived:
                theta[name] = np.full((len(self), n), np.nan)
                theta[name][valid] = np.asarray(found[name]).reshape(-1, n)
        data: dict[str, Any] = {k: (("object", "draw"), v, {"units": posterior.units.get(k, "")}) for k, v in theta.items()}
        out = xr.Dataset(data, coords={"object": posterior.ids, "draw": np.arange(n)}, attrs={"seed": seed})
        return out.assign(membership=self.membership(), effective_sample_size=("object", ess))

    def _integrated(self, count: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Parameters of members, shape ``(member, draw)``, proposed at the cluster's points, and the logarithms of their weights."""
        ratios = self.ratios
        joint = ratios
        if ratios.marginal:
            joint = MemberRatios(ratios.posterior, ratios.shared, ratios.spread, seed, marginals=False)
            joint.focus(self.weight @ self.scores)
        with np.errstate(divide="ignore", invalid="ignore"):
            chosen = resample(np.log(self.weight)[None], count, np.array(["members"]), seed)[0][0]
            inner = joint(self.scores[chosen], joint.noise(count, seed))
            log_weight = inner.log_weight[..., 0] + np.log(self._belongs())[:, chosen] - self.log_ratio[:, chosen]
        return {k: v[..., 0] for k, v in joint.parameters(self.scores[chosen], inner.scores).items()}, log_weight

    def _reweighted(self, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The members' own draws, shape ``(member, draw)``, and the logarithms of their weights: cluster over member, at their scores."""
        ratios = self.ratios
        theta, u = ratios.drawn, ratios.scores
        about = kernels_about(self.scores, self.weight, np.random.default_rng([seed, 17]), SMOOTHING)
        cluster = about.log_prob(u.reshape(-1, u.shape[-1])).reshape(u.shape[:2])
        return dict(theta), cluster - self.mixtures.log_prob(u)
