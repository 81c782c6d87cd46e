"""Emulators learned from simulations: against laws that are known, and what is refused."""

import numpy as np
import pytest
import torch
from scipy.stats import kstest, multivariate_normal, norm
from torch import distributions as td

from sbi_da.config import TrainingConfig
from sbi_da.emulation import Emulation, emulate
from sbi_da.emulator import ConstantScatter, Emulator, VaryingScatter
from sbi_da.errors import ArtefactError, SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.from_sbi import SbiSimulator
from sbi_da.learning import estimator_of, learn
from sbi_da.network import NetworkConfig
from sbi_da.sources import SimulatorSource

MATRIX = torch.tensor([[1.0, 0.3, 0.0], [0.0, 0.5, 2.0]])
SHORT = Emulation(components=(1,), constant=(), width=16, blocks=1, passes=40, batch=64, warmup=10, averaging=0.99)


def prior():
    return td.Independent(td.Normal(torch.tensor([1.0, 20.0]), torch.tensor([1.0, 4.0])), 1)


def simulate(theta, seed=0):
    """Linear, with a scatter a thousandth of the range of what it scatters about, and one that grows with a parameter."""
    noise = torch.randn(len(theta), 3, generator=torch.Generator().manual_seed(seed))
    width = [torch.full((len(theta),), 0.01), 0.3 + 0.2 * theta[:, 0].square(), torch.ones(len(theta))]
    return theta @ MATRIX + noise * torch.stack(width, -1)


def simulations(n, seed=0):
    torch.manual_seed(seed)
    theta = prior().sample((n,))
    return theta, simulate(theta, seed + 1)


@pytest.fixture(scope="module")
def emulator():
    return emulate(*simulations(3000), SHORT)


def test_it_scatters_like_the_simulator_where_this_is_narrow_and_where_it_is_not(emulator):
    theta = torch.tensor([[0.0, 20.0], [1.5, 16.0], [-1.0, 24.0]])
    with torch.no_grad():
        draws = emulator(theta.repeat_interleave(20_000, 0)).reshape(3, 20_000, 3)
    width = torch.stack([torch.full((3,), 0.01), 0.3 + 0.2 * theta[:, 0].square(), torch.ones(3)], -1)
    assert ((draws.mean(1) - theta @ MATRIX).abs() / width).max() < 0.35
    ratio = draws.std(1) / width
    assert ratio.min() > 0.8 and ratio.max() < 1.3


def test_its_density_is_normalised_and_in_the_units_of_the_data(emulator):
    theta = torch.tensor([[1.0, 18.0]])
    with torch.no_grad():
        draws = emulator(theta.expand(50_000, -1))
        levels = emulator.log_likelihood(theta.expand(50_000, -1), draws)
    # an integral over its own draws of a Gaussian of the same place, over its density, is one
    reference = multivariate_normal(draws.mean(0).numpy(), np.cov(draws.T.numpy()))
    assert np.exp(reference.logpdf(draws.numpy()) - levels.numpy()).mean() == pytest.approx(1.0, abs=0.03)


def test_two_branches_are_seen_by_held_out_data():
    torch.manual_seed(0)
    theta = torch.randn(1500, 1)
    x = theta + torch.where(torch.rand(1500, 1) < 0.3, -2.0, 2.0) + 0.1 * torch.randn(1500, 1)
    how = Emulation(components=(1, 3), constant=(), width=16, blocks=1, passes=25, batch=64, warmup=10, averaging=0.98)
    found = emulate(theta, x, how)
    assert found.weights.out_features == 3
    with torch.no_grad():
        below = found(torch.zeros(20_000, 1)) < 0
    assert float(below.float().mean()) == pytest.approx(0.3, abs=0.06)


def test_scatter_about_a_kink_that_is_the_same_everywhere_is_learned_as_that():
    """A mean with a kink, two narrow branches: the law has a known density, and the emulator comes near it."""
    torch.manual_seed(0)
    theta = 4 * torch.rand(2000, 1) - 2
    branch = torch.where(torch.rand(2000, 1) < 0.3, -0.5, 0.5)
    x = theta.abs() + branch + 0.02 * torch.randn(2000, 1)
    how = Emulation(components=(1,), constant=(1, 4), width=32, blocks=2, passes=60, batch=64, warmup=10, averaging=0.99)
    found = emulate(theta, x, how)
    assert isinstance(found, ConstantScatter) and len(found.shifts) == 4
    away = (x - theta.abs())[:, 0].numpy()
    exact = np.logaddexp(np.log(0.3) + norm(-0.5, 0.02).logpdf(away), np.log(0.7) + norm(0.5, 0.02).logpdf(away)).mean()
    with torch.no_grad():
        assert found.log_likelihood(theta, x).mean() > exact - 0.5
        drawn = found(torch.zeros(4000, 1))[:, 0]
    assert float((drawn < 0).float().mean()) == pytest.approx(0.3, abs=0.06)


