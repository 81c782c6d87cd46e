r"""Can simulated and real features be told apart? Two tests, and what they cannot see.

A probe scores rows; its held-out area under the curve is :math:`\mathrm{AUC} = \sum_{ij} w_i [f(s_i) < f(r_j)] / \sum_{ij}
w_i`, ties counting one half: 0.5 if the two samples cannot be told apart, 1 if they always can. The maximum mean
discrepancy :math:`\mathrm{MMD}^2 = E\,k(s, s') - 2 E\,k(s, r) + E\,k(r, r')` needs no probe (Gretton et al. 2012, JMLR 13,
723). Neither proves a good posterior: a wrong alignment reaches 0.5, a mere change of population leaves it. Read both
with the importance weights :math:`w \propto p_\mathrm{real}(\theta) / p_\mathrm{sim}(\theta)` and without, beside
:func:`~sbi_da.diagnostics.collapse.pair_error` and :func:`~sbi_da.diagnostics.collapse.contraction`, and never select a model by them.

The probe is Fisher's discriminant with a ridge (Mika et al. 1999) on three blocks of scaled features: the features
themselves (shifts), smooth steps at their quantiles (any change of one feature), and random Fourier features of a
Gaussian kernel (all else; Rahimi & Recht 2007). It is chosen because it solves one linear system a fold: a permutation
costs one product, so the p-value is that of the very probe reported. On shifts it is level with logistic regression, on
scales, correlations and rare clusters with boosted trees; these see a kink in one of many features better.

Null laws. Without weights, labels are permuted (within the folds), which is exact: p is (1 + as large) / (1 + all).
Weighted rows are not exchangeable with real ones, so there the weighted simulations play both parts: each replicate
draws its "real" rows from them by weight and its simulated rows evenly, keeping their weights, and repeats the
statistic. This bootstrap is right for many effective rows and weights that are known, not fitted on these rows.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.spatial.distance import cdist
from sklearn.model_selection import StratifiedKFold

from sbi_da.diagnostics.bootstrap import LIMITS, resampled_counts
from sbi_da.errors import SbiDaError

__all__ = ["LEAST", "DomainAuc", "MmdTest", "domain_auc", "effective_rows", "mmd_test", "row_weights"]

SCALES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Widths of the kernels of MMD, in median distances."""
LEAST = 30
"""Fewest rows of a group, and fewest effective rows that weights may leave."""


@dataclass(frozen=True)
class DomainAuc:
    """Held-out AUC with its 95 % interval, p-value of "cannot be told apart", rows used, effective simulated rows.

    ``degenerate`` says that in most folds the probe gives (almost) all held-out rows to one domain, as it does for
    collapsed features: its AUC then means nothing.
    """

    value: float
    low: float
    high: float
    p_value: float
    degenerate: bool
    n_simulated: int
    n_real: int
    effective: float


@dataclass(frozen=True)
class MmdTest:
    """MMD², p-value of "the same law", the median distance that sets the scales, rows used, effective simulated rows."""

    value: float
    p_value: float
    median: float
    n_simulated: int
    n_real: int
    effective: float


