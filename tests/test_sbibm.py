"""Tasks of the benchmark: likelihoods against independent numbers, simulators against likelihoods, conditionals against brute force."""

import bz2
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import dblquad
from scipy.stats import kstest, multivariate_normal, norm, truncnorm

from benchmarks.sbibm.conditionals import generator, masked_data, random_conditionals, sample
from benchmarks.sbibm.references import WHEEL, find_wheel, reference
from benchmarks.sbibm.registry import registered
from benchmarks.sbibm.runs import path_of, run, simulations
from benchmarks.sbibm.scores import figures, row
from benchmarks.sbibm.tasks import TASKS
from benchmarks.sbibm.tasks.glm import design
from benchmarks.sbibm.tempering import tempered
from sbi_da.diagnostics import c2st_many
from sbi_da.errors import SbiDaError


def likelihood(name, theta, x):
    return float(TASKS[name]().log_likelihood(torch.tensor(theta).double(), torch.tensor(x).double()))


def question(task, **values):
    """Mask and values of variables called theta_1, x_2 and so on."""
    names = [*(f"theta_{i + 1}" for i in range(task.parameters)), *(f"x_{i + 1}" for i in range(task.data))]
    assert set(values) <= set(names)
    return np.array([n in values for n in names]), np.array([values.get(n, np.nan) for n in names])


def apart(x, y):
    """A short classifier test: 0.5 is alike, with a standard error of 0.008."""
    return float(c2st_many([x], [y], max_n=2000, epochs=100)[0][0])


def resampled(task, known, values, n, tries, rng, low, high):
    """Unknown variables by brute force: uniform points of a box, drawn again in proportion to the joint density."""
    both = np.tile(np.where(known, values, 0.0), (tries, 1))
    both[:, ~known] = rng.uniform(low, high, (tries, int((~known).sum())))
    level = task.log_joint(torch.from_numpy(both)).numpy()
    weight = np.exp(level - level.max())
    assert weight.sum() ** 2 / (weight**2).sum() > 2000
    return both[rng.choice(tries, n, p=weight / weight.sum())][:, ~known]


@pytest.mark.parametrize("name", TASKS)
def test_contract(name, rng):
    task = TASKS[name]()
    numbers = generator(name)
    theta = task.prior.sample(1000, numbers)
    x = task.simulate(theta, numbers)
    assert theta.shape == (1000, task.parameters) and x.shape == (1000, task.data)
    assert theta.dtype == x.dtype == torch.float64
    assert torch.isfinite(task.log_joint(torch.cat([theta, x], -1))).all()
    assert task.prior.log_prob(theta).numpy() == pytest.approx(task.prior.distribution(torch.float64).log_prob(theta).numpy())
    assert task.prior.from_normal(task.prior.to_normal(theta)).numpy() == pytest.approx(theta.numpy())
    assert list(task.prior.laws()) == [f"theta_{i + 1}" for i in range(task.parameters)]
    drawn = np.stack([law.quantile(*law.bounds, *(s * law.mass(*law.bounds) for s in (0.9, 0.1))) for law in task.prior.laws().values()])
    assert np.quantile(task.prior.sample(50_000, numbers), 0.9, axis=0) == pytest.approx(drawn, rel=0.05)
    first, again = (simulations(task, 10, 3) for _ in range(2))
    assert all((a == b).all() and a.dtype == np.float32 for a, b in zip(first, again, strict=True))
    assert (simulations(task, 10, 4)[0] != first[0]).any()


def test_likelihoods_against_independent_numbers(rng):
    theta = rng.uniform(-2, 2, 5)
    x = rng.normal(size=8)
    a, b, rho = theta[2] ** 2, theta[3] ** 2, np.tanh(theta[4])
    law = multivariate_normal(theta[:2], [[a**2, rho * a * b], [rho * a * b, b**2]])
    assert likelihood("slcp", theta, x) == pytest.approx(law.logpdf(x.reshape(4, 2)).sum())
    for name in ("gaussian_linear", "gaussian_linear_uniform"):
        theta, x = rng.normal(size=(2, 10))
        assert likelihood(name, theta, x) == pytest.approx(norm.logpdf(x, theta, np.sqrt(0.1)).sum())
    theta, x = [1.0, -2.0], [1.3, -2.1]
    wide, narrow = (multivariate_normal(theta, s * np.eye(2)).pdf(x) for s in (1, 0.01))
    assert likelihood("gaussian_mixture", theta, x) == pytest.approx(np.log(0.5 * wide + 0.5 * narrow))
    theta = rng.normal(size=10)
    spikes = rng.integers(0, 2, 100)
    chance = 1 / (1 + np.exp(-design().numpy() @ theta))
    expected = np.where(spikes, np.log(chance), np.log(1 - chance)).sum()
    assert likelihood("bernoulli_glm", theta, spikes @ design().numpy()) == pytest.approx(expected)


