"""The categorical posterior: what training does to probabilities, and what undoes it; votes; the posterior users hold."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from scipy.stats import dirichlet_multinomial as scipy_dirichlet_multinomial

from sbi_da.alignment.label_shift import ClassFractions
from sbi_da.errors import SbiDaError, UnknownNameError
from sbi_da.posteriors.categorical import CategoricalHead
from sbi_da.posteriors.class_losses import (
    effective_number_weights,
    focal_loss,
    focal_losses,
    initial_logit_scale,
    inverse_frequency_weights,
    log_weight_correction,
    unfocused,
)
from sbi_da.posteriors.class_posterior import ClassPosterior
from sbi_da.posteriors.temperature import fit_calibration
from sbi_da.posteriors.votes import LEAST, concentrations, dirichlet_multinomial, multilabel, vote_log_prob

COUNTS = np.array([576, 167, 1844])
ETA = torch.tensor([[0.6, 0.3, 0.1], [0.05, 0.15, 0.8], [1 / 3, 1 / 3, 1 / 3], [0.98, 0.015, 0.005]], dtype=torch.float64)
NAMES = ("elliptical", "irregular", "spiral")


def test_weights_of_galaxy_da_and_deepastrouda():
    assert effective_number_weights(COUNTS) == pytest.approx([0.637, 2.152, 0.212], abs=5e-4)
    assert effective_number_weights(COUNTS, 0.0) == pytest.approx(np.ones(3))
    plain = (1 - 0.9999) / (1 - 0.9999 ** COUNTS.astype(float))
    assert effective_number_weights(COUNTS) == pytest.approx(plain / plain.mean(), rel=1e-9)
    assert inverse_frequency_weights(COUNTS) == pytest.approx(2587 / (3 * COUNTS))
    assert (inverse_frequency_weights(COUNTS) * COUNTS).sum() == pytest.approx(2587)
    s = np.sqrt(1844 / COUNTS)
    assert initial_logit_scale(COUNTS, damped=False) == pytest.approx(s)
    assert initial_logit_scale(COUNTS) == pytest.approx([1 + (s[0] - 1) / 2, 1 + (s[1] - 1) / 2, 1.0])
    for wrong in ([5, 0], [], [[1]]):
        with pytest.raises(SbiDaError, match="every class needs"):
            inverse_frequency_weights(np.array(wrong))
    with pytest.raises(SbiDaError, match="beta"):
        effective_number_weights(COUNTS, 1.0)


def test_focal_loss_is_its_formula_and_cross_entropy_without_focus():
    torch.manual_seed(0)
    logits, codes = torch.randn(20, 3, dtype=torch.float64), torch.arange(20) % 3
    weights = torch.tensor([0.5, 2.0, 0.5], dtype=torch.float64)
    p = logits.softmax(-1)[torch.arange(20), codes]
    assert focal_loss(logits, codes, weights).item() == pytest.approx((-weights[codes] * (1 - p) ** 2 * p.log()).mean().item())
    assert focal_loss(logits, codes, gamma=0.0).item() == pytest.approx(torch.nn.functional.cross_entropy(logits, codes).item())
    for gamma in (0.0, 0.5, 2.0):
        for extreme in (torch.tensor([[1e5, 0.0], [0.0, 1e5]]), torch.zeros(2, 2), torch.tensor([[30.0, 0.0], [200.0, 0.0]])):
            x = extreme.clone().requires_grad_()
            value = focal_loss(x, torch.tensor([0, 0]), gamma=gamma)
            value.backward()
            assert torch.isfinite(value) and torch.isfinite(x.grad).all()
    assert focal_loss(torch.zeros(0, 3, requires_grad=True), torch.zeros(0, dtype=torch.long)) == 0
    with pytest.raises(SbiDaError):
        focal_loss(logits, codes, gamma=-1.0)


@pytest.mark.parametrize("weights", [None, torch.tensor([0.5, 2.0, 1.5], dtype=torch.float64)])
def test_focal_losses_are_those_of_which_the_mean_is_taken_and_smoothed_by_hand(weights):
    torch.manual_seed(1)
    logits, codes = torch.randn(20, 3, dtype=torch.float64), torch.arange(20) % 3
    for gamma in (0.0, 2.0):
        each = focal_losses(logits, codes, weights, gamma)
        assert each.shape == (20,) and each.mean().item() == pytest.approx(focal_loss(logits, codes, weights, gamma).item())
    factor = np.ones(20) if weights is None else weights.numpy()[codes]
    p = softmax(logits.numpy(), axis=1)
    target = np.where(np.arange(3) == codes.numpy()[:, None], 0.8 + 0.2 / 3, 0.2 / 3)
    by_hand = factor * (target * (1 - p) ** 1.5 * -np.log(p)).sum(1)
    assert focal_losses(logits, codes, weights, 1.5, 0.2).numpy() == pytest.approx(by_hand)
    if weights is None:  # with weights, torch weighs every class that a smoothed label names, not the object
        each = torch.nn.functional.cross_entropy(logits, codes, reduction="none", label_smoothing=0.2)
        assert focal_losses(logits, codes, None, 0.0, 0.2).numpy() == pytest.approx(each.numpy())
    each = torch.nn.functional.cross_entropy(logits, codes, weights, reduction="none")
    assert focal_losses(logits, codes, weights, 0.0).numpy() == pytest.approx(each.numpy())


def minimiser(weights, gamma):
    """Log-outputs that minimise the expected weighted focal loss for class probabilities ETA, by descent."""
    logits = torch.zeros_like(ETA, requires_grad=True)
    tight = {"max_iter": 500, "tolerance_grad": 1e-12, "tolerance_change": 1e-16}
    optimiser = torch.optim.LBFGS([logits], **tight, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = sum(
            (ETA[i, k] * focal_loss(logits[i : i + 1], torch.tensor([k]), weights, gamma) for i in range(len(ETA)) for k in range(3)),
            torch.zeros((), dtype=torch.float64),
        )
        loss.backward()
        return loss

    optimiser.step(closure)
    return logits.detach().log_softmax(-1)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0, 3.0])
def test_weights_and_focus_are_undone(gamma):
    weights = torch.tensor(effective_number_weights(COUNTS))
    found = minimiser(weights, gamma)
    assert (found.exp() - ETA).abs().max() > 0.1, "the losses do distort"
    undone = (unfocused(found, gamma) + log_weight_correction(weights)).log_softmax(-1).exp()
    assert undone.numpy() == pytest.approx(ETA.numpy(), abs=1e-4)


def test_the_focal_map_is_stable_and_keeps_the_order():
    assert unfocused(torch.tensor([[0.0, -torch.inf]])).exp().tolist() == [[1.0, 0.0]]
    logits = torch.tensor([[1e4, 0.0, -1e4], [50.0, 0.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.5, -20.0]], requires_grad=True)
    out = unfocused(logits.log_softmax(-1), 2.0)
    assert torch.isfinite(out).all() and out.exp().sum(-1).tolist() == pytest.approx([1.0] * 4)
    assert (out[:, :-1] >= out[:, 1:]).all() and out[2].exp().tolist() == pytest.approx([1 / 3] * 3)
    # Near certainty v: h = v / (3 (1 - v)^2), the other's about 1 - v over one plus twice its surprise.
    rest = 2 * np.exp(-50.0)
    expected = np.log(1 / (3 * rest**2)) - np.log(rest / 2 / (1 + 2 * rest / 2 * 50))
    assert (out[1, 0] - out[1, 1]).item() == pytest.approx(expected, rel=1e-5)
    assert torch.equal(unfocused(logits.log_softmax(-1), 0.0), logits.log_softmax(-1).double().log_softmax(-1).float())


def test_correction_of_weights_is_bayes_theorem():
    weights = np.array([0.637, 2.152, 0.212])
    tilted = ETA.numpy() * weights
    tilted /= tilted.sum(1, keepdims=True)
    undone = softmax(np.log(tilted) + log_weight_correction(weights).double().numpy(), axis=1)
    assert undone == pytest.approx(ETA.numpy(), rel=1e-5)
    with pytest.raises(SbiDaError, match="positive"):
        log_weight_correction(np.array([1.0, 0.0]))


def head(**options):
    torch.manual_seed(0)
    return CategoricalHead(3, 4, **options).eval()


def test_head_applies_corrections_in_the_order_of_its_formula():
    context, codes = torch.randn(6, 4, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 3
    plain = head(hidden=8, dropout=0.5, logit_scale=True)
    assert torch.allclose(plain.log_probabilities(context), plain.logits(context).log_softmax(-1), atol=1e-6)
    raw = plain.logits(context)
    plain.start_scale(torch.tensor([1.0, 2.0, 3.0]))
    assert torch.allclose(plain.logits(context), raw * torch.tensor([1.0, 2.0, 3.0]))
    correction = log_weight_correction(effective_number_weights(COUNTS))
    bias = torch.tensor([0.1, 0.2, -0.3])
    plain.correct(correction, gamma=2.0, temperature=1.7, bias=bias)
    log_p = unfocused(plain.logits(context).log_softmax(-1), 2.0)
    expected = ((log_p + correction).log_softmax(-1) / 1.7 + bias).log_softmax(-1)
    assert torch.allclose(plain.log_probabilities(context), expected, atol=1e-5)
    assert plain.probabilities(context).sum(-1).tolist() == pytest.approx([1.0] * 6)
    assert torch.equal(plain.log_prob(codes, context), plain.log_probabilities(context)[torch.arange(6), codes])
    assert torch.equal(plain(context), plain.logits(context)), "training sees raw logits whatever was set"
    again = head(hidden=8, logit_scale=True)
    again.load_state_dict(plain.state_dict())
    assert torch.equal(again.log_probabilities(context), plain.log_probabilities(context))
    assert head().logits(torch.zeros(0, 4)).shape == head().log_probabilities(torch.zeros(0, 4)).shape == (0, 3)


def test_head_refuses_what_makes_no_sense():
    for wrong in ({"classes": 1}, {"context": 0}, {"hidden": 0}, {"dropout": 1.0}):
        with pytest.raises(SbiDaError):
            CategoricalHead(**{"classes": 3, "context": 4} | wrong)
    with pytest.raises(SbiDaError, match="logit_scale=True"):
        head().start_scale(torch.ones(3))
    with pytest.raises(SbiDaError):
        head().correct(temperature=0.0)


def test_a_trained_head_with_weights_and_focus_is_a_posterior_again():
    """Unit normals at three centres, 22/6/71 %: logistic regression is exact, so the corrected head is Bayes' theorem."""
    rng = np.random.default_rng(0)
    prior, centres = np.array([0.22, 0.06, 0.72]), np.array([-1.5, 0.0, 1.5])
    codes = rng.choice(3, 6000, p=prior)
    x = torch.tensor(centres[codes] + rng.standard_normal(6000))[:, None].float()
    y = torch.tensor(codes)
    weights = torch.tensor(effective_number_weights(np.bincount(codes))).float()
    grid = torch.linspace(-3, 3, 13)[:, None]
    exact = prior * np.exp(-0.5 * (grid.numpy() - centres) ** 2)
    exact /= exact.sum(1, keepdims=True)
    model = head()
    optimiser = torch.optim.LBFGS(model.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = focal_loss(model.logits(torch.cat([x, torch.zeros(len(x), 3)], 1)), y, weights, 0.0)
        loss.backward()
        return loss

    optimiser.step(closure)
    inputs = torch.cat([grid, torch.zeros(len(grid), 3)], 1)
    distorted = np.abs(model.probabilities(inputs).detach().numpy() - exact).max()
    model.correct(log_weight_correction(weights))
    assert distorted > 0.2
    assert model.probabilities(inputs).detach().numpy() == pytest.approx(exact, abs=0.04)


def drawn(temperature, bias, n=20000):
    """Log-probabilities of a classifier that is off by a temperature and biases, and labels from the true ones."""
    rng = np.random.default_rng(1)
    log_p = log_softmax(2 * rng.standard_normal((n, 3)), axis=1)
    codes = (softmax(log_p, axis=1).cumsum(1) < rng.random(n)[:, None]).sum(1)
    return (log_p - np.array(bias)) * temperature, codes, log_p


def test_calibration_finds_the_temperature_and_the_biases():
    given, codes, true = drawn(2.5, [0.0, 0.0, 0.0])
    found = fit_calibration(given, codes)
    assert found.temperature == pytest.approx(2.5, rel=0.03) and not found.bias.any() and found.after < found.before - 0.1
    assert found(given) == pytest.approx(log_softmax(true, axis=1), abs=0.3)
    given, codes, _ = drawn(0.5, [0.4, 0.1, -0.5])
    found = fit_calibration(given, codes, bias=True)
    assert found.temperature == pytest.approx(0.5, rel=0.05) and found.bias == pytest.approx([0.4, 0.1, -0.5], abs=0.06)
    nll = -np.take_along_axis(found(given), codes[:, None], 1).mean()
    assert found.after == pytest.approx(nll)
    scan = [-np.take_along_axis(log_softmax(given / t + found.bias, axis=1), codes[:, None], 1).mean() for t in (0.47, 0.5, 0.53)]
    assert nll <= min(scan) + 1e-5


def test_calibration_of_weighted_and_separable_labels():
    given, codes, _ = drawn(2.0, [0.0, 0.0, 0.0], n=400)
    weight = np.repeat([1.0, 3.0], 200)
    repeated = np.concatenate([np.arange(200), np.repeat(np.arange(200, 400), 3)])
    one = fit_calibration(given, codes, bias=True, weight=weight)
    other = fit_calibration(given[repeated], codes[repeated], bias=True)
    assert one.temperature == pytest.approx(other.temperature, rel=1e-3) and one.bias == pytest.approx(other.bias, abs=1e-3)
    separable = fit_calibration(np.array([[5.0, 0.0], [0.0, 5.0]]), np.array([0, 1]), bias=True)
    assert np.isfinite(separable.bias).all() and 0.05 <= separable.temperature <= 1.0
    wrong = fit_calibration(np.array([[5.0, 0.0], [0.0, 5.0]]), np.array([1, 0]))
    assert 1.0 < wrong.temperature <= 20.0
    for logits, labels, weights in (
        (np.zeros((0, 3)), np.zeros(0, int), None), (np.full((2, 3), np.nan), np.zeros(2, int), None),
        (np.zeros((2, 3)), np.array([0, 3]), None), (np.zeros((2, 3)), np.zeros(2, int), np.zeros(2)),
    ):
        with pytest.raises(SbiDaError, match="calibration"):
            fit_calibration(logits, labels, weight=weights)


def test_votes_follow_the_dirichlet_multinomial():
    rng = np.random.default_rng(0)
    alpha = rng.uniform(0.1, 20, (30, 3))
    counts = rng.multinomial(40, [0.5, 0.3, 0.2], 30)
    expected = scipy_dirichlet_multinomial.logpmf(counts, alpha, counts.sum(1))
    assert dirichlet_multinomial(torch.tensor(counts).double(), torch.tensor(alpha)).numpy() == pytest.approx(expected)
    logits = torch.tensor(rng.standard_normal((30, 5)), requires_grad=True)
    answers = np.concatenate([rng.multinomial(12, [0.9, 0.1], 30), counts], axis=1)
    answers[:5, 2:] = 0  # not asked
    value = vote_log_prob(torch.tensor(answers), logits, (2, 3))
    a = concentrations(logits).detach().numpy()
    parts = [scipy_dirichlet_multinomial.logpmf(answers[:, c], a[:, c], answers[:, c].sum(1)) for c in (slice(2), slice(2, 5))]
    assert value.detach().numpy() == pytest.approx(sum(parts))
    value.sum().backward()
    assert not logits.grad[:5, 2:].any() and logits.grad[:5, :2].any() and logits.grad[5:, 2:].any()
    extreme = torch.tensor([[1e6, -1e6], [-100.0, -100.0]], requires_grad=True)
    vote_log_prob(torch.tensor([[3, 1], [0, 7]]), extreme).sum().backward()
    assert torch.isfinite(extreme.grad).all() and concentrations(extreme).min().item() == pytest.approx(LEAST)
    with pytest.raises(SbiDaError, match="add up|one column"):
        vote_log_prob(torch.zeros(2, 5), torch.zeros(2, 5), (2, 2))


def test_vote_likelihood_recovers_concentrations():
    rng = np.random.default_rng(3)
    counts = torch.tensor(np.stack([rng.multinomial(30, p) for p in rng.dirichlet([4.0, 2.0, 0.5], 2000)]))
    logits = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([logits], max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = -vote_log_prob(counts, logits.expand(2000, 3)).mean()
        loss.backward()
        return loss

    optimiser.step(closure)
    assert concentrations(logits).detach().numpy() == pytest.approx([4.0, 2.0, 0.5], rel=0.08)


def test_multilabel_is_a_sum_of_bernoulli_laws_over_the_known():
    logits = torch.tensor([[0.3, -2.0, 5.0], [1e4, -1e4, 0.0]], requires_grad=True)
    labels = torch.tensor([[1.0, 0.25, -1.0], [1.0, 0.0, -1.0]])
    p = 1 / (1 + np.exp([-0.3, 2.0]))
    value = multilabel(labels, logits)
    assert value[0].item() == pytest.approx(np.log(p[0]) + 0.25 * np.log(p[1]) + 0.75 * np.log(1 - p[1]), rel=1e-5)
    assert value[1].item() == 0.0
    value.sum().backward()
    assert torch.isfinite(logits.grad).all() and not logits.grad[:, 2].any()
    with pytest.raises(SbiDaError, match="one shape"):
        multilabel(torch.zeros(2, 2), logits)


def posterior(n=5, ids=None, fractions=(0.22, 0.06, 0.72)):
    rng = np.random.default_rng(0)
    ids = np.arange(n) if ids is None else ids
    return ClassPosterior(ids, NAMES, 3 * rng.standard_normal((n, 3)), np.array(fractions))


def test_class_posterior_tells_probabilities():
    p = posterior()
    probabilities = p.probabilities()
    assert probabilities.dims == ("object", "class") and probabilities.sum("class").values == pytest.approx(np.ones(5))
    by_code, by_name = p.log_prob(np.array([0, 1, 2, 0, 1])), p.log_prob([NAMES[k] for k in (0, 1, 2, 0, 1)])
    assert by_code.identical(by_name)
    assert by_code.values == pytest.approx(np.log(probabilities.values[np.arange(5), [0, 1, 2, 0, 1]]))
    table = p.summary()
    best = probabilities.values.argmax(1)
    assert table["most_probable"].values.tolist() == [NAMES[k] for k in best]
    assert table["probability"].values == pytest.approx(probabilities.values.max(1))
    entropy = -(probabilities * np.log(probabilities)).sum("class")
    assert table["entropy"].values == pytest.approx(entropy.values)
    assert table["probabilities"].identical(probabilities)


def test_draws_depend_on_identifier_and_seed_and_follow_the_probabilities():
    ids = np.array(["a", "b", "c"])
    p = posterior(3, ids)
    drawn = p.sample(20000, seed=3)["class"]
    shares = np.stack([(drawn == k).mean("draw") for k in range(3)], axis=1)
    assert shares == pytest.approx(p.probabilities().values, abs=0.012)
    order = np.array([2, 0])
    some = ClassPosterior(ids[order], NAMES, p.log_probabilities[order], p.fractions).sample(20000, seed=3)["class"]
    assert np.array_equal(some.values, drawn.values[order])
    assert not np.array_equal(p.sample(20000, seed=4)["class"].values, drawn.values)
    never = ClassPosterior(ids[:1], NAMES, np.array([[-np.inf, 0.0, -np.inf]]), p.fractions).sample(100)["class"]
    assert (never == 1).all() and never.attrs["classes"] == list(NAMES)


def test_other_fractions_by_bayes_theorem_and_back():
    p = posterior()
    target = {"elliptical": 0.14, "irregular": 0.08, "spiral": 0.78}
    moved = p.under(target)
    expected = p.probabilities().values * np.array(list(target.values())) / p.fractions
    assert moved.probabilities().values == pytest.approx(expected / expected.sum(1, keepdims=True))
    assert moved.under(p.fractions).probabilities().values == pytest.approx(p.probabilities().values)
    without = p.under(np.array([0.5, 0.0, 0.5]))
    assert (without.probabilities().values[:, 1] == 0).all() and (without.sample(50)["class"] != 1).all()
    with pytest.raises(SbiDaError, match="fraction zero"):
        without.under(target)
    with pytest.raises(UnknownNameError, match="merger"):
        p.under(target | {"merger": 0.1})
    with pytest.raises(SbiDaError, match="spiral"):
        p.under({"elliptical": 0.5, "irregular": 0.5})


def test_population_of_a_shifted_sample_with_and_without_confusion():
    rng = np.random.default_rng(5)
    centres, source, target = np.array([-2.5, 0.0, 2.5]), np.array([0.22, 0.06, 0.72]), np.array([0.4, 0.3, 0.3])

    def objects(fractions, n):
        codes = rng.choice(3, n, p=fractions)
        x = centres[codes] + rng.standard_normal(n)
        joint = source * np.exp(-0.5 * (x[:, None] - centres) ** 2)
        return codes, joint / joint.sum(1, keepdims=True)

    labels, held_out = objects(source, 4000)
    codes, probabilities = objects(target, 4000)
    p = ClassPosterior(np.arange(4000), NAMES, np.log(probabilities), source)
    for found, factor in ((p.population(replicates=30), 4), (p.population(held_out, labels, replicates=30), 4)):
        assert isinstance(found, ClassFractions) and found.trusted
        assert (np.abs(found.fractions - target) < factor * found.sd).all() and found.sd.max() < 0.15
    better = p.under(p.population(replicates=2))
    assert better.log_prob(codes).mean() > p.log_prob(codes).mean() + 0.1
    with pytest.raises(SbiDaError, match="both"):
        p.population(held_out)


def test_class_posterior_refuses_what_it_cannot_use():
    p = posterior()
    for refused, match in (
        (lambda: p.given(mass=10.0), "one parameter, class"),
        (lambda: p.sample(0), "at least 1"),
        (lambda: p.log_prob(np.array([0, 1])), "one class for each"),
        (lambda: p.log_prob(np.array([0, 1, 2, 3, 0])), "from 0 to 2"),
        (lambda: p.log_prob(["merger"] * 5), "merger"),
        (lambda: ClassPosterior(np.arange(2), NAMES, np.zeros((2, 2)), np.ones(3)), "that shape"),
        (lambda: ClassPosterior(np.arange(1), NAMES, np.full((1, 3), np.nan), np.ones(3)), "NaN"),
        (lambda: ClassPosterior(np.arange(1), NAMES, np.full((1, 3), -np.inf), np.ones(3)), "no class"),
        (lambda: ClassPosterior(np.arange(1), NAMES, np.zeros((1, 3)), -np.ones(3)), "positive"),
    ):
        with pytest.raises(SbiDaError, match=match):
            refused()
    empty = ClassPosterior(np.arange(0), NAMES, np.zeros((0, 3)), np.ones(3))
    assert len(empty) == 0 and empty.sample(3)["class"].shape == (0, 3) and empty.summary()["probability"].shape == (0,)
