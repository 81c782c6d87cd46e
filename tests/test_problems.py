"""Problems with exact answers: the answers against brute force, and twins that are twins."""

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.special import logsumexp
from scipy.stats import kstest, multivariate_normal, norm

from benchmarks.problems import PROBLEMS
from benchmarks.problems.grid import zoom
from sbi_da.diagnostics import ranks, sbc_p_values
from sbi_da.errors import SbiDaError, UnknownNameError
from sbi_da.layout import Layout
from sbi_da.simulation import simulate

LINEAR = ("p1", "p2", "p3", "p4")


def values(problem, records):
    return Layout(problem.simulator.surveys()).read(records).value


def truth(problem, records):
    return np.stack([records.parameters[p] for p in problem.simulator.prior.names], -1)


def look(problem, theta, rng):
    """Noise-free signals of the simulator, shape ``(object, channel)``."""
    sky = problem.simulator.at(dict(zip(problem.simulator.prior.names, theta.T, strict=True)), rng)
    return np.stack([sky.signal(c) for s in problem.simulator.surveys() for c in s.channels], -1)


@pytest.mark.parametrize("name", PROBLEMS)
def test_contract(name, rng):
    problem = PROBLEMS[name](3)
    surveys = problem.simulator.surveys()
    assert problem.name == name
    assert all(c.kind == "scalar" and c.noise.scatter == 0 for s in surveys for c in s.channels)
    trained_on = simulate(problem.simulator, surveys, 500, 0, problem.missing)
    simulated, real = problem.twins(500, rng)
    quoted = np.tile(problem.simulator.noise, (500, 1))
    for records, domain in ((trained_on, "simulated"), (simulated, "simulated"), (real, "real")):
        assert records.attrs["domain"] == domain and len(records) == 500
        assert Layout(surveys).read(records).error == pytest.approx(quoted)
        assert np.abs(values(problem, records)).max() < 60
    assert truth(problem, simulated) == pytest.approx(truth(problem, real))
    assert np.isfinite(problem.simulator.prior.log_prob(real.parameters)).all()
    assert (Layout(surveys).read(simulated).state == Layout(surveys).read(real).state).all()
    assert np.abs(values(problem, simulated) - values(problem, real)).std() > 0.05
    assert truth(problem, problem.real(500, rng)) != pytest.approx(truth(problem, real))
    assert truth(problem, problem.real(5, np.random.default_rng(8))).tolist() == truth(
        problem, problem.twins(5, np.random.default_rng(8))[1]
    ).tolist()


@pytest.mark.parametrize("name", PROBLEMS)
def test_simulated_twins_are_those_of_the_simulator(name, rng):
    problem = PROBLEMS[name](0)
    simulated, _ = problem.twins(2000, rng)
    white = (values(problem, simulated) - look(problem, truth(problem, simulated), rng)) / problem.simulator.noise
    assert white.mean(0) == pytest.approx(np.zeros(white.shape[1]), abs=0.1)
    assert white.std(0) == pytest.approx(np.ones(white.shape[1]), abs=0.07)


@pytest.mark.parametrize("name", LINEAR)
def test_linear_twins_differ_by_the_instrument_and_a_little_noise(name, rng):
    problem = PROBLEMS[name](2)
    simulated, real = (values(problem, r) for r in problem.twins(4000, rng))
    residual = real - simulated @ problem.response.T - problem.offset
    assert residual.std(0) == pytest.approx(np.full(10, 0.1), rel=0.06)
    design = np.column_stack([simulated, np.ones(4000)])
    fitted = np.linalg.lstsq(design, real, rcond=None)[0]
    assert fitted[:10].T == pytest.approx(problem.response, abs=0.03)
    assert fitted[10] == pytest.approx(problem.offset, abs=0.02)


def test_linear_instances():
    p1, p2, p3, p4 = (PROBLEMS[name](7) for name in LINEAR)
    assert (p1.matrix == p3.matrix).all() and (p1.response == p4.response).all() and (p1.offset == p4.offset).all()
    assert (p3.response == np.eye(10)).all() and (p3.offset == 0).all() and (p2.offset == 0).all()
    assert (PROBLEMS["p1"](8).matrix != p1.matrix).all()
    assert p2.matrix.T @ p2.matrix == pytest.approx(1.8**2 * np.eye(3))
    assert p2.response @ p2.response.T == pytest.approx(np.eye(10))
    assert np.linalg.det(p2.response) == pytest.approx(1)
    span = p2.matrix / 1.8
    assert span @ span.T @ p2.response @ span == pytest.approx(p2.response @ span)
    beside = np.eye(10) - span @ span.T
    assert p2.response @ beside == pytest.approx(beside)
    assert np.abs(p2.response @ span - span).max() > 0.2
    for problem in (p1, p2, p3, p4):
        mean, sd = ((1, -0.7, 0), (0.4, 0.5, 0.8)) if problem in (p3, p4) else ((0, 0, 0), (1, 1, 1))
        theta = truth(problem, problem.real(4000, np.random.default_rng(0)))
        assert theta.mean(0) == pytest.approx(mean, abs=0.06)
        assert theta.std(0) == pytest.approx(sd, rel=0.06)


