"""Weights for a shifted population, where the ratio of densities is known."""

import numpy as np
import pytest
from scipy.stats import multivariate_normal as normal

from sbi_da.alignment.population import (
    Population,
    density_ratio,
    population_em,
    weights_from_labels,
    weights_from_sample,
)
from sbi_da.errors import SbiDaError

MEAN, SD = np.array([1.0, -0.7, 0.0]), np.array([0.4, 0.5, 0.8])
PAIR = Population(np.array([0.3, 0.7]), np.array([[0.5, 0.0], [-0.5, 0.2]]), np.array([[[0.3, 0.1], [0.1, 0.5]], np.eye(2) / 2]))


def prior_rows(n=20_000, p=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, p))


def members(n, seed=1, mean=MEAN, sd=SD):
    return mean + sd * np.random.default_rng(seed).standard_normal((n, len(mean)))


def moments(population):
    mean = population.fractions @ population.means
    away = population.means - mean
    return mean, np.einsum("c,cij->ij", population.fractions, population.covariances + away[:, :, None] * away[:, None])


def effective_fraction(mean, sd):
    """1 / E[r²] of r = N(mean, sd²) / N(0, 1) over the prior."""
    return float(np.prod(sd * np.sqrt(2 - sd**2) * np.exp(-(mean**2) / (2 - sd**2))))


def divergence(mean, covariance, fit):
    """KL from N(mean, covariance) to a fit of one Gaussian."""
    inverse, away = np.linalg.inv(fit.covariances[0]), fit.means[0] - mean
    logs = np.linalg.slogdet(fit.covariances[0])[1] - np.linalg.slogdet(covariance)[1]
    return 0.5 * (np.trace(inverse @ covariance) + away @ inverse @ away - len(mean) + logs)


def conjugate_draws(theta, noise, draws, seed=2):
    """Draws from the exact posteriors of theta + noise under N(0, I), and the data."""
    rng = np.random.default_rng(seed)
    x = theta + noise * rng.standard_normal(theta.shape)
    variance = 1 / (1 + noise**-2)
    return (x * variance / noise**2)[:, None] + variance**0.5 * rng.standard_normal((len(x), draws, theta.shape[1])), x


def test_mixture_density_is_that_of_scipy():
    z = prior_rows(50, 2)
    by_scipy = sum(f * normal(m, c).pdf(z) for f, m, c in zip(PAIR.fractions, PAIR.means, PAIR.covariances, strict=True))
    assert np.exp(PAIR.log_prob(z)) == pytest.approx(by_scipy)


def test_ratio_effective_size_and_divergence_are_the_analytic_ones():
    z = prior_rows(200_000)
    result = density_ratio(z, Population.gaussian(MEAN, np.diag(SD**2)))
    ratio = normal(MEAN, np.diag(SD**2)).pdf(z) / normal(np.zeros(3), np.eye(3)).pdf(z)
    assert result.weights == pytest.approx(ratio) and ratio.max() < 20
    assert result.effective_sample_size / len(z) == pytest.approx(effective_fraction(MEAN, SD), rel=0.05)
    assert result.kl == pytest.approx(0.5 * (SD**2 + MEAN**2 - 1 - np.log(SD**2)).sum(), rel=0.05)
    assert result.trusted and not result.reason


def test_ratio_to_rows_of_another_proposal():
    z = prior_rows() * 0.8 + 0.3
    target = Population.gaussian(np.full(3, 0.1), 0.4 * np.eye(3))
    expected = target.log_prob(z) - normal(np.full(3, 0.3), 0.64 * np.eye(3)).logpdf(z)
    result = density_ratio(z, target, reference="rows")
    assert np.corrcoef(np.log(result.weights), expected)[0, 1] > 0.999
    assert np.average(z, axis=0, weights=result.weights) == pytest.approx(np.full(3, 0.1), abs=0.03)
    assert np.abs(np.average(z, axis=0, weights=density_ratio(z, target).weights) - 0.1).max() > 0.1


def test_ratios_are_clipped_at_twenty():
    z = prior_rows()
    ratio = normal(MEAN, 0.16 * np.eye(3)).pdf(z) / normal(np.zeros(3), np.eye(3)).pdf(z)
    result = density_ratio(z, Population.gaussian(MEAN, 0.16 * np.eye(3)))
    assert ratio.max() > 25 and result.weights == pytest.approx(np.minimum(ratio, 20))
    assert result.effective_sample_size == pytest.approx(ratio.sum() ** 2 / (ratio**2).sum())


