"""Priors and simulators of sbi, used here."""

import json
import random

import numpy as np
import pytest
import torch
from exact_gaussian import COVARIANCE, GROUPS, MEAN, SMALL, exact_posterior, problem, simulate
from scipy.stats import kstest, norm
from torch import distributions as td

from sbi_da.config import TrainingConfig
from sbi_da.distributions import Uniform
from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.from_sbi import SbiSimulator
from sbi_da.learning import estimator_of, learn
from sbi_da.prior import Prior
from sbi_da.records import ABSENT, UniformMissing
from sbi_da.simulation import simulate as record
from sbi_da.sources import RecordsSource, SimulatorSource
from sbi_da.to_sbi import SbiPosterior
from sbi_da.torch_prior import TorchPrior, prior_from_torch

sbi = pytest.importorskip("sbi")
from sbi.utils import BoxUniform, MultipleIndependent, RestrictedPrior  # noqa: E402
from sbi.utils.user_input_checks import process_prior, process_simulator  # noqa: E402

one = torch.ones(1)
PRIORS = {
    "box": BoxUniform(torch.tensor([-1.0, 0.1]), torch.tensor([2.0, 0.7])),
    "independent normals": td.Independent(td.Normal(torch.tensor([0.0, 5.0]), torch.tensor([1.0, 0.2])), 1),
    "multivariate normal": td.MultivariateNormal(
        torch.tensor([1.0, -2.0, 9.0]), torch.tensor([[1.0, 0.9, 0.0], [0.9, 1.0, -0.2], [0.0, -0.2, 4.0]])
    ),
    "low rank": td.LowRankMultivariateNormal(torch.zeros(2), torch.tensor([[1.0], [2.0]]), torch.ones(2)),
    "several": MultipleIndependent([
        td.Gamma(2 * one, 3 * one), td.Beta(2 * one, 0.5 * one), td.MultivariateNormal(torch.ones(2), COVARIANCE), td.Chi2(3 * one),
    ]),
    "positive": MultipleIndependent([td.Exponential(2 * one), td.LogNormal(one, 0.3 * one), td.HalfNormal(one), td.Laplace(-one, 2 * one)]),
}