def domain_auc(
    simulated: np.ndarray, real: np.ndarray, weight: np.ndarray | None = None, folds: int = 5, permutations: int = 500,
    seed: int = 0, max_rows: int = 2000, replicates: int = 300,
) -> DomainAuc:
    """Cross-validated AUC of a probe that tells real from simulated features.

    It is that of this probe, so at most that of the best one. The interval resamples the rows of each side and fold,
    trains and tests again, and is centred on the estimate, since repeated rows teach a probe less.

    Args:
        simulated: shape ``(n, d)``.
        real: shape ``(m, d)``.
        weight: importance of the simulated rows, up to a factor, shape ``(n,)``; None for equal ones.
        folds: of the cross-validation; rows are compared within a fold.
        permutations: replicates of the null law.
        seed: of folds, probe and replicates; the result is a function of it.
        max_rows: most rows used of each side, drawn at random.
        replicates: bootstrap resamples of the interval.

    Raises:
        SbiDaError: bad shapes, values or weights, too few rows, or features that are all constant.
    """
    rng = np.random.default_rng(seed)
    if folds < 2:
        raise SbiDaError(f"domain_auc: folds must be at least 2, got {folds}")
    s, r, w = _checked("domain_auc", simulated, real, weight, max_rows, max(2 * folds, 10), rng)
    label = np.repeat([0, 1], [len(s), len(r)])
    x = _basis(_scaled(np.concatenate([s, r]), "domain_auc"), rng)
    parts = list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(x, label))
    fold = np.zeros(len(x), int)
    for k, (_, test) in enumerate(parts):
        fold[test] = k
    mass = np.concatenate([w, np.ones(len(r))])
    draws, _, others = _null(w, len(r), permutations, rng, fold)
    count = np.zeros((len(x), replicates))
    for k in range(folds):
        for side in (0, 1):
            rows = (fold == k) & (label == side)
            count[rows] = resampled_counts(int(rows.sum()), replicates, rng)
    weighted, own = (mass * (label == 0))[:, None], label[:, None].astype(float)
    draws = np.concatenate([weighted, weighted * count, draws], axis=1)
    others = np.concatenate([own, own * count, others], axis=1)
    (value, *rest), degenerate = _held_out(x, parts, label, mass, draws, others)
    resampled, null = np.array(rest[:replicates]), np.array(rest[replicates:])
    low, high = np.clip(value + np.percentile(resampled - resampled.mean(), LIMITS), 0.0, 1.0)
    return DomainAuc(
        float(value), float(low), float(high), _p_value(value, null), degenerate, len(s), len(r), effective_rows(w)
    )


def mmd_test(
    simulated: np.ndarray, real: np.ndarray, weight: np.ndarray | None = None, permutations: int = 500, seed: int = 0,
    scale: bool = True, max_rows: int = 1000,
) -> MmdTest:
    r"""Two-sample test by MMD², mean over Gaussian kernels :math:`\exp(-|x - y|^2 / 2 h^2)` of several widths h.

    The estimate leaves out the pairs of a row with itself: unbiased, hence negative about as often as positive when
    both samples are of one law (with weights unbiased up to their normalisation).

    Args:
        simulated: shape ``(n, d)``.
        real: shape ``(m, d)``.
        weight: importance of the simulated rows, up to a factor, shape ``(n,)``; None for equal ones.
        permutations: replicates of the null law.
        seed: of rows and replicates.
        scale: divide each feature by its spread over both sides; False keeps the metric of the features.
        max_rows: most rows used of each side, drawn at random.

    Raises:
        SbiDaError: bad shapes, values or weights, too few rows, or features that are all constant.
    """
    rng = np.random.default_rng(seed)
    s, r, w = _checked("mmd_test", simulated, real, weight, max_rows, 5, rng)
    x = np.concatenate([s, r])
    square = cdist(*(2 * [_scaled(x, "mmd_test") if scale else x]), "sqeuclidean")
    apart = square[square > 0]
    if not len(apart):
        raise SbiDaError("mmd_test: all rows are the same, there is nothing to compare")
    median = float(np.median(np.sqrt(apart)))
    kernel = np.mean([np.exp(-square / (2 * (c * median) ** 2)) for c in SCALES], axis=0)
    draws, squares, others = _null(w, len(r), permutations, rng)
    label = np.repeat([0.0, 1.0], [len(s), len(r)])
    mass = np.concatenate([w, np.zeros(len(r))])
    draws, squares = np.column_stack([mass, draws]), np.append((w**2).sum(), squares)
    others = np.column_stack([label, others])
    right, total, m = kernel @ others, draws.sum(0), len(r)
    value, *null = (
        ((draws * (kernel @ draws)).sum(0) - squares) / (total**2 - squares)
        - 2 * (draws * right).sum(0) / (total * m)
        + ((others * right).sum(0) - m) / (m * (m - 1))
    )
    return MmdTest(float(value), _p_value(value, np.array(null)), median, len(s), len(r), effective_rows(w))