def test_clipping_would_hide_a_hopeless_overlap():
    z = prior_rows()
    far = density_ratio(z, Population.gaussian(np.full(3, 2.0), 0.04 * np.eye(3)))
    assert not far.trusted and "effective sample size" in far.reason
    assert far.weights.max() == 20 and np.isfinite(far.kl)
    beyond = density_ratio(z, Population.gaussian(np.full(3, 60.0), 0.01 * np.eye(3)))
    assert not beyond.trusted and np.isfinite(beyond.weights).all() and np.isfinite(beyond.kl)


def test_labels_give_weights_that_move_simulations_to_the_population():
    z = prior_rows()
    result = weights_from_labels(z, members(2000))
    assert divergence(MEAN, np.diag(SD**2), result.population) < 0.01
    centre = np.average(z, axis=0, weights=result.weights)
    assert centre == pytest.approx(MEAN, abs=0.08)
    assert result.trusted


@pytest.mark.parametrize("kind", ["sd", "covariance"])
def test_errors_of_labels_are_deconvolved(kind):
    rng = np.random.default_rng(3)
    sd = rng.uniform(0.1, 0.9, (3000, 3))
    labels = members(3000) + sd * rng.standard_normal((3000, 3))
    errors = sd if kind == "sd" else sd[:, :, None] ** 2 * np.eye(3)
    fit = weights_from_labels(prior_rows(100), labels, errors).population
    assert np.sqrt(np.diag(fit.covariances[0])) == pytest.approx(SD, abs=0.05)
    assert fit.means[0] == pytest.approx(MEAN, abs=0.05)
    blind = weights_from_labels(prior_rows(100), labels).population
    assert np.sqrt(np.diag(blind.covariances[0])).min() > 0.6


def test_correlated_errors_are_deconvolved():
    noise = np.array([[0.3, 0.25], [0.25, 0.3]])
    rng = np.random.default_rng(4)
    labels = 0.5 * rng.standard_normal((4000, 2)) + rng.multivariate_normal([0, 0], noise, 4000)
    fit = weights_from_labels(prior_rows(100, 2), labels, np.repeat(noise[None], 4000, 0)).population
    assert fit.covariances[0] == pytest.approx(0.25 * np.eye(2), abs=0.04)


def test_unknown_entries_of_labels_are_left_out():
    labels = members(3000)
    labels[np.random.default_rng(5).random(labels.shape) < 0.4] = np.nan
    fit = weights_from_labels(prior_rows(100), labels).population
    assert divergence(MEAN, np.diag(SD**2), fit) < 0.02


def test_few_labels_are_shrunk_and_cost_what_they_should():
    """Half a nat per free number and label, as the rule of trust assumes; plain moments cost more, believing nothing 1.6."""
    z, truth = prior_rows(100), np.diag(SD**2)
    for k, most in ((10, 0.7), (30, 0.2)):
        fits, plain = [], []
        for seed in range(40):
            labels = members(k, seed + 10)
            fits.append(divergence(MEAN, truth, weights_from_labels(z, labels).population))
            moment = Population.gaussian(labels.mean(0), np.cov(labels.T))
            plain.append(divergence(MEAN, truth, moment))
        assert np.mean(fits) < most and np.mean(fits) < np.mean(plain)


def test_shrinkage_of_one_parameter_is_the_formula():
    """By hand: variance s² (1 + 1/k) moved to 1 by 2 v² / k over its squared distance from 1, and the mean by v / k over mean²."""
    k, label = 40, 0.4 + 0.5 * prior_rows(40, 1)
    found = label.var() * (1 + 1 / k)
    v = 1.0
    for _ in range(200):
        intensity = min(1, 2 * v**2 / k / (found - 1) ** 2)
        v = (1 - intensity) * found + intensity
    kept = 1 - v / k / label.mean() ** 2
    fit = weights_from_labels(prior_rows(10, 1), label).population
    assert fit.means[0, 0] == pytest.approx(kept * label.mean(), rel=1e-3)
    assert fit.covariances[0, 0, 0] == pytest.approx(v + kept * v / k, rel=1e-3)
    assert 0 < intensity < 0.5 and 0.5 < kept < 0.99