def test_linear_instances_have_the_scales_of_their_definition():
    problems = [PROBLEMS["p1"](seed) for seed in range(200)]
    assert np.std([p.matrix for p in problems]) == pytest.approx(1 / 1.7, rel=0.05)
    assert np.std([p.offset for p in problems]) == pytest.approx(0.5, rel=0.07)
    response = np.array([p.response for p in problems])
    assert response[:, ~np.eye(10, dtype=bool)].std() == pytest.approx(0.12 * np.hypot(1, 0.15), rel=0.03)
    diagonal = np.diagonal(response, axis1=1, axis2=2)
    assert diagonal.mean() == pytest.approx(1, abs=0.02)
    assert diagonal.std() == pytest.approx(np.hypot(0.12, 0.15), rel=0.07)


def test_unpaired_objects_do_not_show_the_rotation():
    problem = PROBLEMS["p2"](1)
    simulated, real = (values(problem, r) for r in problem.twins(20000, np.random.default_rng(3)))
    assert real.mean(0) == pytest.approx(simulated.mean(0), abs=0.05)
    assert np.cov(real.T) == pytest.approx(np.cov(simulated.T) + 0.01 * np.eye(10), abs=0.05)
    assert np.abs(real - simulated).mean() > 0.3


@pytest.mark.parametrize("name", LINEAR)
def test_linear_posteriors_are_those_regression_finds(name):
    problem = PROBLEMS[name](4)
    _, real = problem.twins(40000, np.random.default_rng(5))
    x, theta = values(problem, real), truth(problem, real)
    coefficients = np.linalg.lstsq(np.column_stack([x, np.ones(len(x))]), theta, rcond=None)[0]
    few = real.isel(slice(0, 6))
    mean = np.column_stack([x[:6], np.ones(6)]) @ coefficients
    covariance = np.cov((theta - np.column_stack([x, np.ones(len(x))]) @ coefficients).T)
    at = mean + np.random.default_rng(0).multivariate_normal(np.zeros(3), covariance, 6)
    expected = [multivariate_normal.logpdf(t, m, covariance) for t, m in zip(at, mean, strict=True)]
    assert problem.exact_log_prob(few, at) == pytest.approx(expected, abs=0.1)
    drawn = problem.exact_sample(few, 20000, np.random.default_rng(1))
    assert drawn.mean(1) == pytest.approx(mean, abs=0.015)
    assert np.cov((drawn - drawn.mean(1, keepdims=True)).reshape(-1, 3).T) == pytest.approx(covariance, abs=0.002)


def importance(log_likelihood, law, draws, rng, count=50_000):
    """Log evidence and posterior mean, from draws half of the prior and half of a wide Gaussian about ``draws`` of the posterior."""
    near = multivariate_normal(draws.mean(0), 4 * np.cov(draws.T))
    theta = np.concatenate([np.stack(list(law.sample(count, rng).values()), -1), near.rvs(count, rng)])
    log_prior = law.log_prob(dict(zip(law.names, theta.T, strict=True)))
    weight = log_likelihood(theta) + log_prior - np.logaddexp(log_prior, near.logpdf(theta)) + np.log(2)
    share = np.exp(weight - logsumexp(weight))
    assert 1 / (share**2).sum() > 2000
    return logsumexp(weight) - np.log(len(theta)), share @ theta