def _checked(
    name: str, simulated: np.ndarray, real: np.ndarray, weight: np.ndarray | None, most: int, least: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Finite rows, at most ``most`` a side, and weights of mean one; or a clear error."""
    s, r = np.asarray(simulated, float), np.asarray(real, float)
    if s.ndim != 2 or r.ndim != 2 or s.shape[1] != r.shape[1] or s.shape[1] == 0:
        raise SbiDaError(f"{name} compares (row, feature) arrays of the same features, got {s.shape} and {r.shape}")
    for side, rows in (("simulated", s), ("real", r)):
        bad = np.flatnonzero(~np.isfinite(rows).all(1))
        if len(bad):
            raise SbiDaError(f"{name}: {len(bad)} {side} rows are not finite, first row {bad[0]}: drop or fill them")
        if len(rows) < least:
            raise SbiDaError(f"{name}: {len(rows)} {side} rows are too few, at least {least} are needed")
    w = row_weights(name, weight, len(s))
    if not w.any():
        raise SbiDaError(f"{name}: all weights are zero")
    r = r[rng.permutation(len(r))[:most]]
    if np.ptp(w) == 0:
        return s[rng.permutation(len(s))[:most]], r, np.ones(min(len(s), most))
    if len(s) > most:  # rows of little weight are thinned and weigh more: the same law, more effective rows
        share = w / w.sum()
        chance = np.minimum(most * share, 1.0)
        for _ in range(50):
            chance = np.minimum(chance * most / chance.sum(), 1.0)
        keep = rng.random(len(s)) < chance
        s, w = s[keep], w[keep] / chance[keep]
    if effective_rows(w) < LEAST:
        raise SbiDaError(
            f"{name}: the weights leave {effective_rows(w):.0f} effective simulated rows, at least {LEAST} are needed: "
            "clip or shrink them, or simulate more where real objects lie"
        )
    return s, r, w / w.mean()


def row_weights(name: str, weight: np.ndarray | None, n: int) -> np.ndarray:
    """Weights that can be, or a clear error; ones for None."""
    w = np.ones(n) if weight is None else np.asarray(weight, float)
    if w.shape != (n,) or not np.isfinite(w).all() or (w < 0).any():
        raise SbiDaError(f"{name}: weight must be finite, none negative, one for each of {n} simulated rows")
    return w


def effective_rows(weight: np.ndarray) -> float:
    """Kish's effective number of rows."""
    return float(weight.sum() ** 2 / max(float((weight**2).sum()), 1e-300))


def _scaled(x: np.ndarray, name: str) -> np.ndarray:
    """Rows in units of the interquartile range (of the standard deviation where that is zero), tails cut at ten."""
    low, middle, high = np.percentile(x, [25, 50, 75], axis=0)
    spread = (high - low) / 1.349
    spread = np.where(spread > 0, spread, x.std(0))
    if not (spread > 0).any() or not np.ptp(x, axis=0).any():
        raise SbiDaError(f"{name}: every feature is constant on both sides, there is nothing to compare")
    return np.clip((x - middle) / np.where(spread > 0, spread, 1.0), -10, 10)


def _basis(z: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Features, smooth steps, waves: blocks that share the ridge as 10 to 3 to 1, so that simple shifts come first."""
    d = z.shape[1]
    knots = np.quantile(z, np.linspace(0, 1, min(max(320 // d, 1), 5) + 2)[1:-1], axis=0)
    steps = np.concatenate([np.tanh(2 * (z - knot)) for knot in knots], axis=1)
    steps *= np.sqrt(3.0 / max(float(steps.var(0).sum()), 1e-12))
    some = z[rng.permutation(len(z))[:300]]
    square = cdist(some, some, "sqeuclidean")
    median = np.sqrt(np.median(square[square > 0])) if square.any() else 1.0
    waves = []
    for c in (0.5, 1.0):
        phase = z @ rng.standard_normal((d, 150)) / (c * median) + rng.uniform(0, 2 * np.pi, 150)
        waves.append(np.cos(phase) / np.sqrt(150))
    return np.concatenate([np.sqrt(10.0 / d) * z, steps, *waves], axis=1)


def _held_out(
    x: np.ndarray, parts: list[tuple[np.ndarray, np.ndarray]], label: np.ndarray, mass: np.ndarray, draws: np.ndarray,
    others: np.ndarray,
) -> tuple[np.ndarray, bool]:
    """AUC of every replicate (rows' masses on either side), and whether the probe of the first is degenerate."""
    ridge = 3.0 / min(effective_rows(mass[label == 0]), label.sum())
    wins, pairs, answers = np.zeros(draws.shape[1]), np.zeros(draws.shape[1]), []
    for train, test in parts:
        middle = np.average(x[train], axis=0, weights=mass[train])
        centred = x[train] - middle
        spread = (centred * mass[train, None]).T @ centred / mass[train].sum()
        spread.flat[:: len(spread) + 1] += ridge
        a, b = (m[train] / np.maximum(m[train].sum(0), 1e-12) for m in (draws, others))
        direction = cho_solve(cho_factor(spread), centred.T @ (b - a))
        score = (x[test] - middle) @ direction
        for i in range(len(wins)):
            win, pair = _wins(score[:, i], draws[test, i], others[test, i])
            wins[i], pairs[i] = wins[i] + win, pairs[i] + pair
        halfway = (centred @ direction[:, 0]) @ (a[:, 0] + b[:, 0]) / 2
        answers.append(np.mean([np.mean(score[label[test] == side, 0] > halfway) for side in (0, 1)]))
    blind = np.mean([not 0.01 < share < 0.99 for share in answers])
    return wins / np.maximum(pairs, 1e-12), bool(blind > 0.5)


def _null(
    weight: np.ndarray, m: int, replicates: int, rng: np.random.Generator, fold: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Replicates of two samples of one law, as the mass of each row on either side.

    Returns:
        Simulated and real mass, shape ``(n + m, replicates)``, between them the sum of squared simulated weights.
    """
    n = len(weight)
    if np.ptp(weight) == 0:
        label = np.tile(np.repeat([0.0, 1.0], [n, m])[:, None], replicates)
        for k in range(1 if fold is None else fold.max() + 1):
            rows = slice(None) if fold is None else fold == k
            label[rows] = rng.permuted(label[rows], axis=0)
        return 1 - label, np.full(replicates, float(n)), label
    none = np.zeros((m, replicates))
    count = resampled_counts(n, replicates, rng)
    drawn = rng.multinomial(m, weight / weight.sum(), replicates).T.astype(float)
    return np.concatenate([count * weight[:, None], none]), weight**2 @ count, np.concatenate([drawn, none])


def _wins(score: np.ndarray, simulated: np.ndarray, real: np.ndarray) -> tuple[float, float]:
    """Mass of the pairs whose real row scores higher (ties one half), and of all pairs; all shapes ``(row,)``."""
    score = np.round(score / max(float(np.abs(score).max()), 1e-300), 10)  # equal rows tie in spite of rounding
    order = np.argsort(score, kind="stable")
    starts = np.flatnonzero(np.diff(score[order], prepend=-np.inf))
    a, b = (np.add.reduceat(m[order], starts) for m in (simulated, real))
    return float((np.cumsum(a) - a / 2) @ b), float(a.sum() * b.sum())


def _p_value(value: float, null: np.ndarray) -> float:
    """Share of replicates at least as large, the data among them; rounding does not break ties."""
    return float((1 + np.sum(null >= value - 1e-12 * max(abs(value), 1e-300))) / (1 + len(null)))