def test_labels_from_the_prior_change_next_to_nothing():
    z = prior_rows()
    shares = [weights_from_labels(z, prior_rows(30, seed=s + 20)).effective_sample_size / len(z) for s in range(20)]
    assert np.mean(shares) > 0.9


def test_labels_that_happen_to_agree_are_not_believed():
    agreeing = np.full((4, 3), 0.2) + 1e-3 * prior_rows(4)
    result = weights_from_labels(prior_rows(), agreeing)
    assert np.linalg.eigvalsh(result.population.covariances[0])[0] > 0.9
    assert not result.trusted


def test_errors_larger_than_the_population_leave_room_for_it():
    """All labels at one point, errors of 0.5: their scatter is less than their errors by chance, not because there is none."""
    result = weights_from_labels(prior_rows(), np.zeros((40, 3)), 0.5)
    widths = np.sqrt(np.linalg.eigvalsh(result.population.covariances[0]))
    assert 0.15 < widths.min() and widths.max() < 0.5


@pytest.mark.parametrize(("p", "enough"), [(3, 10), (6, 27)])
def test_trust_needs_as_many_labels_as_numbers(p, enough):
    z, labels = prior_rows(p=p), 0.9 * prior_rows(60, p, seed=7)
    assert weights_from_labels(z, labels[:enough]).trusted
    few = weights_from_labels(z, labels[: enough - 1])
    assert not few.trusted and f"{enough - 1} labels; {enough} are needed" in few.reason
    holes = labels[:enough].copy()
    holes[0, 0] = np.nan
    assert not weights_from_labels(z, holes).trusted


def test_no_label_or_one_is_the_prior_and_untrusted():
    for labels in (np.empty((0, 3)), np.ones((1, 3)), np.full((12, 3), np.nan)):
        result = weights_from_labels(prior_rows(500), labels)
        assert not result.trusted
        assert result.weights == pytest.approx(np.ones(500), rel=1e-4) or len(labels) == 1
        assert np.isfinite(result.weights).all()


def test_a_sample_of_two_populations_is_recovered():
    truth = Population(np.array([0.6, 0.4]), np.array([MEAN, -MEAN]), np.array([np.diag(SD**2), 0.09 * np.eye(3)]))
    sample = np.concatenate([members(3000), members(2000, 2, -MEAN, np.full(3, 0.3))])
    z = prior_rows(5000)
    result = weights_from_sample(z, sample)
    assert len(result.population.fractions) == 2 and sorted(result.population.fractions) == pytest.approx([0.4, 0.6], abs=0.02)
    exact = density_ratio(z, truth)
    assert result.effective_sample_size == pytest.approx(exact.effective_sample_size, rel=0.1)
    assert result.weights == pytest.approx(exact.weights, abs=2.0) and result.trusted


def test_a_gaussian_sample_needs_one_component():
    result = weights_from_sample(prior_rows(100), members(2000))
    assert len(result.population.fractions) == 1
    assert divergence(MEAN, np.diag(SD**2), result.population) < 0.01


@pytest.mark.parametrize("noise", [0.2, 0.5])
def test_em_finds_the_population_behind_posteriors(noise):
    draws, x = conjugate_draws(members(800), noise, 100)
    fit = population_em(draws)
    assert fit.converged and not fit.reason
    assert fit.population.means[0] == pytest.approx(MEAN, abs=0.1)
    assert np.sqrt(np.diag(fit.population.covariances[0])) == pytest.approx(SD, abs=0.07)
    assert np.abs(draws.mean((0, 1)) - MEAN).max() > (0.15 if noise == 0.5 else 0.0)  # the posteriors alone lean to the prior
    covariance = fit.population.covariances[0] + noise**2 * np.eye(3)
    evidence = normal(fit.population.means[0], covariance).logpdf(x) - normal(np.zeros(3), (1 + noise**2) * np.eye(3)).logpdf(x)
    assert fit.log_likelihood[-1] == pytest.approx(evidence.mean(), abs=0.02)
    assert (np.diff(fit.log_likelihood) > -1e-4).all() and fit.log_likelihood[-1] > fit.log_likelihood[0]
    result = fit.weights(prior_rows())
    assert result.trusted and result.effective_sample_size / 20_000 == pytest.approx(effective_fraction(MEAN, SD), rel=0.35)


