"""Every head of continuous parameters: what it says must be one law, whichever way it is asked."""

from typing import get_args

import numpy as np
import pytest
import torch

from sbi_da.config import TrainingConfig, load_config
from sbi_da.distributions import Normal, Uniform
from sbi_da.encoders import ScalarEncoder
from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.heads import head_of
from sbi_da.held_out import held_out_nll
from sbi_da.learning import estimator_of, learn
from sbi_da.network import MatchingConfig, NetworkConfig
from sbi_da.posterior_loss import posterior_loss
from sbi_da.posteriors import Posterior
from sbi_da.posteriors.asking import Answering, Predicted
from sbi_da.posteriors.gaussian import Gaussian
from sbi_da.posteriors.questions import draw_questions
from sbi_da.prior import Limits, Prior
from sbi_da.runs import build
from sbi_da.simulation import simulate
from sbi_da.sources import SimulatorSource

HEADS = [name for name in get_args(NetworkConfig.model_fields["head"].annotation) if name != "few_step"]  # it learns from others
ANSWERING = [name for name in HEADS if name != "spline"]
CONTEXT = 6


def normals(count):
    return Prior({f"theta_{k}": Normal(mean=0, sd=1, low=-8, high=8) for k in range(count)})


def network(name, **more):
    matching = MatchingConfig(width=16, layers=2, heads=2, tokens=2, **{"steps": 24, "solver": "rk4", **more})
    return NetworkConfig(head=name, context=CONTEXT, transforms=2, bins=6, components=3, hidden=(16,), matching=matching)


def shaken(name, prior, scale=0.3, channels=0, **more):
    """A head with weights that are not those it starts from."""
    torch.manual_seed(1)
    head = head_of(prior, network(name, **more), channels).eval()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(scale * torch.randn_like(parameter) / max(1, parameter.shape[-1]) ** 0.5)
    return head


def posterior(head, prior, objects=3, **more):
    torch.manual_seed(2)
    return Posterior(head, torch.randn(objects, CONTEXT), prior, np.arange(objects), **more)


@pytest.fixture(params=HEADS)
def name(request):
    return request.param


def test_before_training_flow_matching_is_the_prior():
    prior = normals(3)
    torch.manual_seed(0)
    head = head_of(prior, network("flow_matching")).eval()
    z = posterior(head, prior).normal_scores(4000)
    assert np.abs(z.mean(1)).max() < 0.2 and np.abs(z.std(1) - 1).max() < 0.2


def test_density_integrates_to_one(name):
    prior = normals(2)
    head = shaken(name, prior)
    axis = torch.linspace(-9, 9, 181)
    grid = torch.cartesian_prod(axis, axis)
    context = torch.randn(1, 1, CONTEXT)
    with torch.inference_mode():
        total = head.log_prob(grid[None], context).exp().sum() * (axis[1] - axis[0]) ** 2
    assert float(total) == pytest.approx(1, abs=0.01)


def test_draws_follow_the_density(name):
    prior = normals(2)
    head = shaken(name, prior)
    p = posterior(head, prior, 1)
    z = torch.from_numpy(p.normal_scores(20_000))
    axis = torch.linspace(-9, 9, 181)
    grid = torch.cartesian_prod(axis, axis)
    with torch.inference_mode():
        weight = head.log_prob(grid[None], p.context[:, None]).exp()[0]
    weight = weight / weight.sum()
    mean = (weight[:, None] * grid).sum(0)
    second = (weight[:, None, None] * (grid - mean)[:, :, None] * (grid - mean)[:, None]).sum(0)
    z = z[0].numpy()
    assert np.abs(z.mean(0) - mean.numpy()).max() < 0.05 and np.abs(np.cov(z.T) - second.numpy()).max() < 0.08


def test_leading_dimensions_broadcast(name):
    head = shaken(name, normals(3))
    z, context = torch.randn(5, 7, 3), torch.randn(5, CONTEXT)
    with torch.inference_mode():
        wide = head.log_prob(z, context[:, None])
        assert wide.shape == (5, 7)
        assert torch.allclose(wide[:, 2], head.log_prob(z[:, 2], context), atol=1e-4)
        assert torch.allclose(wide, head.log_prob(z, context[:, None].expand(-1, 7, -1)), atol=1e-4)


def test_draws_do_not_depend_on_what_else_is_asked(name):
    p = posterior(shaken(name, normals(3)), normals(3), 4)
    alone = Posterior(p.head, p.context[2:3], p.prior, p.ids[2:3]).normal_scores(50)
    assert np.allclose(p.normal_scores(50)[2:3], alone, atol=1e-5)