def test_two_moons_is_a_density_and_that_of_its_simulator():
    task = TASKS["two_moons"]()
    theta = torch.tensor([[0.3, -0.7]], dtype=torch.float64)
    x = task.simulate(theta.expand(200_000, -1), generator(0)).numpy()
    centre = np.array([0.25 - abs(0.3 - 0.7) / np.sqrt(2), (-0.7 - 0.3) / np.sqrt(2)])
    grid = np.stack(np.meshgrid(*(c + np.linspace(-0.15, 0.15, 601) for c in centre), indexing="ij"), -1)
    density = task.log_likelihood(theta[0], torch.from_numpy(grid)).exp().numpy()
    assert density.sum() * (0.3 / 600) ** 2 == pytest.approx(1, abs=0.01)
    for low, high in (((0.03, -0.02), (0.1, 0.08)), ((-0.1, -0.1), (0.05, 0.5))):
        inside = ((x - centre > low) & (x - centre < high)).all(1).mean()
        expected = density[((grid - centre > low) & (grid - centre < high)).all(-1)].sum() * (0.3 / 600) ** 2
        assert inside == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("name", ["slcp", "gaussian_linear", "gaussian_linear_uniform", "gaussian_mixture", "bernoulli_glm"])
def test_scores_of_simulations_have_mean_zero(name):
    """The gradient of the log-likelihood at the truth has mean zero over simulations, and its square is minus the curvature's mean."""
    task = TASKS[name]()
    numbers = generator(1)
    theta = (0.6 * task.prior.sample(1, numbers)).expand(100_000, -1).clone().requires_grad_()
    x = task.simulate(theta.detach(), numbers)
    gradient, = torch.autograd.grad(task.log_likelihood(theta, x).sum(), theta, create_graph=True)
    error = gradient.std(0) / len(x) ** 0.5
    assert (gradient.mean(0).abs() < 4.5 * error).all()
    curvature, = torch.autograd.grad(gradient[:, 0].sum(), theta)
    spread = (gradient[:, 0].square() + curvature[:, 0]).detach()
    assert abs(spread.mean()) < 4.5 * spread.std() / len(x) ** 0.5


def test_tempered_finds_modes_with_their_weights():
    def level(z):
        far = torch.tensor([2.0, 0.0, 0.0], dtype=torch.float64)
        return torch.logaddexp(-200 * (z - far).square().sum(-1) + np.log(3), -200 * (z + far).square().sum(-1))

    z = tempered(level, 3, 10_000, generator(2)).numpy()
    right = z[:, 0] > 0
    assert right.mean() == pytest.approx(0.75, abs=0.03)
    assert z[right].mean(0) == pytest.approx([2 / (1 + 1 / 400), 0, 0], abs=0.003)
    assert z[right].std(0) == pytest.approx(np.full(3, 401**-0.5), rel=0.05)


def test_gaussian_conditionals_have_their_known_laws():
    task = TASKS["gaussian_linear"]()
    drawn = sample(task, *question(task, x_1=1.0, theta_2=0.5), 20_000, 0)
    assert drawn.shape == (20_000, 18)
    assert kstest(drawn[:, 0], norm(0.5, np.sqrt(0.05)).cdf).pvalue > 1e-4
    assert kstest(drawn[:, 9], norm(0.5, np.sqrt(0.1)).cdf).pvalue > 1e-4
    assert kstest(drawn[:, 10], norm(0, np.sqrt(0.2)).cdf).pvalue > 1e-4
    task, sd = TASKS["gaussian_linear_uniform"](), np.sqrt(0.1)
    drawn = sample(task, *question(task, x_1=1.7), 20_000, 0)
    assert kstest(drawn[:, 0], truncnorm(-2.7 / sd, -0.7 / sd, 1.7, sd).cdf).pvalue > 1e-4
    assert kstest(drawn[:, 1], lambda t: (t + 1) / 2).pvalue > 1e-4


def all_data(values):
    return {f"x_{i + 1}": v for i, v in enumerate(values)}