@pytest.mark.parametrize("kind", [ConstantScatter, VaryingScatter])
def test_what_was_not_seen_is_integrated_out_and_completed(kind):
    theta, x = simulations(400)
    torch.manual_seed(1)
    law = kind(2, 3, width=16, blocks=1).standardised(theta, x)
    if kind is ConstantScatter:
        law = law.scattered(theta, x, 3)
    with torch.no_grad():
        for values in law.parameters():
            values.add_(0.05 * torch.randn_like(values))
        one = theta[:1].expand(60_000, -1)
        draws = law(one)
        seen = torch.stack([draws[0, 0], torch.tensor(torch.nan), draws[0, 2]])
        marginal = law.log_likelihood(one[:1], seen)
        grid = torch.linspace(-40, 60, 20_001)
        whole = seen.expand(len(grid), -1).clone()
        whole[:, 1] = grid
        joint = law.log_likelihood(one[: len(grid)], whole)
        assert float(torch.logsumexp(joint, 0) + np.log(100 / 20_000)) == pytest.approx(float(marginal), abs=1e-3)
        mixed = torch.stack([seen, draws[1], torch.full((3,), torch.nan)])
        apart = torch.stack([law.log_likelihood(one[:1], values)[0] for values in mixed])
        assert torch.allclose(law.log_likelihood(one[:3], mixed), apart, atol=1e-5) and abs(apart[2]) < 1e-5
        completed = law.complete(one[:5000], seen)
    assert torch.equal(completed[:, [0, 2]], seen[[0, 2]].expand(5000, 2))
    cumulative = (joint - joint.max()).exp().cumsum(0)
    assert kstest(completed[:, 1], lambda v: np.interp(v, grid, cumulative / cumulative[-1])).pvalue > 1e-3


@pytest.mark.parametrize("kind", [ConstantScatter, VaryingScatter])
def test_it_comes_back_from_a_folder(kind, tmp_path):
    theta, x = simulations(100)
    law = kind(2, 3, components=4, width=16, blocks=1).standardised(theta, x).eval()
    loaded = Emulator.load(law.save(tmp_path / "a"))
    assert type(loaded) is kind and torch.equal(loaded.log_likelihood(theta, x), law.log_likelihood(theta, x))
    with pytest.raises(ArtefactError, match=r"no estimator.json there: not an estimator"):
        Estimator.load(tmp_path / "a")
    described = tmp_path / "a" / "emulator.json"
    described.write_text(described.read_text().replace("_scatter", "_shatter"))
    with pytest.raises(ArtefactError, match="cannot be read .*_shatter.*learn it again"):
        Emulator.load(tmp_path / "a")
    (tmp_path / "a" / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(ArtefactError, match="checksum differs"):
        Emulator.load(tmp_path / "a")


def test_a_seed_gives_the_same_emulator_and_leaves_the_generator_of_torch_alone():
    theta, x = simulations(200)
    torch.manual_seed(3)
    first = torch.rand(1)
    torch.manual_seed(3)
    found = [emulate(theta.numpy(), x.numpy(), SHORT, seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.rand(1), first)
    levels = [e.log_likelihood(theta, x).detach() for e in found]
    assert torch.equal(levels[0], levels[1]) and not torch.equal(levels[0], levels[2])


def test_an_estimator_learns_from_it_as_from_any_simulator(emulator):
    simulator = SbiSimulator(emulator, prior(), names=["a", "b"], channels={"camera": ["red", "blue"], "meter": ["flux"]})
    estimator = estimator_of(simulator, network=NetworkConfig(width=16, layers=1, heads=2, summary=16, blocks=1, context=16))
    source = SimulatorSource(simulator, simulator.surveys(), estimator.prior, seed=1)
    some, again = source.examples(400, 0), source.examples(400, 0)
    assert np.array_equal(some.observed.value, again.observed.value, equal_nan=True)
    assert not np.array_equal(some.z, source.examples(400, 1).z)
    learn(estimator, source, TrainingConfig(epochs=1, steps_per_epoch=5, batch=32))
    theta, x = simulations(5, 9)
    assert estimator(simulator.records(theta, x)).sample(10).sizes["draw"] == 10


@pytest.mark.parametrize(("theta", "x", "message"), [
    (np.zeros((30, 2)), np.zeros((29, 1)), r"shapes \(30, 2\) and \(29, 1\)"),
    (np.zeros(30), np.zeros((30, 1)), "one row per simulation"),
    (np.zeros((30, 2)), np.where(np.arange(30) == 3, np.nan, 0.0)[:, None], "1 of 30 simulations are not finite"),
    (np.zeros((5, 2)), np.zeros((5, 1)), "5 simulations: an emulator is learned from 20 or more"),
])
def test_what_is_refused(theta, x, message):
    with pytest.raises(SbiDaError, match=message):
        emulate(theta, x, SHORT)


def test_a_law_that_has_too_few_simulations_is_not_tried():
    theta, x = torch.randn(30, 1), torch.randn(30, 1)
    found = emulate(theta, x, Emulation(components=(1,), constant=(20,), width=8, blocks=1, passes=2))
    assert isinstance(found, VaryingScatter)
    with pytest.raises(SbiDaError, match="no law to try: give components, or 5 simulations per component"):
        emulate(theta, x, Emulation(components=(), constant=(20,), passes=1))


def test_constant_data_and_parameters_are_no_trouble():
    theta = torch.cat([torch.randn(100, 1), torch.ones(100, 1)], 1)
    x = torch.cat([theta[:, :1] + 0.1 * torch.randn(100, 1), torch.full((100, 1), 7.0)], 1)
    found: Emulator = emulate(theta, x, SHORT)
    with torch.no_grad():
        assert torch.allclose(found(theta)[:, 1], torch.tensor(7.0), atol=1e-3)