def test_one_parameter_works(name):
    p = posterior(shaken(name, normals(1)), normals(1))
    drawn = p.sample(20)
    assert np.isfinite(p.log_prob({"theta_0": drawn["theta_0"].values}).values).all()


def test_saved_and_loaded_it_says_the_same(name, tmp_path):
    config = load_config("toy", [f"network.head={name}", "network.context=16", "network.hidden=[16]", "network.components=3",
                                 "network.matching={width: 16, layers: 1, heads: 2, questions: channels, steps: 2}"])
    simulator, surveys, estimator = build(config)
    records = simulate(simulator, surveys, 6, 1)
    estimator.eval().save(tmp_path / "artefact")
    again = Estimator.load(tmp_path / "artefact")
    assert np.array_equal(estimator(records).normal_scores(5), again(records).normal_scores(5))


def test_what_is_absent_has_no_influence(name):
    estimator = build(load_config("toy", [f"network.head={name}", "network.matching={width: 16, layers: 1, heads: 2, steps: 2}"]))[2].eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in estimator.head.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    value, error, state = torch.randn(6, 8), torch.rand(6, 8) + 0.1, (torch.rand(6, 8) < 0.5).to(torch.uint8)
    state[0] = 0
    wild = torch.where(state == 0, torch.tensor(1e30), value), torch.where(state == 0, torch.nan, error)
    noise = torch.randn(6, 4, 1 + 3)[..., : getattr(estimator.head, "noise_size", 3)]
    with torch.inference_mode():
        drawn = [estimator.head.transform(noise, estimator.context(*of, state)[:, None]) for of in ((value, error), wild)]
    assert torch.equal(*drawn) and torch.isfinite(drawn[0]).all()
    seen = estimator.context(value + 1.0, error, state)
    assert not torch.allclose(estimator.head.transform(noise, seen[:, None])[1:], drawn[0][1:])


@pytest.mark.parametrize("name", HEADS)
def test_an_object_is_encoded_once(name, monkeypatch):
    counted = []
    for draws, steps in ((10, 2), (300, 8)):
        config = load_config("toy", [f"network.head={name}", f"network.matching={{width: 16, layers: 1, heads: 2, steps: {steps}}}"])
        simulator, surveys, estimator = build(config)
        records = simulate(simulator, surveys, 7, 1)
        seen = []
        forward = estimator.fusion.forward
        monkeypatch.setattr(estimator.fusion, "forward", lambda *a, seen=seen, forward=forward: seen.append(len(a[0])) or forward(*a))
        found = estimator.eval()(records)
        found.sample(draws)
        found.log_prob({k: np.zeros((7, 3)) for k in found.prior.names})
        if isinstance(found.head, Answering):
            found.given(theta_1=0.3).sample(draws)
        counted.append(sum(seen))
    assert counted == [7, 7]


def test_gaussian_conditionals_are_exact():
    rng = np.random.default_rng(0)
    root = np.tril(rng.normal(size=(4, 4))) + 2 * np.eye(4)
    mean, covariance = rng.normal(size=4), np.linalg.inv(root.T @ root)
    law = Gaussian(torch.tensor(mean), torch.tensor(root), torch.tensor(np.log(np.diag(root)).sum()))
    z = rng.normal(size=4)
    known, asked = np.array([False, True, False, False]), np.array([True, False, False, True])  # the third is integrated out
    found = law.given(torch.tensor(z), torch.tensor(known), torch.tensor(asked))
    a, k = np.flatnonzero(asked), np.flatnonzero(known)
    gain = covariance[np.ix_(a, k)] @ np.linalg.inv(covariance[np.ix_(k, k)])
    exact_mean = mean[a] + gain @ (z[k] - mean[k])
    exact = covariance[np.ix_(a, a)] - gain @ covariance[np.ix_(k, a)]
    precision = (found.root.mT @ found.root).numpy()
    assert np.allclose(found.location.numpy()[a], exact_mean) and np.allclose(np.linalg.inv(precision)[np.ix_(a, a)], exact)
    assert float(found.log_det) == pytest.approx(-0.5 * np.linalg.slogdet(exact)[1])