TWO = [
    ("two_moons", {"x_1": -0.3, "x_2": 0.2}, -1, 1),
    ("two_moons", {"x_1": 0.1, "theta_1": 0.4}, -1, [1, 0]),
    ("two_moons", {"x_2": 0.1, "theta_2": 0.4}, -1.2, 1),
    ("two_moons", {"x_1": 0.05, "x_2": 0.2, "theta_1": -0.1}, -1, 1),
    ("two_moons", {"theta_2": 0.05, "x_1": -0.2, "theta_1": 0.6}, -1, 1),
    ("gaussian_mixture", {"x_1": 9.5, "x_2": 2.0}, [6, -2], [10, 6]),
    ("gaussian_mixture", {"x_1": 9.5, "theta_2": 2.0}, [6, -2], [10, 6]),
    ("gaussian_mixture", {"x_1": 9.5, "theta_1": 9.3, "x_2": -9.9}, -10, -6),
    ("slcp", {"theta_1": 0.5, "theta_2": 1.0, "theta_5": -0.4, **all_data([1, 2, 0, 0, 2, 1.5, 0, 1])}, -3, 3),
    ("slcp", {"theta_3": 1.2, "theta_4": -0.8, "theta_5": 0.7, **all_data([1, 2, 3, 3, 4, 3.5, 2, 4])}, -3, 3),
]


@pytest.mark.parametrize(("name", "given", "low", "high"), TWO)
def test_conditionals_of_few_unknowns_against_brute_force(name, given, low, high, rng):
    task = TASKS[name]()
    known, values = question(task, **given)
    brute = resampled(task, known, values, 4000, 2_000_000, rng, low, high)
    drawn = sample(task, known, values, 4000, 0)
    assert apart(brute, drawn) < 0.54


@pytest.mark.parametrize("given", [
    {"x_1": 1.0, "x_4": -0.5, "theta_4": 0.9}, {"x_1": 1.0, "x_2": 0.3, "x_3": -0.4, "theta_2": 0.1, "theta_5": 1.0},
    {"x_2": 4.0, "x_4": 3.0, "x_7": 2.0}, {"x_5": -2.0, "x_6": 1.0},
])
def test_slcp_with_some_data_missing_against_rejection(given, rng):
    """Prior draws weighted by the density of what is known, each datum of a point given the others by numpy."""
    task = TASKS["slcp"]()
    known, values = question(task, **given)
    theta = np.where(known[:5], values[:5], rng.uniform(-3, 3, (1_000_000, 5)))
    a, b, rho = theta[:, 2] ** 2, theta[:, 3] ** 2, np.tanh(theta[:, 4])
    level = np.zeros(len(theta))
    mask, points = known[5:].reshape(4, 2), values[5:].reshape(4, 2)
    for seen, (u, v) in zip(mask, points, strict=True):
        if seen[0]:
            level += norm.logpdf(u, theta[:, 0], a)
        if seen[1]:
            told = seen[0]
            mean = theta[:, 1] + (rho * b / a * (u - theta[:, 0]) if told else 0)
            level += norm.logpdf(v, mean, b * np.sqrt(1 - rho**2) if told else b)
    weight = np.exp(level - level.max())
    # where a spread vanishes the weight has no bound: what is compared are draws of spreads that are not small
    weight = np.where((np.abs(theta[:, 2:4]) > 0.3).all(1), weight, 0)
    assert weight.sum() ** 2 / (weight**2).sum() > 2000
    brute = theta[rng.choice(len(theta), 6000, p=weight / weight.sum())][:, ~known[:5]]
    drawn = sample(task, known, values, 10_000, 0)
    whole = np.tile(values[:5], (len(drawn), 1))
    whole[:, ~known[:5]] = drawn[:, : int((~known[:5]).sum())]
    drawn = whole[(np.abs(whole[:, 2:4]) > 0.3).all(1)][:, ~known[:5]]
    assert apart(brute, drawn) < 0.54


def test_missing_data_given_parameters(rng):
    task = TASKS["slcp"]()
    known, values = question(task, theta_1=1.0, theta_2=2.0, theta_3=1.5, theta_4=-1.0, theta_5=0.8, x_1=3.0, x_4=1.0)
    drawn = sample(task, known, values, 20_000, 0)
    slope, rest = np.tanh(0.8) / 2.25, np.sqrt(1 - np.tanh(0.8) ** 2)
    assert kstest(drawn[:, 0], norm(2 + slope * 2.0, rest).cdf).pvalue > 1e-4
    assert kstest(drawn[:, 1], norm(1 + 2.25**2 * slope * -1.0, 2.25 * rest).cdf).pvalue > 1e-4
    assert np.corrcoef(drawn[:, 2:4].T)[0, 1] == pytest.approx(np.tanh(0.8), abs=0.02)