def test_simulations_like_the_sample_need_no_weights():
    z = members(4000)
    assert weights_from_sample(z, members(4000, 2), reference="rows").weights == pytest.approx(np.ones(4000), abs=0.6)
    assert weights_from_labels(z, members(400, 3), reference="rows").effective_sample_size > 3500
    draws, _ = conjugate_draws(members(500, 4), 0.1, 30)
    assert population_em(draws).weights(z, reference="rows").effective_sample_size > 3500


def test_em_finds_two_populations():
    mean = np.array([1.2, 0.0])
    theta = np.concatenate([members(700, 1, mean, np.full(2, 0.3)), members(300, 2, -mean, np.full(2, 0.3))])
    fit = population_em(conjugate_draws(theta, 0.3, 40)[0], components=3)
    order = fit.population.means[:, 0].argsort()
    assert fit.population.fractions[order] == pytest.approx([0.3, 0.7], abs=0.03)
    assert fit.population.means[order] == pytest.approx(np.array([-mean, mean]), abs=0.08)
    expected = np.array([-0.4, 0.4]) * mean[:, None]
    assert moments(fit.population)[0] == pytest.approx(expected[:, 1], abs=0.1)


def test_em_works_for_one_parameter():
    fit = population_em(conjugate_draws(members(500, 1, np.array([0.8]), np.array([0.5])), 0.4, 60)[0])
    assert fit.population.means[0, 0] == pytest.approx(0.8, abs=0.1) and not fit.reason


@pytest.mark.parametrize(("case", "reason"), [
    ("one step", "not converged"), ("few", "are needed for 3 parameters"), ("vague", "exact labels"), ("apart", "take more draws"),
])
def test_em_says_when_it_is_not_to_be_trusted(case, reason):
    if case == "one step":
        fit = population_em(conjugate_draws(members(300), 0.5, 50)[0], iterations=2)
    elif case == "few":
        fit = population_em(conjugate_draws(members(7), 0.1, 50)[0])
    elif case == "vague":
        fit = population_em(conjugate_draws(members(300), 3.0, 50)[0])
    else:
        mean = np.full(6, 1.0)
        fit = population_em(conjugate_draws(members(400, 1, mean, np.full(6, 0.2)), 0.6, 60)[0])
    assert reason in fit.reason
    result = fit.weights(prior_rows(500, draws_of(fit)))
    assert not result.trusted and result.reason == fit.reason


def draws_of(fit):
    return fit.population.means.shape[1]


def test_effective_sizes_of_objects_are_those_of_their_draws():
    draws, _ = conjugate_draws(members(200), 0.4, 80)
    fit = population_em(draws)
    log_ratio = fit.population.log_prob(draws.reshape(-1, 3)) + 0.5 * (draws.reshape(-1, 3) ** 2).sum(1)
    weight = np.exp(log_ratio.reshape(200, 80))
    assert fit.effective_sample_size == pytest.approx(weight.sum(1) ** 2 / (weight**2).sum(1), rel=0.01)


def test_nonsense_is_refused():
    z = prior_rows(50)
    for call, message in [
        (lambda: weights_from_labels(z, np.ones((5, 2))), "z_labels must be"),
        (lambda: weights_from_labels(z, np.full((5, 3), np.inf)), "z_labels must be"),
        (lambda: weights_from_labels(z, np.ones((5, 3)), np.ones((5, 2))), "do not fit labels"),
        (lambda: weights_from_labels(z, np.ones((5, 3)), np.nan), "errors of labels must be finite"),
        (lambda: weights_from_sample(z, np.full((5, 3), np.nan)), "z_external must be"),
        (lambda: weights_from_sample(z, np.ones((5, 3)), components=0), "at least 1 component"),
        (lambda: density_ratio(z[:0], Population.gaussian(MEAN, np.eye(3))), "not empty"),
        (lambda: density_ratio(z[:, :2], Population.gaussian(MEAN, np.eye(3))), "use the same ones"),
        (lambda: population_em(z), "draws must be"),
    ]:
        with pytest.raises(SbiDaError, match=message):
            call()