@pytest.mark.parametrize("population", ["real", "simulator"])
@pytest.mark.parametrize("name", ["p1", "p4"])
def test_linear_posteriors_against_importance_sampling(name, population):
    problem, rng = PROBLEMS[name](6), np.random.default_rng(2)
    real = problem.real(3, rng)
    law = problem.population if population == "real" else problem.simulator.prior
    noise = 0.09 * problem.response @ problem.response.T + 0.01 * np.eye(10)
    exact = problem.exact_log_prob(real, truth(problem, real), population)
    drawn = problem.exact_sample(real, 20000, rng, population)
    for i, x in enumerate(values(problem, real)):
        def log_likelihood(t, x=x):
            residual = t @ (problem.response @ problem.matrix).T + problem.offset - x
            return np.atleast_1d(multivariate_normal.logpdf(residual, None, noise))

        at = truth(problem, real)[i]
        log_evidence, mean = importance(log_likelihood, law, drawn[i], rng)
        prior = law.log_prob(dict(zip(law.names, at, strict=True)))
        assert exact[i] == pytest.approx(float(prior + log_likelihood(at[None])[0] - log_evidence), abs=0.06)
        assert (drawn[i].mean(0) - mean) / drawn[i].std(0) == pytest.approx(np.zeros(3), abs=0.06)


def test_oscillator_obeys_its_equation_of_motion():
    from benchmarks.problems.oscillator import TIMES, signal

    for frequency, amplitude, damping in ((0.4, 0.7, 0.3), (2.5, 1.5, 0.15), (1.0, 1.0, 0.0)):
        def motion(t, y, a=damping, k=damping**2 + frequency**2):
            return y[1], -2 * a * y[1] - k * y[0]

        path = solve_ivp(motion, (0, 10), (amplitude, 0), t_eval=TIMES, rtol=1e-9, atol=1e-10).y[0]
        assert signal(np.array([frequency, amplitude]), np.array(damping)) == pytest.approx(path, abs=1e-6)


def test_oscillator_is_damped_in_reality_only(rng):
    problem = PROBLEMS["p5"](0)
    simulated, real = (values(problem, r) for r in problem.twins(3000, rng))
    assert (simulated[:, -10:] ** 2).mean() > 5 * (real[:, -10:] ** 2).mean()
    assert simulated[:, 0] == pytest.approx(real[:, 0])
    theta, time = np.tile([1.3, 1.0], (20_000, 1)), np.linspace(0, 10, 40)
    sent = problem.recorded(theta, look(problem, theta, rng), rng)
    a = np.linspace(0.1, 0.5, 1001)[:, None]
    expected = np.exp(-a * time) * (np.cos(1.3 * time) + a / 1.3 * np.sin(1.3 * time))
    assert sent.mean(0) == pytest.approx(expected.mean(0), abs=0.01)
    assert sent.std(0) == pytest.approx(expected.std(0), abs=0.01)
    assert truth(problem, problem.real(3000, rng)).min(0) == pytest.approx([0.3, 0.5], abs=0.01)
    assert truth(problem, problem.real(3000, rng)).max(0) == pytest.approx([3, 2], abs=0.01)


def test_oscillator_posterior_against_importance_sampling():
    from benchmarks.problems.oscillator import signal

    problem, rng = PROBLEMS["p5"](0), np.random.default_rng(11)
    real = problem.real(40, rng)
    drawn = problem.exact_sample(real, 2000, rng)
    chosen = np.argsort(-drawn.std(1).prod(-1))[[0, 8, 20]]
    for i in chosen:
        x = values(problem, real)[i]
        low, high = np.array([0.3, 0.5]), np.array([3.0, 2.0])
        low = np.maximum(low, drawn[i].min(0) - 0.5 * np.ptp(drawn[i], axis=0))
        high = np.minimum(high, drawn[i].max(0) + 0.5 * np.ptp(drawn[i], axis=0))
        theta, damping = rng.uniform(low, high, (60_000, 2)), rng.uniform(0.1, 0.5, 60_000)
        weight = norm.logpdf(x, signal(theta, damping), 0.1).sum(-1)
        log_evidence = logsumexp(weight) - np.log(len(theta)) + np.log(np.prod(high - low))
        at = np.quantile(drawn[i], [0.3, 0.5, 0.8], axis=0)
        a = np.linspace(0.1, 0.5, 4001)
        marginal = logsumexp(norm.logpdf(x, signal(at[:, None], a), 0.1).sum(-1), axis=1) - np.log(len(a))
        exact = problem.exact_log_prob(real.isel([i]), at[None])[0]
        assert exact == pytest.approx(marginal - log_evidence, abs=0.1)
        share = np.exp(weight - logsumexp(weight))
        assert 1 / (share**2).sum() > 300
        assert (drawn[i].mean(0) - share @ theta) / drawn[i].std(0) == pytest.approx(np.zeros(2), abs=0.2)