def test_conditionals_that_cannot_be_asked():
    moons, neuron = TASKS["two_moons"](), TASKS["bernoulli_glm"]()
    with pytest.raises(SbiDaError, match="2 parameters and 2 data"):
        sample(moons, np.ones(3, bool), np.ones(3), 10, 0)
    with pytest.raises(SbiDaError, match="all or not at all"):
        sample(neuron, *question(neuron, x_1=30.0), 10, 0)
    with pytest.raises(SbiDaError, match="cannot belong together"):
        sample(moons, *question(moons, x_1=5.0, x_2=0.0), 10, 0)
    asked = random_conditionals(TASKS["slcp"](), 50, 0)
    hidden = masked_data(TASKS["slcp"](), np.ones((2, 8)), 50, 0)
    assert all(0 < q.known[5:].sum() < 8 and not q.known[:5].any() for q in hidden)
    assert 0.4 < np.mean([q.known[5:].mean() for q in hidden]) < 0.6
    assert all(0 < q.known.sum() < 13 for q in asked) and 0.4 < np.mean([q.known.mean() for q in asked]) < 0.6


@pytest.fixture(scope="module")
def wheel():
    try:
        return find_wheel(os.environ.get("SBIBM_WHEEL"))
    except SbiDaError as error:
        pytest.skip(f"{error} (here: SBIBM_WHEEL)")


@pytest.mark.parametrize("name", TASKS)
def test_published_posteriors_are_drawn_again(name, wheel):
    task = TASKS[name]()
    known = np.repeat([False, True], [task.parameters, task.data])
    published = reference(wheel, name, 7)
    assert published.samples.shape == (10_000, task.parameters)
    drawn = sample(task, known, np.concatenate([published.theta, published.x]), 4000, 0)
    assert apart(published.samples, drawn) < 0.54


def test_a_wheel_that_is_not_there_or_not_one(tmp_path):
    with pytest.raises(SbiDaError, match=r"pip download --no-deps sbibm==1\.1\.0"):
        find_wheel(tmp_path)
    with zipfile.ZipFile(tmp_path / WHEEL, "w") as archive:
        archive.writestr("nothing", "")
    with pytest.raises(SbiDaError, match="no observation 1 of slcp"):
        reference(find_wheel(tmp_path), "slcp", 1)


class Exact:
    """A method that knows the answer."""

    trained = 0

    def fit(self, task, theta, x, seed):
        Exact.trained += 1
        assert theta.shape == (100, task.parameters) and x.shape == (100, task.data)
        self.task = task
        return self

    def sample(self, x, n, seed):
        d = self.task.parameters
        known = np.concatenate([np.zeros(d, bool), np.isfinite(x)])
        return sample(self.task, known, np.concatenate([np.zeros(d), x]), n, seed)[:, :d]

    def sample_given(self, known, values, n, seed):
        return sample(self.task, known, values, n, seed + 1)