class TestPriors:
    @pytest.mark.parametrize("name", PRIORS)
    def test_scores_of_its_draws_are_standard_normal_and_densities_agree(self, name):
        torch.manual_seed(0)
        theta = PRIORS[name].sample((20_000,))
        prior = prior_from_torch(PRIORS[name])
        columns = dict(zip(prior.names, theta.double().numpy().T, strict=True))
        z = prior.to_normal(columns)
        keep = np.isfinite(z).all(1)  # single precision puts a few draws of a beta law on its ends
        assert keep.mean() > 0.999
        assert min(kstest(z[keep, i], "norm").pvalue for i in range(z.shape[1])) > 1e-3
        assert np.abs(np.corrcoef(z[keep].T) - np.eye(z.shape[1])).max() < 0.03
        expected = PRIORS[name].log_prob(theta).double().numpy()
        assert np.allclose(prior.log_prob(columns)[keep], expected[keep], atol=2e-3)
        back = np.stack(list(prior.from_normal(z[keep]).values()), -1)
        assert np.allclose(back, theta.numpy()[keep], atol=1e-5, rtol=1e-5)
        again = Prior.from_dict(json.loads(json.dumps(prior.to_dict())))
        assert np.array_equal(again.log_prob(columns), prior.log_prob(columns))

    def test_scores_of_a_multivariate_normal_are_those_of_its_root(self):
        prior = prior_from_torch(td.MultivariateNormal(MEAN, COVARIANCE), ["u", "v"])
        theta = np.array([[1.0, -2.0], [3.0, 0.0], [-1.0, -4.5]])
        z = np.linalg.solve(np.linalg.cholesky(COVARIANCE.double().numpy()), (theta - MEAN.numpy()).T).T
        assert np.allclose(prior.to_normal({"u": theta[:, 0], "v": theta[:, 1]}), z, atol=1e-5)

    @pytest.mark.filterwarnings("ignore:Prior was provided as a sequence:UserWarning", "ignore:Casting 1D Uniform:UserWarning")
    def test_what_process_prior_returns_is_the_same_prior(self):
        doubled = td.MultivariateNormal(MEAN.double(), COVARIANCE.double())
        assert prior_from_torch(process_prior(doubled)[0]).to_dict() == prior_from_torch(doubled).to_dict()
        listed = [td.Uniform(0 * one, one), td.Exponential(one)]
        assert prior_from_torch(process_prior(listed)[0]).to_dict() == prior_from_torch(listed).to_dict()
        assert prior_from_torch(process_prior(td.Normal(one, one))[0]).names == ["theta_0"]

    @pytest.mark.parametrize(
        ("prior", "message"),
        [(td.Independent(td.StudentT(3 * torch.ones(2)), 1), "StudentT is not supported; supported are uniform"),
         (RestrictedPrior(PRIORS["box"], lambda theta: theta[:, 0] > 0), "RestrictedPrior is not supported"),
         (norm(0, 1), "is not supported")],
    )
    def test_others_are_refused_in_one_line(self, prior, message):
        with pytest.raises(SbiDaError, match=message) as error:
            prior_from_torch(prior)
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize("names", [["a"], ["a", "a"], []])
    def test_names_must_fit(self, names):
        with pytest.raises(SbiDaError, match="the prior has 2 parameters"):
            prior_from_torch(PRIORS["box"], names)

    def test_ours_is_a_prior_for_sbi(self):
        ours = TorchPrior(prior_from_torch(PRIORS["box"]))
        taken, size, _ = process_prior(ours)
        torch.manual_seed(1)
        theta = taken.sample((500,))
        assert size == 2 and theta.shape == (500, 2) and taken.support.check(theta).all()
        assert torch.allclose(taken.log_prob(theta), PRIORS["box"].log_prob(theta), atol=1e-5)
        assert (taken.log_prob(theta + 5) == -torch.inf).all()

    def test_single_precision_does_not_put_a_draw_outside(self):
        prior = TorchPrior(Prior({"a": Uniform(low=0, high=0.1)}))  # 0.1 is a little more in single precision
        assert torch.isfinite(prior.log_prob(torch.tensor([[0.1]]))).all()


class TestSimulator:
    def test_values_are_those_the_simulator_returns(self):
        simulator = SbiSimulator(lambda theta: theta @ torch.ones(2, 3), PRIORS["box"])
        records = record(simulator, simulator.surveys(), 50, seed=1)
        seen, theta = records.survey("x"), records.parameters
        assert seen.channels == ("x_0", "x_1", "x_2") and (seen.state != ABSENT).all()
        assert np.allclose(seen.value, (theta["theta_0"] + theta["theta_1"])[:, None], atol=1e-6)

    def test_the_same_seed_gives_the_same_records_and_leaves_global_generators_alone(self):
        def mixed(theta):
            return theta + torch.randn_like(theta) + torch.from_numpy(np.random.normal(size=theta.shape)) + random.random()  # noqa: NPY002

        simulator = SbiSimulator(mixed, PRIORS["box"])
        torch.manual_seed(5), np.random.seed(5), random.seed(5)
        expected = torch.rand(3), np.random.rand(3), random.random()
        torch.manual_seed(5), np.random.seed(5), random.seed(5)
        values = [record(simulator, simulator.surveys(), 20, seed=s).survey("x").value for s in (1, 1, 2)]
        assert np.array_equal(values[0], values[1]) and not np.array_equal(values[0], values[2])
        assert torch.equal(torch.rand(3), expected[0]) and np.array_equal(np.random.rand(3), expected[1])
        assert random.random() == expected[2]

    def test_groups_are_surveys_and_a_missing_data_law_passes_over_them(self):
        simulator = problem()
        assert [s.name for s in simulator.surveys()] == ["left", "right"]
        records = record(simulator, simulator.surveys(), 400, seed=1, missing=UniformMissing())
        assert set(records.pattern()) == {"none", "left", "right", "left+right"}

    def test_one_that_takes_one_parameter_at_a_time(self):
        prior, _, numpy = process_prior(PRIORS["box"])
        batched = process_simulator(lambda theta: theta[:1] * 2, prior, numpy)
        assert SbiSimulator(batched, prior).channels == ("x_0",)

    @pytest.mark.parametrize(
        ("returned", "message"),
        [(lambda t: t[:, 0], "returns shape"), (lambda t: t[:1], "returns shape"),
         (lambda t: t[:, :1], "returns 1 entries and 3 are named"),
         (lambda t: torch.full((len(t), 3), torch.nan), "NaN or infinity for 7 of 7 draws")],
    )
    def test_what_cannot_be_used_is_refused_in_one_line(self, returned, message):
        simulator = problem(channels=["a", "b", "c"])
        simulator.simulate = returned
        with pytest.raises(SbiDaError, match=message) as error:
            record(simulator, simulator.surveys(), 7)
        assert "\n" not in str(error.value)

    def test_names_of_entries_must_fit(self):
        with pytest.raises(SbiDaError, match="a name of its own"):
            problem(channels={"left": ["a", "b"], "right": ["a"]})
        with pytest.raises(SbiDaError, match="no simulator to count"):
            SbiSimulator(None, PRIORS["box"])

    def test_a_set_of_simulations_becomes_records(self):
        theta = PRIORS["box"].sample((30,))
        x = torch.cat([theta, theta[:, :1]], 1)
        x[3, 1], x[4] = torch.nan, torch.nan
        simulator = SbiSimulator(None, PRIORS["box"], channels=GROUPS)
        records = simulator.records(theta, x)
        source = RecordsSource(records, simulator.surveys(), simulator.prior, UniformMissing())
        assert len(source.all) == 29  # the failed one is left out
        observed = source.examples(29, 0).observed
        assert (observed.state == ABSENT).sum() == 1  # and the law is not applied on top
        with pytest.raises(SbiDaError, match="no simulator to run"):
            record(simulator, simulator.surveys(), 3)
        with pytest.raises(SbiDaError, match="have shapes"):
            simulator.records(theta, x[:, :2])
        with pytest.raises(SbiDaError, match="finite"):
            simulator.records(theta, x / 0)