def test_photometry_is_centred_and_reality_is_what_it_says(rng):
    problem = PROBLEMS["p6"](5)
    assert look(problem, np.zeros((1, 2)), rng) == pytest.approx(np.zeros((1, 10)), abs=1e-12)
    wavelength = np.array([0.5, 0.62, 0.77, 1.2, 1.6, 2.2, 3.4, 4.6, 12, 22])
    theta = np.array([[0.3, -0.4], [-1.5, 1.2]])
    temperature, extinction = 4.5 * np.exp(theta[:, :1] / 4), np.log(1 + np.exp(theta[:, 1:] + 0.5))

    def magnitude(t, a, slope):
        return 0.9 * 2.5 * np.log10(np.expm1(23 / (wavelength * t))) + a * (wavelength / 0.55) ** -slope

    centre = magnitude(4.5, np.log(1 + np.exp(0.5)), 1.6)
    assert look(problem, theta, rng) == pytest.approx(magnitude(temperature, extinction, 1.6) - centre)
    ripple = np.where(wavelength < 1, 0.25 * np.sin(2 * temperature), 0)
    expected = magnitude(temperature, extinction, 1.9) + ripple + problem.zero_points - centre
    assert problem.recorded(theta, look(problem, theta, rng), rng) == pytest.approx(expected)
    points = np.array([PROBLEMS["p6"](seed).zero_points for seed in range(100)])
    assert points.std() == pytest.approx(0.2, rel=0.1) and (points[0] != points[1]).all()


def test_photometry_lacks_whole_surveys(rng):
    problem = PROBLEMS["p6"](0)
    real = problem.real(4000, rng)
    states = [real.survey(s.name).state > 0 for s in problem.simulator.surveys()]
    assert all((s.all(1) == s.any(1)).all() for s in states)
    assert [s.any(1).mean() for s in states] == pytest.approx([0.95, 0.8, 0.6], abs=0.03)
    empty = real.isel(real.pattern() == "none")
    assert len(empty) > 3
    at = rng.standard_normal((len(empty), 2))
    for population, (mean, sd) in {"real": ((-0.5, 0.4), (0.7, 0.8)), "simulator": ((0, 0), (1, 1))}.items():
        expected = norm.logpdf(at, mean, sd).sum(-1)
        assert problem.exact_log_prob(empty, at, population) == pytest.approx(expected, abs=0.002)
        drawn = problem.exact_sample(empty, 5000, rng, population)
        assert drawn.mean((0, 1)) == pytest.approx(mean, abs=0.03)
        assert drawn.std((0, 1)) == pytest.approx(sd, abs=0.03)


@pytest.mark.parametrize("population", ["real", "simulator"])
def test_photometric_posterior_against_importance_sampling(population):
    problem, rng = PROBLEMS["p6"](1), np.random.default_rng(4)
    real = problem.real(200, rng)
    patterns, first = np.unique(real.pattern(), return_index=True)
    assert len(patterns) >= 6
    real = real.isel(first)
    law = problem.population if population == "real" else problem.simulator.prior
    seen = Layout(problem.simulator.surveys()).read(real)
    at = truth(problem, real)
    exact = problem.exact_log_prob(real, at, population)
    drawn = problem.exact_sample(real, 4000, rng, population)
    for i in range(len(first)):
        kept = seen.state[i] > 0

        def log_likelihood(t, x=seen.value[i], kept=kept):
            # what reality records of noise-free simulated twins is its own noise-free signal
            sent = problem.recorded(t, look(problem, t, rng), rng)[:, kept]
            return norm.logpdf(x[kept], sent, problem.simulator.noise[kept]).sum(-1)

        log_evidence, mean = importance(log_likelihood, law, drawn[i], rng)
        prior = law.log_prob(dict(zip(law.names, at[i], strict=True)))
        assert exact[i] == pytest.approx(float(prior + log_likelihood(at[i : i + 1])[0] - log_evidence), abs=0.06)
        assert (drawn[i].mean(0) - mean) / drawn[i].std(0) == pytest.approx(np.zeros(2), abs=0.1)


