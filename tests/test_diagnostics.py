"""Diagnostics against posteriors whose calibration is known."""

import json

import numpy as np
import pytest
from scipy.stats import norm

from sbi_da.diagnostics import (
    bins,
    c2st,
    coverage,
    coverage_error,
    evaluate_draws,
    highest_density_coverage,
    point_errors,
    ranks,
    sbc_p_values,
    tarp,
)
from sbi_da.diagnostics.bootstrap import interval
from sbi_da.diagnostics.calibration import LEVELS, finite_sample_error, pit, rank_histogram
from sbi_da.errors import SbiDaError

SIGMA = 0.5
POSTERIOR_SD = (1 + SIGMA**-2) ** -0.5


def conjugate(n=2000, draws=200, parameters=2, widen=1.0, shift=0.0, seed=0):
    """theta ~ N(0, 1), x ~ N(theta, SIGMA): the exact posterior, made wider and moved by ``shift`` of its sd."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal((n, parameters))
    x = truth + SIGMA * rng.standard_normal((n, parameters))
    mean = x * POSTERIOR_SD**2 / SIGMA**2 + shift * POSTERIOR_SD
    return mean[:, None] + widen * POSTERIOR_SD * rng.standard_normal((n, draws, parameters)), truth, mean


def analytic_error(widen=1.0, shift=0.0):
    """Coverage error of a Gaussian posterior with a wrong width or mean."""
    half = widen * norm.ppf((1 + LEVELS) / 2)
    return np.abs(norm.cdf(half - shift) - norm.cdf(-half - shift) - LEVELS).mean()


def test_ranks_count_the_draws_below_and_break_ties_at_random():
    draws = np.arange(10.0).reshape(1, 10, 1)
    rng = np.random.default_rng(0)
    assert ranks(draws, np.array([[3.5]]), rng)[0, 0] == 4
    assert ranks(draws, np.array([[np.nan]]), rng)[0, 0] == -1
    tied = ranks(np.zeros((4000, 3, 1)), np.zeros((4000, 1)), rng)
    assert np.bincount(tied[:, 0], minlength=4) == pytest.approx(np.full(4, 1000), abs=150)


def test_rank_histogram_knows_the_probability_of_uneven_bins():
    counts, probability = rank_histogram(np.arange(31), 30, bins=20)
    assert counts == pytest.approx(31 * probability)
    assert rank_histogram(np.array([0, 5, -1]), 5, bins=20)[0].tolist() == [1, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("draws", [3, 200])
def test_exact_posterior_is_calibrated(draws):
    samples, truth, _ = conjugate(draws=draws)
    error = coverage_error(samples, truth)
    assert error["value"] < error["limit"] < 0.02
    assert error["low"] <= error["value"] <= error["high"]
    rank = ranks(samples, truth, np.random.default_rng(0))
    assert (sbc_p_values(rank, draws) > 0.01).all()
    assert (sbc_p_values(rank, draws, "ks") > 0.01).all()
    result = tarp(samples, truth)
    assert result["deviation"]["value"] < result["deviation"]["limit"]
    assert result["p_value"] > 0.01


@pytest.mark.parametrize("kind", [{"widen": 0.7}, {"widen": 1.4}, {"shift": 0.5}])
def test_wrong_posteriors_are_found_and_measured(kind):
    samples, truth, _ = conjugate(**kind)
    error = coverage_error(samples, truth)
    assert error["value"] == pytest.approx(analytic_error(**kind), abs=0.012)
    assert error["low"] <= analytic_error(**kind) <= error["high"] or "shift" in kind
    assert error["value"] > 2 * error["limit"]
    rank = ranks(samples, truth, np.random.default_rng(0))
    assert (sbc_p_values(rank, 200) < 1e-6).all()
    assert (sbc_p_values(rank, 200, "ks") < 1e-3).all()
    assert tarp(samples, truth)["deviation"]["value"] > tarp(samples, truth)["deviation"]["limit"]


def test_tarp_sees_a_correlation_the_marginals_do_not():
    rng = np.random.default_rng(1)
    truth = rng.multivariate_normal([0, 0], [[1, 0.9], [0.9, 1]], 3000)
    samples = rng.standard_normal((3000, 200, 2))
    assert coverage_error(samples, truth)["value"] < 0.02
    assert tarp(samples, truth)["p_value"] < 1e-6


def test_tarp_does_not_depend_on_units():
    samples, truth, _ = conjugate(n=300, draws=50, widen=0.6)
    units = np.array([1.0, 1000.0])
    assert tarp(samples * units, truth * units)["curve"] == pytest.approx(tarp(samples, truth)["curve"], abs=0.01)


def test_coverage_is_that_of_equal_tailed_quantiles():
    samples, truth, _ = conjugate(n=500, draws=1000, widen=0.8)
    low, high = np.quantile(samples, [0.16, 0.84], axis=1)
    direct = ((truth > low) & (truth < high)).mean(0)
    assert coverage(samples, truth, [0.68])[0] == pytest.approx(direct, abs=0.01)


def test_highest_density_coverage_of_a_gaussian():
    samples, truth, mean = conjugate(n=4000, parameters=1, widen=0.7)
    density = highest_density_coverage(-np.abs(samples - mean[:, None])[..., 0], -np.abs(truth - mean)[:, 0])
    expected = 2 * norm.cdf(0.7 * norm.ppf((1 + LEVELS) / 2)) - 1
    assert density == pytest.approx(expected, abs=0.03)


def test_finite_sample_expectation_is_that_of_binomials():
    mean, high = finite_sample_error(500)
    assert mean == pytest.approx(np.sqrt(2 / np.pi * LEVELS * (1 - LEVELS) / 500).mean(), rel=0.05)
    assert high > 1.5 * mean
    below = [coverage_error(*conjugate(n=500, draws=50, seed=s)[:2], replicates=100) for s in range(40)]
    assert np.mean([e["value"] < e["limit"] for e in below]) >= 0.9
    assert np.mean([e["value"] for e in below]) == pytest.approx(mean, rel=0.2)


def test_unknown_truths_are_left_out():
    samples, truth, _ = conjugate(n=1000, parameters=3)
    holes = truth.copy()
    holes[::2, 0] = np.nan
    holes[:, 2] = np.nan
    part = coverage_error(samples, holes)
    assert part["coverage"][:, 1] == pytest.approx(coverage_error(samples, truth)["coverage"][:, 1], abs=0.01)
    assert np.isnan(part["per_parameter"][2]["value"])
    assert part["value"] == pytest.approx(np.mean([part["per_parameter"][p]["value"] for p in (0, 1)]))
    assert tarp(samples, holes)["n"] == 500
    result = evaluate_draws(samples, holes, ["a", "b", "c"])
    assert result["overall"]["point_errors"]["c"] == {"n": 0}
    assert result["overall"]["sbc"]["p_value"]["c"] is None


def test_pit_is_in_the_open_unit_interval():
    u = pit(np.array([0, 5, -1]), 5, np.random.default_rng(0))
    assert 0 < u[0] < 1 / 6 and 5 / 6 < u[1] < 1 and np.isnan(u[2])


def test_point_errors_of_known_residuals():
    samples, truth, _ = conjugate(n=4000, widen=0.5, shift=1.0)
    figures = point_errors(samples, truth, ["a", "b"])["a"]
    assert figures["bias"]["value"] == pytest.approx(POSTERIOR_SD, abs=0.03)
    assert figures["scatter"]["value"] == pytest.approx(POSTERIOR_SD, rel=0.06)
    assert figures["rmse"]["value"] == pytest.approx(np.sqrt(2) * POSTERIOR_SD, rel=0.05)
    assert figures["z_mean"]["value"] == pytest.approx(2, abs=0.1)
    assert figures["z_sd"]["value"] == pytest.approx(2, rel=0.06)
    assert figures["outliers"]["value"] == 0
    assert figures["posterior_sd"] == pytest.approx(0.5 * POSTERIOR_SD, rel=0.02)
    for name in ("bias", "scatter", "rmse", "z_mean", "z_sd", "coverage_68", "coverage_90"):
        assert figures[name]["low"] < figures[name]["value"] < figures[name]["high"]


def test_label_errors_widen_what_the_posterior_is_held_to():
    samples, truth, _ = conjugate(n=3000)
    rng = np.random.default_rng(5)
    error = np.full(truth.shape, POSTERIOR_SD)
    labels = truth + error * rng.standard_normal(truth.shape)
    honest, naive = (point_errors(samples, labels, ["a", "b"], e)["a"] for e in (error, None))
    assert honest["z_sd"]["value"] == pytest.approx(1, abs=0.05)
    assert honest["coverage_68"]["value"] == pytest.approx(0.68, abs=0.03)
    assert naive["z_sd"]["value"] == pytest.approx(np.sqrt(2), rel=0.06)
    assert naive["coverage_68"]["value"] < 0.6
    overall = evaluate_draws(samples, labels, ["a", "b"], label_error=error)["overall"]
    assert overall["coverage"]["error"]["value"] < 0.02


def test_bootstrap_interval_has_the_standard_error_also_when_subsampled():
    x = np.random.default_rng(0).standard_normal((1, 40_000))
    for most in (5_000, 40_000):
        (mean,) = interval(lambda v: v[0].mean(-1)[None], x, 300, 0, max_objects=most)
        assert mean["high"] - mean["low"] == pytest.approx(2 * 1.96 / 200, rel=0.2)


def test_c2st_of_equal_and_shifted_samples():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 1000, 2))
    accuracy, error = c2st(x, y, quick=True)
    assert abs(accuracy - 0.5) < 4 * error and 0.005 < error < 0.05
    assert c2st(x, y, quick=True) == (accuracy, error)
    shifted, _ = c2st(x, y + [2, 0], quick=True, max_n=800)
    assert shifted == pytest.approx(norm.cdf(1), abs=0.03)
    assert c2st(x[:300] * [1, 1000], y[:300] * [1, 1000] + [3, 0], folds=3)[0] > 0.85
    with pytest.raises(SbiDaError, match="same parameters"):
        c2st(x, y[:, :1])


def test_bins_label_every_value_once():
    labels = bins(np.array([7.0, 7.8, 8.5, 9.0, np.nan]), [7.8, 9])
    assert labels.tolist() == ["<7.8", "7.8–9", "7.8–9", "≥9", "unknown"]
    with pytest.raises(SbiDaError, match="rising"):
        bins(np.zeros(2), [2, 1])


def test_strata_come_in_the_order_of_their_edges():
    samples, truth, _ = conjugate(n=60, draws=20)
    labels = bins(np.repeat([5.0, 50, 500, np.nan], 15), [10, 100])
    result = evaluate_draws(samples, truth, ["a", "b"], strata={"snr": labels}, min_count=5, replicates=10)
    assert list(result["strata"]["snr"]) == ["<10", "10–100", "≥100", "unknown"]


def test_evaluation_finds_the_bad_stratum_and_is_json():
    samples, truth, mean = conjugate(n=2000)
    bad = np.arange(2000) % 2 == 0
    samples[bad] = mean[bad, None] + 0.5 * (samples[bad] - mean[bad, None])
    log_prob = norm.logpdf(truth, mean, POSTERIOR_SD).sum(1)
    prior = norm.logpdf(truth).sum(1)
    strata = {"pattern": np.where(bad, "gaia", "gaia+wise"), "rare": np.where(np.arange(2000) < 20, "yes", "no")}
    result = evaluate_draws(samples, truth, ["a", "b"], log_prob, prior, strata)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    errors = {label: block["coverage"]["error"] for label, block in result["strata"]["pattern"].items()}
    assert errors["gaia"]["value"] == pytest.approx(analytic_error(widen=0.5), abs=0.02)
    assert errors["gaia+wise"]["value"] < errors["gaia+wise"]["limit"]
    assert result["too_few"]["rare"] == {"yes": 20}
    overall = result["overall"]
    entropy = 2 * (np.log(POSTERIOR_SD) + 0.5 * np.log(2 * np.pi * np.e))
    assert overall["nll"]["mean"]["value"] == pytest.approx(entropy, abs=0.1)
    assert overall["information_gain"]["mean"]["value"] == pytest.approx(-2 * np.log(POSTERIOR_SD), abs=0.15)
    assert sum(overall["sbc"]["histogram"]["a"]) == overall["n"] == 2000
    assert evaluate_draws(samples, truth, ["a", "b"], log_prob, prior, strata) == result


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"draws": np.full((4, 3, 1), np.nan)}, "not finite"),
        ({"truth": np.zeros((5, 1))}, r"\(object, draw, parameter\)"),
        ({"names": ["a", "b"]}, "2 names for 1"),
        ({"strata": {"snr": np.zeros(3)}}, "'snr'"),
        ({"label_error": np.zeros(4)}, "label_error"),
    ],
)
def test_bad_input_is_named(change, message):
    good = {"draws": np.zeros((4, 3, 1)), "truth": np.zeros((4, 1)), "names": ["a"]}
    with pytest.raises(SbiDaError, match=message):
        evaluate_draws(**{**good, **change})
