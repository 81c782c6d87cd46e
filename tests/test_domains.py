"""Domain tests against laws whose distance is known."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from scipy.spatial.distance import cdist
from scipy.stats import norm

from sbi_da.diagnostics import by_group, contraction, domain_auc, mmd_test, pair_error
from sbi_da.diagnostics.domains import SCALES, DomainAuc, _wins
from sbi_da.errors import SbiDaError
from sbi_da.plots import latent_figure

TESTS = (domain_auc, mmd_test)


def clouds(n=400, m=300, d=3, shift=0.0, seed=0):
    """Unit Gaussians, the real one moved along the first axis, and the exact importance weights between them."""
    rng = np.random.default_rng(seed)
    s, r = rng.standard_normal((n, d)), rng.standard_normal((m, d))
    return s, r + shift * np.eye(d)[0], np.exp(shift * s[:, 0])


def brute_auc(score, simulated, real):
    """Sum over all pairs."""
    return sum(
        a * b * ((s < t) + 0.5 * (s == t))
        for s, a in zip(score, simulated, strict=True) for t, b in zip(score, real, strict=True)
    )


def test_one_law_cannot_be_told_apart():
    s, r, _ = clouds()
    auc, mmd = domain_auc(s, r, permutations=99), mmd_test(s, r, permutations=99)
    assert auc.low < 0.5 < auc.high and 0.05 < auc.high - auc.low < 0.25
    assert auc.p_value > 0.01 and mmd.p_value > 0.01
    assert not auc.degenerate and (auc.n_simulated, auc.n_real, auc.effective) == (400, 300, 400)
    assert domain_auc(s, r, permutations=99) == auc
    assert json.loads(json.dumps(asdict(auc))) == asdict(auc)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("test", TESTS)
def test_p_values_are_uniform_under_the_null(test, weighted):
    p = []
    for seed in range(60):
        s, r, w = clouds(80, 50, 2, 0.6 * weighted, seed)
        few = {"replicates": 2} if test is domain_auc else {}
        p.append(test(s, r, w if weighted else None, permutations=19, seed=seed, **few).p_value)
    assert np.mean(p) == pytest.approx(0.525, abs=0.15)  # four standard errors
    assert np.mean(np.array(p) <= 0.1) < 0.25


def test_shift_has_the_analytic_auc():
    s, r, _ = clouds(1200, 1200, 2, 1.0)
    auc = domain_auc(s, r, permutations=99)
    assert auc.value == pytest.approx(norm.cdf(1 / np.sqrt(2)), abs=0.025)
    assert auc.low < norm.cdf(1 / np.sqrt(2)) < auc.high and auc.high - auc.low < 0.07
    assert auc.p_value == pytest.approx(0.01) and mmd_test(s, r, permutations=99).p_value == pytest.approx(0.01)
    assert not auc.degenerate


@pytest.mark.parametrize("change", ["scale", "correlation", "bimodal"])
def test_changes_that_leave_the_means_are_found(change):
    s, r, _ = clouds(500, 500, 3)
    if change == "scale":
        r *= 1.6
    elif change == "correlation":
        r[:, 1] = 0.8 * r[:, 0] + 0.6 * r[:, 1]
    else:
        r[:, 0] = np.sign(r[:, 0]) * (0.9 + 0.3 * np.abs(r[:, 1]))
    for test in TESTS:
        assert test(s, r, permutations=99).p_value == pytest.approx(0.01)
    assert domain_auc(s, r, permutations=1).low > 0.6


def test_exact_weights_undo_a_change_of_population():
    s, r, w = clouds(1500, 300, 3, 1.0)
    raw, weighted = (domain_auc(s, r, x, permutations=99, replicates=100) for x in (None, w))
    assert raw.value > 0.7 and raw.p_value == pytest.approx(0.01)
    assert weighted.low < 0.5 < weighted.high and weighted.p_value > 0.01
    assert weighted.value == pytest.approx(0.5, abs=0.06)
    assert mmd_test(s, r, permutations=99).p_value == pytest.approx(0.01)
    assert mmd_test(s, r, w, permutations=99).p_value > 0.01
    wrong = np.exp(-s[:, 0])
    for test in TESTS:
        assert test(s, r, wrong, permutations=19).p_value == pytest.approx(0.05)
        rescaled, same = (asdict(test(s[:400], r, c * w[:400], permutations=9)) for c in (8, 1))
        assert rescaled == pytest.approx(same)


def test_thinned_weights_keep_their_law():
    s, r, w = clouds(20_000, 300, 2, 1.0)
    exact = w.sum() ** 2 / (w**2).sum()
    few = mmd_test(s, r, w, permutations=9, max_rows=500)
    assert few.n_simulated == pytest.approx(500, abs=70) and few.effective > 0.8 * few.n_simulated
    assert exact > 5000 and few.value == pytest.approx(0, abs=0.01)
    assert domain_auc(s, r, w, permutations=9, max_rows=500).value == pytest.approx(0.5, abs=0.08)


def test_mmd_is_the_sum_over_pairs():
    s, r, _ = clouds(12, 9, 2, 0.5)
    rng = np.random.default_rng(1)
    apart = cdist(np.concatenate([s, r]), np.concatenate([s, r]))
    median = np.median(apart[apart > 0])

    def k(x, y):
        return np.mean([np.exp(-((x - y) ** 2).sum() / (2 * (c * median) ** 2)) for c in SCALES])

    def brute(s, w):
        pairs = [(i, j) for i in range(len(s)) for j in range(len(s)) if i != j]
        ss = sum(w[i] * w[j] * k(s[i], s[j]) for i, j in pairs) / sum(w[i] * w[j] for i, j in pairs)
        rr = np.mean([k(r[i], r[j]) for i in range(9) for j in range(9) if i != j])
        return ss + rr - 2 * sum(w[i] * k(s[i], b) for i in range(len(s)) for b in r) / w.sum() / 9

    result = mmd_test(s, r, permutations=9, scale=False)
    assert result.value == pytest.approx(brute(s, np.ones(12)), rel=1e-9) and result.median == pytest.approx(median)
    s, w = rng.standard_normal((45, 2)), rng.uniform(0.5, 1.5, 45)
    apart = cdist(np.concatenate([s, r]), np.concatenate([s, r]))
    median = np.median(apart[apart > 0])
    assert mmd_test(s, r, w, permutations=9, scale=False).value == pytest.approx(brute(s, w), rel=1e-9)


def test_permutation_p_value_of_mmd_is_that_of_permuted_rows():
    s, r, _ = clouds(40, 30, 2, 0.35, seed=3)
    p = mmd_test(s, r, permutations=999, scale=False).p_value
    pool, rng = np.concatenate([s, r]), np.random.default_rng(0)
    value = mmd_test(s, r, permutations=1, scale=False).value
    null = []
    for _ in range(200):
        order = rng.permutation(70)
        null.append(mmd_test(pool[order[:40]], pool[order[40:]], permutations=1, scale=False).value)
    share = np.mean(np.array(null) >= value)
    assert 0.005 < share < 0.9 and p == pytest.approx(share, abs=0.1)


def test_units_do_not_matter():
    s, r, _ = clouds(200, 150, 3, 0.5)
    units, zero = np.array([1.0, 1e4, 1e-3]), np.array([0, 5e3, 1])
    for test in TESTS:
        one, other = test(s, r, permutations=19), test(s * units + zero, r * units + zero, permutations=19)
        assert one.value == pytest.approx(other.value, abs=1e-6) and one.p_value == other.p_value


def test_auc_counts_pairs_and_ties():
    rng = np.random.default_rng(0)
    score, a, b = rng.integers(0, 6, 30) / 3, rng.uniform(0, 2, 30), rng.uniform(0, 2, 30)
    wins, pairs = _wins(score + 1e-14 * rng.standard_normal(30), a, b)
    assert wins == pytest.approx(brute_auc(np.round(score, 9), a, b)) and pairs == pytest.approx(a.sum() * b.sum())


def test_collapsed_features_are_flagged():
    s, r = np.zeros((300, 3)), np.zeros((300, 3))
    s[0], r[0] = 1, 2
    auc = domain_auc(s, r, permutations=19)
    assert auc.degenerate and auc.value == pytest.approx(0.5, abs=0.02)


def test_groups_are_tested_apart_and_holm_adjusted():
    s, r, w = clouds(600, 600, 2)
    left, right = np.repeat(["a", "b", "c", "rare"], [200, 200, 190, 10]), np.repeat(["a", "b", "c", "new"], 150)
    r[right == "b"] += 3
    result = by_group(mmd_test, s, r, left, right, permutations=99)
    assert result.too_few == {"rare": (10, 0), "new": (0, 150)}
    assert list(result.results) == ["a", "b", "c"]
    assert result.results["b"] == mmd_test(s[left == "b"], r[right == "b"], permutations=99)
    assert result.adjusted["b"] == pytest.approx(0.03)
    assert min(result.adjusted[g] for g in "ac") > 0.05
    poor = np.where(left == "a", np.exp(3 * s[:, 0]), 1.0)
    assert by_group(mmd_test, s, r, left, right, poor, permutations=9).too_few["a"][0] < 30


def test_holm_steps_down():
    p = iter([0.01, 0.04, 0.03, 0.005])
    s = np.zeros((120, 1))
    labels = np.repeat(list("abcd"), 30)
    result = by_group(lambda *_, **__: DomainAuc(0.5, 0.4, 0.6, next(p), False, 30, 30, 30.0), s, s, labels, labels)
    assert result.adjusted == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})


def test_groups_may_overlap_as_masks():
    s, r, _ = clouds(100, 100, 2)
    first, all_rows = np.arange(100) < 50, np.ones(100, bool)
    masks = {"gaia": all_rows, "wise": first}
    result = by_group(mmd_test, s, r, masks, masks, permutations=9)
    assert (result.results["gaia"].n_real, result.results["wise"].n_real) == (100, 50)
    with pytest.raises(SbiDaError, match="groups_real.*100 rows.*'wise'"):
        by_group(mmd_test, s, r, masks, {"wise": first[:3]})


def test_contraction_of_a_conjugate_gaussian():
    sd = np.full((200, 2), [0.6, 1.0]) * np.array([2.0, 1.0])
    quiet, none = contraction(np.array([2.0, 1.0]), sd)
    assert quiet == pytest.approx({"value": 0.64, "low": 0.64, "high": 0.64}) and none["value"] == pytest.approx(0)
    mixed = contraction(np.ones(1), np.sqrt(np.random.default_rng(0).uniform(0, 1, (900, 1))))[0]
    assert mixed["low"] < 0.5 < mixed["high"] and mixed["high"] - mixed["low"] == pytest.approx(0.0377, rel=0.2)


def test_pair_error_of_noisy_twins():
    rng = np.random.default_rng(0)
    s = rng.standard_normal((800, 4))
    noisy = s + 0.5 * rng.standard_normal(s.shape)
    error = pair_error(s, noisy)
    assert error["low"] < 0.25 / 2.25 < error["high"] and error["high"] - error["low"] < 0.02
    assert pair_error(s, s) == pytest.approx({"value": 0, "low": 0, "high": 0})
    stranger = pair_error(s, rng.permutation(s))
    assert stranger["low"] < 1 < stranger["high"]
    few, twins = s[:7] + 1e3, noisy[:7] + 1e3
    square = cdist(few, twins, "sqeuclidean")
    brute = np.diag(square).mean() / (square.sum() - np.trace(square)) * 42
    assert pair_error(few, twins)["value"] == pytest.approx(brute, rel=1e-6)


def test_a_hidden_rotation_shows_in_the_pairs_alone():
    s = np.random.default_rng(0).standard_normal((600, 2))
    turned = s @ np.array([[0.0, 1.0], [-1.0, 0.0]])
    assert domain_auc(s, turned, permutations=99).p_value > 0.01
    assert pair_error(s, turned)["low"] > 0.8


GOOD = {"simulated": np.arange(80.0).reshape(40, 2), "real": np.arange(80.0).reshape(40, 2)}


@pytest.mark.parametrize("test", TESTS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"real": np.zeros((40, 3))}, "same features"),
        ({"real": np.zeros(40)}, "same features"),
        ({"simulated": np.full((40, 2), np.nan)}, "40 simulated rows are not finite"),
        ({"real": np.zeros((4, 2))}, "4 real rows are too few"),
        ({"simulated": np.ones((40, 2)), "real": np.ones((40, 2))}, "constant"),
        ({"weight": np.ones(3)}, "one for each of 40"),
        ({"weight": -np.ones(40)}, "none negative"),
        ({"weight": np.zeros(40)}, "all weights are zero"),
        ({"weight": np.eye(40)[0]}, "1 effective simulated rows"),
    ],
)
def test_bad_input_is_named(test, change, message):
    with pytest.raises(SbiDaError, match=message) as caught:
        test(**{**GOOD, **change})
    assert "\n" not in str(caught.value) and test.__name__ in str(caught.value)


def test_bad_pairs_and_deviations_are_named():
    with pytest.raises(SbiDaError, match="folds"):
        domain_auc(**GOOD, folds=1)
    with pytest.raises(SbiDaError, match="group 'a': mmd_test: every feature is constant"):
        by_group(mmd_test, np.ones((40, 1)), np.ones((40, 1)), np.repeat("a", 40), np.repeat("a", 40))
    with pytest.raises(SbiDaError, match="by_group: weight"):
        by_group(mmd_test, **GOOD, groups_simulated=np.zeros(40), groups_real=np.zeros(40), weight=np.full(40, np.nan))
    with pytest.raises(SbiDaError, match="prior_sd"):
        contraction(np.ones(2), np.ones((4, 3)))
    with pytest.raises(SbiDaError, match="positive"):
        contraction(np.zeros(1), np.ones((4, 1)))
    with pytest.raises(SbiDaError, match="two or more finite pairs"):
        pair_error(np.zeros((4, 2)), np.zeros((5, 2)))
    with pytest.raises(SbiDaError, match="same point"):
        pair_error(np.full((4, 2), 0.1), np.full((4, 2), 0.1))


def drawn(figure):
    """The figure, drawn without a warning."""
    FigureCanvasAgg(figure).draw()
    return figure


@pytest.mark.parametrize("method", ["pca", "isomap"])
def test_latent_figure_draws_both_panels(method):
    s, r, _ = clouds(300, 60, 5, 3.0)
    value = (s[:, 0], r[:, 0])
    fig = drawn(latent_figure((s, r), (s, r - 3), auc=(0.98, 0.52), method=method, colour=(value, "log age")))
    titles = [ax.get_title(loc="left") for ax in fig.axes]
    assert titles[:2] == ["before   AUC 0.98", "after   AUC 0.52"]
    assert any("log age" in ax.get_ylabel() for ax in fig.axes)


def points(ax, size):
    """The points of one cloud, in the order of their first coordinate."""
    (cloud,) = [np.asarray(c.get_offsets()) for c in ax.collections if len(c.get_offsets()) == size]
    return cloud[cloud[:, 0].argsort()]


def test_latent_axes_are_those_of_the_largest_spread_whatever_the_counts():
    s, r, _ = clouds(1400, 50, 4, 16.0)
    s[:, 1] *= 2
    r[:, 2] *= 5
    left, right = drawn(latent_figure((s, r), (s, s[:90]), names=("raw", "aligned"))).axes[:2]
    assert left.get_title(loc="left") == "raw"
    assert abs(points(left, 50)[:, 0].mean()) == pytest.approx(8, abs=0.5)  # half of the shift
    assert points(left, 50)[:, 1].std() == pytest.approx(5, rel=0.3)
    assert left.get_xlim() == right.get_xlim()
    assert points(left, 1400) == pytest.approx(points(right, 1400))
    left, right = drawn(latent_figure((s, r), (s, s[:90]), shared=False)).axes[:2]
    assert points(right, 1400)[:, 0].std() == pytest.approx(2, rel=0.1)
    left, right = drawn(latent_figure((s, r), (s[:, :2], s[:90, :2]))).axes[:2]
    assert left.get_xlim() != right.get_xlim()


def test_latent_figure_names_bad_input():
    s, r, _ = clouds(50, 40, 3)
    with pytest.raises(SbiDaError, match="'after'"):
        latent_figure((s, r), (s, r[:, :2]))
    with pytest.raises(SbiDaError, match="colour"):
        latent_figure((s, r), (s, r), colour=((s[:, 0], r[:3, 0]), "age"))
    with pytest.raises(SbiDaError, match="method"):
        latent_figure((s, r), (s, r), method="tsne")