def test_a_mixtures_conditionals_are_those_of_its_joint_density():
    prior = normals(3)
    p = posterior(shaken("mixture", prior), prior, 1)
    axis = np.linspace(-8, 8, 161)
    step = axis[1] - axis[0]
    two = {k: v.ravel()[None] for k, v in zip(("theta_1", "theta_2"), np.meshgrid(axis, axis, indexing="ij"), strict=True)}
    joint = np.exp(p.log_prob({"theta_0": np.full_like(two["theta_1"], 0.4), **two}).values).reshape(161, 161)
    exact = joint.sum(1) * step / (joint.sum() * step**2)
    found = np.exp(p.given(theta_0=0.4).marginal(["theta_1"]).log_prob({"theta_1": axis[None]}).values[0])
    assert np.abs(found - exact).max() < 2e-3
    drawn = p.given(theta_0=0.4).sample(20_000)
    assert (drawn["theta_0"] == 0.4).all()
    assert float(drawn["theta_1"].mean()) == pytest.approx((axis * exact).sum() * step, abs=0.03)


@pytest.mark.parametrize("name", ANSWERING)
def test_what_is_left_out_or_known_has_a_density_that_integrates_to_one(name):
    prior = normals(3)
    p = posterior(shaken(name, prior), prior, 2)
    axis = np.linspace(-8, 8, 321)
    theta = {"theta_2": np.tile(axis, (2, 1))}
    for question in (p.marginal(["theta_2"]), p.given(theta_0=np.array([0.2, -1.0])).marginal(["theta_2"])):
        total = np.exp(question.log_prob(theta).values).sum(1) * (axis[1] - axis[0])
        assert np.allclose(total, 1, atol=0.01)


def test_known_values_of_each_object_are_used():
    prior = normals(2)
    p = posterior(shaken("flow_matching", prior), prior, 3)
    each = p.given(theta_0=np.array([-1.0, 0.0, 1.0])).sample(30)
    one = p.given(theta_0=1.0).sample(30)
    assert np.array_equal(each["theta_1"].values[2], one["theta_1"].values[2])
    assert not np.array_equal(each["theta_1"].values[0], one["theta_1"].values[0])
    with pytest.raises(SbiDaError, match="one for each of 3 objects"):
        p.given(theta_0=np.zeros(2))


def triangle_and_more():
    return Prior({**triangle().laws, "c": Uniform(low=0, high=1)}, triangle().limits)


def triangle():
    """The second parameter lies below the first."""
    axis = np.array([0.0, 1.0])
    return Prior(
        {"a": Uniform(low=0, high=1), "b": Uniform(low=0, high=1)}, {"b": Limits(("a",), (axis,), np.zeros(2), np.array([0.01, 1.0]))}
    )


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.filterwarnings("ignore:effective sample size")
def test_no_draw_leaves_a_prior_whose_limits_depend_on_what_is_drawn(name):
    prior = triangle()
    p = posterior(shaken(name, prior), prior)
    drawn = p.given(b=0.6).sample(200)
    assert (drawn["b"] == 0.6).all() and (drawn["a"] >= 0.59).all()
    assert "effective_sample_size" in drawn
    assert (p.given(a=0.3).sample(100)["b"] <= 0.31).all()
    marginal = p.marginal(["b"]).sample(100)
    assert list(marginal) == ["b"] and marginal["b"].max() <= 1


def test_the_density_of_what_depends_on_unknown_parameters_is_refused():
    p = posterior(shaken("flow_matching", triangle()), triangle())
    with pytest.raises(SbiDaError, match="depends on a"):
        p.marginal(["b"]).log_prob({"b": np.full(3, 0.5)})
    with pytest.raises(SbiDaError, match="depends on a"):
        p.given(b=0.5).log_prob({"a": np.full(3, 0.7)})
    assert np.isfinite(p.given(a=0.7).log_prob({"b": np.full(3, 0.5)}).values).all()


def test_a_spline_head_says_which_heads_have_such_densities():
    p = posterior(shaken("spline", normals(2)), normals(2))
    with pytest.raises(SbiDaError, match="network.head=flow_matching"):
        p.marginal(["theta_0"]).log_prob({"theta_0": np.zeros(3)})
    with pytest.raises(SbiDaError, match="questions=channels"):
        p.marginal(["gaia.g"])


def test_channels_are_predicted_in_their_units():
    prior = normals(2)
    head = shaken("flow_matching", prior, channels=2, questions="channels")
    predicted = Predicted(("gaia.g", "gaia.parallax"), ("mag", "mas"), lambda x: 10 + 2 * x)
    p = posterior(head, prior, predicted=predicted)
    drawn = p.marginal(["theta_0", "gaia.parallax"]).sample(500)
    assert drawn["gaia.parallax"].attrs["units"] == "mas" and 5 < float(drawn["gaia.parallax"].mean()) < 15
    given = p.given(theta_0=0.0, theta_1=0.5).marginal(["gaia.g"]).sample(10)
    assert list(given) == ["gaia.g"]
    with pytest.raises(SbiDaError, match="no density of gaia.g"):
        p.marginal(["gaia.g"]).log_prob({"gaia.g": np.zeros(3)})