def test_runs_are_kept_and_scored(tmp_path):
    task = TASKS["two_moons"]()
    theta = np.array([[0.2, 0.3], [-0.5, 0.1]])
    x = task.simulate(torch.from_numpy(theta), generator(3)).numpy()
    folder = "sbibm/tasks/two_moons/files/num_observation_"
    with zipfile.ZipFile(tmp_path / WHEEL, "w") as archive:
        for k in (1, 2):
            published = Exact().fit(task, np.zeros((100, 2)), np.zeros((100, 2)), 0).sample(x[k - 1], 1000, 9)
            for name, values in (("observation", x[k - 1 : k]), ("true_parameters", theta[k - 1 : k])):
                archive.writestr(f"{folder}{k}/{name}.csv", "a,b\n" + "\n".join(",".join(map(repr, map(float, v))) for v in values))
            content = "a,b\n" + "\n".join(f"{a},{b}" for a, b in published)
            archive.writestr(f"{folder}{k}/reference_posterior_samples.csv.bz2", bz2.compress(content.encode()))
    path = path_of(tmp_path, "two_moons", 100, "exact", 0)
    Exact.trained = 0
    for questions in (2, 1, 3):
        done = run(path, Exact, task, 100, 0, x, questions)
        assert done.samples.shape == (2, 10_000, 2) and len(done.conditionals) == len(done.masked) == questions
    assert Exact.trained == 2
    found = row(path, done, task, 100, "exact", 0, tmp_path / WHEEL)
    assert found["c2st"] == pytest.approx(0.5, abs=0.03) and found["c2st_conditionals"] == pytest.approx(0.5, abs=0.02)
    assert found["c2st_masked"] == pytest.approx(0.5, abs=0.02)
    assert found == row(path, done, task, 100, "exact", 0, Path("nowhere"))
    with zipfile.ZipFile(tmp_path / WHEEL) as archive:
        archive.extractall(tmp_path / "installed")
    packed, unpacked = (reference(place, "two_moons", 2) for place in (tmp_path / WHEEL, tmp_path / "installed"))
    assert (packed.x == x[1]).all() and (packed.theta == theta[1]).all() and (packed.samples == unpacked.samples).all()
    of = figures([{**found, "simulations": 10_000}], ["two_moons"], "exact")
    assert set(of) == {f"c2st_{what}_10k" for what in ("two_moons", "all_conditional_two_moons", "masked_two_moons", "mean")}
    peer = {**found, "simulations": 10_000, "method": "sbi_nsf"}
    assert set(figures([peer], ["two_moons"], None)) == {"c2st_mean_10k_best_sbi"}


def test_an_interrupted_run_keeps_its_posteriors_and_is_asked_again(tmp_path):
    class Interrupted(Exact):
        def sample_given(self, known, values, n, seed):
            raise KeyboardInterrupt

    task, x = TASKS["two_moons"](), np.array([[-0.3, 0.2]])
    path = path_of(tmp_path, "two_moons", 100, "exact", 0)
    with pytest.raises(KeyboardInterrupt):
        run(path, Interrupted, task, 100, 0, x, 2)
    Exact.trained = 0
    assert run(path, Exact, task, 100, 0, x).samples.shape == (1, 10_000, 2) and Exact.trained == 0
    assert len(run(path, Exact, task, 100, 0, x, 2).conditionals) == 2 and Exact.trained == 1


def test_shares_of_a_stack_are_those_of_the_mixture_that_was_drawn_from(rng):
    from benchmarks.sbibm.ours import stacked

    x = np.where(rng.random(20_000) < 0.7, rng.normal(-1, 1, 20_000), rng.normal(2, 0.5, 20_000))
    laws = np.stack([norm(-1, 1).logpdf(x), norm(2, 0.5).logpdf(x), norm(9, 0.1).logpdf(x)])
    assert stacked(laws) == pytest.approx([0.7, 0.3, 0], abs=0.02)


def test_methods_of_sbi_are_listed_without_sbi():
    assert {"sbi_nsf", "sbi_maf", "sbi_fmpe", "sbi_npse"} <= set(registered())
    code = "import sys; import benchmarks.sbibm.registry; print([m for m in ('sbi', 'pydantic', 'xarray') if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


def test_slcp_evidence_of_the_spread_by_quadrature():
    """The mean integrated out in closed form equals the integral over the box."""
    from benchmarks.sbibm.tasks.slcp_mean import SeenPoints

    points = torch.tensor([[1.0, 2.0], [0.0, 3.5], [2.5, 0.0], [0.3, 0.7]]).double()
    mask = torch.tensor([[1, 1], [0, 1], [1, 0], [0, 0]]).bool()
    seen = SeenPoints(points, mask, 3.0)
    first, second, rho = 1.1, 0.8, -0.6
    covariance = [[first**2, rho * first * second], [rho * first * second, second**2]]

    def joint(v, u):
        both = multivariate_normal([u, v], covariance).pdf([1, 2])
        return both * norm.pdf(3.5, v, second) * norm.pdf(2.5, u, first)

    expected = dblquad(joint, -3, 3, -3, 3, epsabs=1e-10)[0]
    share = torch.rand(200_000, 2, generator=generator(5)).double()
    one = torch.ones(len(share)).double()
    level, mean = seen.log_likelihood(first * one, second * one, rho * one, torch.zeros_like(share), share, torch.zeros(2).bool())
    assert float(level.exp().mean()) == pytest.approx(expected, rel=0.01)
    assert (mean.abs() <= 3).all()