SETTINGS = TrainingConfig(epochs=4, steps_per_epoch=60, batch=256, learning_rate=5e-3, warmup=20)


@pytest.fixture(scope="module")
def trained() -> Estimator:
    simulator = problem()
    estimator = estimator_of(simulator, network=SMALL)
    return learn(estimator, SimulatorSource(simulator, simulator.surveys(), estimator.prior, UniformMissing()), SETTINGS)


def _distance(estimator: Estimator, x: list[float], seen: list[int]) -> float:
    """How far mean and covariance of draws are from the exact ones, in units of the exact spread."""
    mean, covariance = exact_posterior(x, seen)
    some = [value if i in seen else float("nan") for i, value in enumerate(x)]
    torch.manual_seed(0)
    drawn = SbiPosterior(estimator).sample((4000,), torch.tensor(some)).double().numpy()
    root = np.linalg.cholesky(covariance)
    z = np.linalg.solve(root, (drawn - mean).T)
    return max(np.abs(z.mean(1)).max(), np.abs(np.cov(z) - np.eye(2)).max())


@pytest.mark.parametrize("seen", [[0, 1, 2], [0, 1], [2], []])
def test_one_network_learns_the_posterior_for_every_group(trained, seen):
    assert _distance(trained, [1.0, -2.5, 0.3], seen) < 0.3


def test_a_set_of_simulations_teaches_the_same(tmp_path):
    torch.manual_seed(0)
    theta = td.MultivariateNormal(MEAN, COVARIANCE).sample((6000,))
    simulator = problem(channels=["a", "b", "c"], names=["u", "v"])
    records = simulator.records(theta, simulate(theta))
    estimator = estimator_of(simulator, network=SMALL)
    learn(estimator, RecordsSource(records, simulator.surveys(), estimator.prior), SETTINGS)
    assert _distance(estimator, [1.0, -2.5, 0.3], [0, 1, 2]) < 0.35


def test_the_artefact_loads_without_the_simulator(trained, tmp_path):
    again = Estimator.load(trained.save(tmp_path / "artefact"))
    x = torch.tensor([[1.0, -2.5, torch.nan]])
    torch.manual_seed(0)
    first = SbiPosterior(trained).sample((10,), x)
    torch.manual_seed(0)
    assert again.simulator is None and torch.equal(SbiPosterior(again).sample((10,), x), first)