def test_questions_ask_something_and_nothing_twice():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.rand(4000, 5, generator=generator) < 0.4
    known, asked = draw_questions(4000, 3, hidden, generator)
    assert not (known & asked).any() and asked.any(1).all()
    assert not (asked[:, 3:] & ~hidden).any() and not known[:, 3:].any()
    patterns = {tuple(row) for row in torch.cat([known[:, :3], asked[:, :3]], 1).tolist()}
    assert len(patterns) >= 3**3 - 2  # each parameter known, asked or left out; all but those that ask nothing


def test_what_is_asked_is_hidden_from_the_encoder():
    config = load_config("toy", ["network.head=flow_matching", "network.matching={width: 16, layers: 1, heads: 2, questions: channels}"])
    estimator = build(config)[2]
    loss = posterior_loss(estimator).train()
    state = torch.full((400, 8), 1, dtype=torch.uint8)
    state[:, 0], state[:, 1] = 0, 2
    batch = {"z": torch.zeros(400, 3), "value": torch.randn(400, 8), "error": torch.ones(400, 8), "state": state}
    loss.step = 3
    posed, again = loss.posed(batch), loss.posed(batch)
    assert torch.equal(posed["state"], again["state"])
    hidden = posed["hidden"]
    assert 0.1 < hidden[:, 2:].float().mean() < 0.6 and not hidden[:, :2].any()
    assert (posed["state"][hidden] == 0).all() and (posed["state"][:, 1] == 0).any()  # limits are hidden too, but not asked
    scaled = estimator.encoder.scaled(batch["value"], batch["error"], state)
    assert torch.equal(posed["channels"][hidden], scaled[hidden])


def test_channels_return_from_their_scaled_values():
    encoder = ScalarEncoder(["magnitude", "parallax", "scalar"], [0, 0, 0], 8, 8)
    value = torch.stack([15 + torch.randn(50), torch.randn(50), 3 * torch.randn(50)], 1)
    error, state = torch.full((50, 3), 0.1), torch.ones(50, 3, dtype=torch.uint8)
    encoder.fit(value, error, state)
    assert torch.allclose(encoder.unscaled(encoder.scaled(value, error, state)), value, atol=1e-4)


def test_what_is_known_must_be_possible():
    p = posterior(shaken("flow_matching", triangle_and_more()), triangle_and_more())
    with pytest.warns(UserWarning, match="effective sample size"):
        drawn = p.given(a=0.2, b=0.9).sample(20)
    assert np.isnan(drawn["c"]).all() and (drawn["effective_sample_size"] == 0).all()
    assert (p.given(a=0.2, b=0.9).log_prob({"c": np.full(3, 0.5)}) == -np.inf).all()


def test_measured_channels_are_not_predicted():
    prior = normals(2)
    predicted = Predicted(("x.a", "x.b"), ("", ""), lambda x: x, np.array([[True, False]] * 3))
    p = posterior(shaken("flow_matching", prior, channels=2, questions="channels"), prior, predicted=predicted)
    p.marginal(["x.b"]).sample(3)
    with pytest.raises(SbiDaError, match="x.a was measured of 3 of 3"):
        p.marginal(["x.a"])


@pytest.mark.parametrize("decay", [0.9, 0.9995])
def test_averaged_weights_are_trained_ones_and_buffers_are_not_averaged(decay):
    simulator, surveys, _ = build(load_config("toy"))
    small = NetworkConfig(width=16, layers=1, summary=32, blocks=1, context=16, hidden=(32,), transforms=2, bins=6)
    found = {}
    for averaging in (0.0, decay):
        settings = TrainingConfig(epochs=3, steps_per_epoch=40, batch=64, validation=400, averaging=averaging, learning_rate=3e-3)
        estimator = estimator_of(simulator, network=small)
        source, held = (SimulatorSource(simulator, surveys, estimator.prior, seed=s) for s in (0, 1))
        learn(estimator, source, settings, validation=held)
        below = estimator.head.gaussian.below
        assert torch.equal(below, estimator_of(simulator, network=small).head.gaussian.below)
        found[averaging] = held_out_nll(estimator, held, 500)
    assert found[decay] < found[0.0] + 0.4  # the prior's is two nats worse