@pytest.mark.parametrize(("name", "population"), [("p5", "real"), ("p6", "real"), ("p6", "simulator")])
def test_densities_integrate_to_one_and_have_the_moments_of_the_draws(name, population):
    problem, rng = PROBLEMS[name](2), np.random.default_rng(6)
    real = problem.real(3, rng)
    drawn = problem.exact_sample(real, 20_000, rng, population)
    bounds = np.array([problem.simulator.prior.bounds(p) for p in problem.simulator.prior.names])
    for i in range(3):
        span = np.ptp(drawn[i], axis=0) * 0.4
        limits = np.clip([drawn[i].min(0) - span, drawn[i].max(0) + span], *bounds.T)
        edges = [np.linspace(*limits[:, k], 81) for k in (0, 1)]
        grid = np.stack(np.meshgrid(*((e[1:] + e[:-1]) / 2 for e in edges), indexing="ij"), -1).reshape(-1, 2)
        mass = np.exp(problem.exact_log_prob(real.isel([i]), grid[None], population)[0])
        mass *= np.prod([e[1] - e[0] for e in edges])
        assert mass.sum() == pytest.approx(1, abs=0.01)
        mean, sd = mass @ grid, drawn[i].std(0)
        assert (drawn[i].mean(0) - mean) / sd == pytest.approx(np.zeros(2), abs=0.03)
        assert np.cov((drawn[i] / sd).T) == pytest.approx(mass * ((grid - mean) / sd).T @ ((grid - mean) / sd), abs=0.04)


@pytest.mark.parametrize("name", PROBLEMS)
def test_exact_posteriors_are_calibrated(name):
    problem, rng = PROBLEMS[name](1), np.random.default_rng(100)
    real = problem.real(300, rng)
    theta = truth(problem, real)
    drawn = problem.exact_sample(real, 63, rng)
    assert (sbc_p_values(ranks(drawn, theta, rng), 63) > 0.01).all()
    both = problem.exact_log_prob(real, np.concatenate([theta[:, None], drawn[:, :10]], 1))
    assert both[:5, 0] == pytest.approx(problem.exact_log_prob(real.isel(slice(0, 5)), theta[:5]))
    level = ((both[:, 1:] < both[:, :1]).sum(1) + rng.random(300)) / 11
    assert kstest(level, "uniform").pvalue > 0.01


@pytest.mark.parametrize("name", ["p4", "p6"])
def test_populations_differ_by_the_ratio_of_their_laws(name, rng):
    problem = PROBLEMS[name](3)
    real = problem.real(4, rng)
    at = problem.exact_sample(real, 5, rng, "simulator")
    columns = dict(zip(problem.simulator.prior.names, np.moveaxis(at, -1, 0), strict=True))
    ratio = problem.population.log_prob(columns) - problem.simulator.prior.log_prob(columns)
    change = problem.exact_log_prob(real, at) - problem.exact_log_prob(real, at, "simulator") - ratio
    assert np.ptp(change, axis=1) == pytest.approx(np.zeros(4), abs=1e-9)
    assert np.abs(change).min() > 0.01


def test_zoom_finds_a_narrow_peak_and_keeps_the_edges():
    def log_value(x, y):
        return norm.logpdf(x, 0.777, 0.004)[:, None] + norm.logpdf(y, 0.0, 0.02)

    plane = zoom(log_value, ((0, 1), (0, 1)), ((150, 50), (100, 100), (100, 100)))
    assert plane.log_integral == pytest.approx(np.log(0.5), abs=1e-3)
    drawn = plane.sample(20_000, np.random.default_rng(0))
    assert drawn.mean(0) == pytest.approx([0.777, 0.02 * np.sqrt(2 / np.pi)], abs=0.0005)
    assert drawn.std(0) == pytest.approx([0.004, 0.02 * np.sqrt(1 - 2 / np.pi)], rel=0.03)
    assert drawn.min() >= 0


def test_errors_say_what_is_wrong(rng):
    problem = PROBLEMS["p1"](0)
    real = problem.real(4, rng)
    with pytest.raises(UnknownNameError, match="unknown population 'prior': known are real, simulator"):
        problem.exact_sample(real, 3, rng, "prior")
    for shape in ((3,), (4, 2), (5, 3), (4, 3, 1, 3)):
        with pytest.raises(SbiDaError, match="must be \\(n, p\\) or \\(n, m, p\\) with n = 4 objects and p = 3"):
            problem.exact_log_prob(real, np.zeros(shape))
    with pytest.raises(SbiDaError, match="second_0 is absent"):
        problem.exact_log_prob(real.select(["first"]), np.zeros((4, 3)))
    channel = problem.simulator.surveys()[0].channels[0].model_copy(update={"name": "other"})
    with pytest.raises(UnknownNameError, match="unknown channel 'other'"):
        problem.simulator.at(real.parameters, rng).signal(channel)
    oscillator = PROBLEMS["p5"](0)
    assert oscillator.exact_log_prob(oscillator.real(2, rng), np.array([[0.2, 1.0], [1.0, 2.5]])).tolist() == [-np.inf, -np.inf]
