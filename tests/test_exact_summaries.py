"""Summaries of mixtures without draws, against quadrature and against draws."""

import numpy as np
import pytest
import torch
from catalogue_tables import untrained_answerer
from scipy.stats import norm

from sbi_da.catalog import Question
from sbi_da.catalog.answering import Answerer
from sbi_da.catalog.rows import read_rows
from sbi_da.distributions import LogUniform, Normal, Uniform
from sbi_da.errors import SbiDaError
from sbi_da.posteriors import Posterior
from sbi_da.posteriors.exact import alone, exact_summaries
from sbi_da.posteriors.mixture import MixtureHead
from sbi_da.prior import Limits, Prior
from sbi_da.records.columns import open_source

LEVELS = (0.05, 0.5, 0.95)


@pytest.fixture()
def posterior():
    torch.manual_seed(0)
    axis = np.array([0.0, 1.0])
    laws = {"shape": Uniform(low=0, high=1), "size": LogUniform(low=0.1, high=1000), "tilt": Normal(mean=0, sd=2, low=-9, high=9)}
    limits = {"tilt": Limits(("shape",), (axis,), np.array([-9.0, -5.0]), np.array([9.0, 5.0]))}
    head = MixtureHead(3, 4, components=5, hidden=(16,)).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    return Posterior(head, torch.randn(40, 4), Prior(laws, limits), np.arange(40))


def test_they_are_those_of_quadrature(posterior):
    assert alone(posterior.head, posterior.prior) == ["shape", "size"]
    found = exact_summaries(posterior, ["shape", "size"], LEVELS, block=1000)
    with torch.inference_mode():
        law = posterior.head.law(posterior.context)
    weight = law.log_weights.double().exp().numpy()
    covariance = torch.linalg.inv(law.components.root.double().mT @ law.components.root.double()).numpy()
    z = np.linspace(-40, 40, 20_001)  # beyond 8 the prior has nothing
    for index, (name, value) in enumerate({"shape": norm.cdf(z), "size": 0.1 * 1e4 ** norm.cdf(z)}.items()):
        location, scale = law.components.location[..., index].numpy(), np.sqrt(covariance[..., index, index])
        density = (weight[..., None] * norm.pdf(z, location[..., None], scale[..., None])).sum(1)
        share = density / density.sum(1, keepdims=True)
        mean = share @ value
        sd = np.sqrt((share * (value - mean[:, None]) ** 2).sum(1))
        np.testing.assert_allclose(found[name][0], mean, rtol=1e-4)
        np.testing.assert_allclose(found[name][1], sd, rtol=1e-3)
        below = (weight[..., None] * norm.cdf(z, location[..., None], scale[..., None])).sum(1)
        for row, level in zip(found[name][2:], LEVELS, strict=True):
            np.testing.assert_allclose(row, [np.interp(level, b, value) for b in below], rtol=1e-3)


def test_they_are_those_of_draws(posterior):
    drawn = posterior.sample(20_000)
    for name, (mean, sd, *quantiles) in exact_summaries(posterior, ["shape", "size"], LEVELS).items():
        values = drawn[name].values
        assert (np.abs(values.mean(1) - mean) < 5 * sd / np.sqrt(20_000)).all()
        for level, quantile in zip(LEVELS, quantiles, strict=True):
            assert (np.abs((values < quantile[:, None]).mean(1) - level) < 5 * np.sqrt(level * (1 - level) / 20_000)).all()


def test_a_catalogue_without_draws(toy_config, table):
    answerer = untrained_answerer(toy_config, "mixture")
    estimator = answerer.estimator

    def ask(**more):
        question = Question(id_column="source_id", **more)
        answerer.check(question)
        return answerer(read_rows(open_source(table), estimator.layout.surveys, question, "source_id"), question)

    without, some, many = ask(draws=0), ask(draws=10), ask(draws=2000, kept_draws=5)
    names = estimator.parameter_names
    assert not any(name.endswith("_map") for name in without) and f"{names[0]}_map" in some
    for name in names:
        for statistic in ("mean", "sd", "q50"):
            column = f"{name}_{statistic}"
            np.testing.assert_allclose(without[column], some[column], rtol=1e-6)  # exact, however many draws there are
        assert (np.abs(many[f"{name}_map"] - without[f"{name}_mean"]) < 4 * without[f"{name}_sd"]).mean() > 0.99
    assert (without["edge"] == some["edge"]).all()


def test_draws_that_are_needed_are_asked_for(posterior, toy_run):
    needed = r"no draws: .*theta_1, theta_2, theta_3 need some: closed forms are of mixtures \(network.head=mixture\)"
    with pytest.raises(SbiDaError, match=needed):
        Answerer.load(toy_run).check(Question(draws=0))
    with pytest.raises(ValueError, match="1 have no standard deviation"):
        Question(draws=1)
    with pytest.raises(ValueError, match="0 have no correlations"):
        Question(draws=0, correlations=True)
