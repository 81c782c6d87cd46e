"""Laws, heads, posteriors and scores of votes on several questions and of labels of which an object may have many."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import beta, betabinom, kstest
from scipy.stats import dirichlet_multinomial as scipy_dirichlet_multinomial
from sklearn.metrics import roc_auc_score

from sbi_da.diagnostics.labels import evaluate_labels
from sbi_da.diagnostics.votes import evaluate_votes, vote_transform
from sbi_da.errors import SbiDaError, UnknownNameError
from sbi_da.label_prior import LabelPrior
from sbi_da.posteriors.label_head import LabelHead
from sbi_da.posteriors.label_posterior import LabelPosterior
from sbi_da.posteriors.vote_head import VoteHead
from sbi_da.posteriors.vote_posterior import VotePosterior
from sbi_da.posteriors.votes import concentrations, dirichlet_multinomial, logits_of
from sbi_da.vote_prior import VotePrior

QUESTIONS = {"shape": ("smooth", "disc", "star"), "bar": ("no", "yes")}


def votes_of(counts):
    """Columns of the questions above, of counts ``(object, 5)``."""
    return dict(zip([f"{q}_votes_{a}" for q, answers in QUESTIONS.items() for a in answers], np.asarray(counts, float).T, strict=True))


def minimise(parameters, loss):
    optimiser = torch.optim.LBFGS(parameters, max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        value = loss()
        value.backward()
        return value

    optimiser.step(closure)


# laws


def test_votes_by_hand():
    """Two votes for the first answer, one for the second: 3 orders, each of probability 1.5 2.5 0.5 / (2 3 4)."""
    found = dirichlet_multinomial(torch.tensor([2.0, 1.0]).double(), torch.tensor([1.5, 0.5]).double())
    assert float(found.exp()) == pytest.approx(3 * 1.5 * 2.5 * 0.5 / (2 * 3 * 4))
    alpha = torch.tensor([0.011, 0.5, 30.0]).double()
    assert concentrations(logits_of(alpha)).numpy() == pytest.approx(alpha.numpy())


def test_the_prior_of_votes_is_fitted_to_what_was_asked(rng):
    shape = np.stack([rng.multinomial(30, p) for p in rng.dirichlet([4.0, 2.0, 0.5], 3000)])
    bar = np.stack([rng.multinomial(15, p) for p in rng.dirichlet([1.0, 3.0], 3000)])
    votes = votes_of(np.concatenate([shape, bar], 1))
    votes["bar_votes_yes"][:1000] = np.nan
    prior = VotePrior.of_votes(QUESTIONS, votes)
    assert prior.concentrations == pytest.approx([4.0, 2.0, 0.5, 1.0, 3.0], rel=0.1) and prior.objects == 3000
    z = prior.to_normal(votes)
    assert not z[:1000, 3:].any() and np.array_equal(z[1000:, 3:], bar[1000:])
    expected = scipy_dirichlet_multinomial.logpmf(shape, prior.concentrations[:3], 30)
    expected[1000:] += scipy_dirichlet_multinomial.logpmf(bar[1000:], prior.concentrations[3:], 15)
    assert prior.log_prob(votes) == pytest.approx(expected)
    again = VotePrior.from_dict(json.loads(json.dumps(prior.to_dict())))
    assert again == prior and again.columns == list(votes) and again.bounds("bar") == (0.0, 1.0)
    nobody = prior.to_normal(votes_of([[0, 0, 0, 0, 0], [1, 0, 0, 0, 0]]))
    assert np.isnan(nobody[0]).all() and np.isfinite(nobody[1]).all()


@pytest.mark.parametrize(
    ("counts", "message"),
    [([[1, -2, 0, 1, 1]], "shape: votes must be counts, not -2"), ([[1, 2, 0, 0, 0]], "bar: no training object has votes")],
)
def test_votes_that_are_none_are_refused(counts, message):
    with pytest.raises(SbiDaError, match=message):
        VotePrior.of_votes(QUESTIONS, votes_of(counts))


def test_the_prior_of_labels_counts_the_known():
    labels = {"bar": np.array([1, 0, 0, 0, np.nan]), "ring": np.array([np.nan, 1, 0, np.nan, np.nan])}
    prior = LabelPrior.of_labels(["bar", "ring"], labels)
    assert prior.rates == {"bar": 0.25, "ring": 0.5} and prior.objects == 4
    z = prior.to_normal(labels)
    assert z[:4].tolist() == [[1, -1], [0, 1], [0, 0], [0, -1]] and np.isnan(z[4]).all()
    assert prior.log_prob(labels) == pytest.approx(np.log([0.25, 0.375, 0.375, 0.75, 1.0]))
    assert LabelPrior.from_dict(json.loads(json.dumps(prior.to_dict()))) == prior
    for values, message in (([1, 1, np.nan], "is 1 of every training object"), ([np.nan] * 3, "unknown of"), ([0.3, 1, 0], "not 0.3")):
        with pytest.raises(SbiDaError, match=f"bar: .*{message}"):
            LabelPrior.of_labels(["bar"], {"bar": np.array(values)})


# heads


def test_a_head_of_votes_recovers_true_concentrations(rng):
    """Concentrations that lie in its family, of a context of two numbers; one question is asked of half the objects."""
    torch.manual_seed(0)
    context = torch.from_numpy(rng.standard_normal((6000, 2)))
    truth = VoteHead((3, 2), 2).double()
    with torch.no_grad():
        truth.layers[-1].weight.copy_(torch.tensor([[2.0, 0], [0, 2.0], [-1, -1], [1, 1], [0, -2.0]]))
        truth.layers[-1].bias.copy_(torch.tensor([4.0, 3.0, 2.0, 5.0, 2.0]))
        alpha = truth.concentrations(context).numpy()
    counts = np.concatenate(
        [np.stack([rng.multinomial(40, rng.dirichlet(a)) for a in alpha[:, cut]]) for cut in (slice(3), slice(3, 5))], 1
    ).astype(float)
    counts[3000:, 3:] = 0
    head, n = VoteHead((3, 2), 2).double(), torch.from_numpy(counts)
    head.start(torch.tensor([1.0, 1, 1, 2, 1]).double())
    assert head.layers[-1].bias[:3].detach().numpy() == pytest.approx(np.full(3, logits_of(torch.tensor(1.0)).item()))
    minimise(head.parameters(), lambda: -head.log_prob(n, context).mean())
    found = head.concentrations(context).detach().numpy()
    fractions = [a / a.sum(1, keepdims=True) for a in (found[:, :3], alpha[:, :3])]
    assert np.abs(fractions[0] - fractions[1]).mean() < 0.01
    assert np.median(found[:, :3].sum(1) / alpha[:, :3].sum(1)) == pytest.approx(1, abs=0.08)
    assert np.median(found[:, 3:].sum(1) / alpha[:, 3:].sum(1)) == pytest.approx(1, abs=0.12)
    with torch.no_grad():
        assert float(head.log_prob(n, context).mean()) == pytest.approx(float(truth.log_prob(n, context).mean()), abs=0.005)


def test_strengths_undo_concentrations_that_are_too_sure(rng):
    head = VoteHead((3, 2), 2)
    context = torch.from_numpy(rng.standard_normal((4000, 2))).float()
    sure = head.concentrations(context).detach().numpy()
    halves = (sure[:, :3] / 2, sure[:, 3:] * 3)
    counts = np.concatenate([np.stack([rng.multinomial(30, rng.dirichlet(a)) for a in part]) for part in halves], 1)
    head.calibrate(torch.from_numpy(counts), context)
    assert head.strength.numpy() == pytest.approx([0.5, 3.0], rel=0.1)
    mended = head.concentrations(context).detach().numpy()
    assert np.concatenate(halves, 1) == pytest.approx(mended, rel=0.1)
    unasked = VoteHead((3, 2), 2)
    unasked.calibrate(torch.zeros(5, 5), context[:5])
    assert unasked.strength.tolist() == [1.0, 1.0]
    with pytest.raises(SbiDaError, match="two answers or more"):
        VoteHead((3, 1), 2)


def test_a_head_of_labels_recovers_log_odds_and_skips_the_unknown(rng):
    torch.manual_seed(0)
    context = torch.from_numpy(rng.standard_normal((8000, 2)))
    weight, bias = np.array([[1.5, 0.0], [-1.0, 1.0]]), np.array([-1.0, 0.5])
    odds = context.numpy() @ weight.T + bias
    labels = (rng.random(odds.shape) < 1 / (1 + np.exp(-odds))).astype(float)
    labels[rng.random(labels.shape) < 0.4] = -1
    head = LabelHead(2, 2).double()
    minimise(head.parameters(), lambda: -head.log_prob(torch.from_numpy(labels), context).mean())
    assert head.layers[-1].weight.detach().numpy() == pytest.approx(weight, abs=0.12)
    assert head.layers[-1].bias.detach().numpy() == pytest.approx(bias, abs=0.12)
    head.zero_grad()
    head.log_prob(-torch.ones(3, 2), context[:3]).sum().backward()
    assert not head.layers[-1].weight.grad.any()
    with torch.no_grad():
        head.layers[-1].weight *= 2
        head.layers[-1].bias *= 2
    before = head.log_prob(torch.from_numpy(labels), context).mean()
    head.calibrate(torch.from_numpy(labels), context)
    assert head.log_prob(torch.from_numpy(labels), context).mean() > before + 0.05
    assert head.temperature.numpy() == pytest.approx([2, 2], rel=0.1)


# posteriors


def vote_posterior(ids=(7, 8, 9, 10)):
    rng = np.random.default_rng(2)
    ids = np.array(ids)
    return VotePosterior(ids, QUESTIONS, {"shape": rng.uniform(0.5, 9, (len(ids), 3)), "bar": rng.uniform(0.5, 9, (len(ids), 2))})


def test_posterior_of_votes():
    p = vote_posterior()
    alpha = p.concentrations["shape"]
    total = alpha.sum(1, keepdims=True)
    assert p.fractions("shape").values == pytest.approx(alpha / total) and p.fractions("bar").dims == ("object", "answer")
    assert p.quantiles("shape", (0.16, 0.9)).values[1] == pytest.approx(beta(alpha, total - alpha).ppf(0.9))
    counts = {"shape": np.array([[1, 2, 3], [0, 0, 0], [9, 0, 0], [1, 1, 1]]), "bar": np.array([[4, 1], [2, 2], [0, 0], [0, 5]])}
    expected = sum(scipy_dirichlet_multinomial.logpmf(n, p.concentrations[q], n.sum(1)) for q, n in counts.items())
    assert p.log_prob(counts).values == pytest.approx(expected)
    drawn = p.sample(4000, seed=1)
    assert drawn["shape"].dims == ("object", "draw", "shape_answer") and drawn["shape"].sum("shape_answer").values == pytest.approx(1)
    assert drawn["shape"].mean("draw").values == pytest.approx(alpha / total, abs=0.02)
    assert np.quantile(drawn["bar"], 0.84, axis=1) == pytest.approx(p.quantiles("bar", (0.84,)).values[0], abs=0.02)
    swapped = VotePosterior(p.ids[::-1], QUESTIONS, {q: a[::-1] for q, a in p.concentrations.items()}).sample(5, seed=1)
    assert np.array_equal(swapped["bar"].values[::-1], p.sample(5, seed=1)["bar"].values)
    told, columns = p.summary(), p.columns()
    assert told["shape"].values.tolist() == [QUESTIONS["shape"][k] for k in alpha.argmax(1)] == columns["shape"].tolist()
    assert columns["shape_disc_mean"] == pytest.approx(told["shape_fraction"].sel(shape_answer="disc").values)
    assert columns["bar_yes_q95"] == pytest.approx(told["bar_quantiles"].sel(bar_answer="yes", quantile=0.95).values)
    assert columns["shape_star_sd"] == pytest.approx(beta(alpha[:, 2], total[:, 0] - alpha[:, 2]).std())
    assert len(VotePosterior(np.zeros(0), QUESTIONS, {"shape": np.zeros((0, 3)), "bar": np.zeros((0, 2))}).columns()["bar"]) == 0


def test_what_posteriors_of_votes_and_labels_refuse():
    p = vote_posterior()
    with pytest.raises(UnknownNameError, match="'ring': known are shape, bar"):
        p.fractions("ring")
    with pytest.raises(SbiDaError, match="shape: votes must be counts of shape"):
        p.log_prob({"shape": -np.ones((4, 3))})
    with pytest.raises(SbiDaError, match="independent"):
        p.given(shape=1)
    with pytest.raises(SbiDaError, match="needs concentrations of that shape"):
        VotePosterior(p.ids, QUESTIONS, {"shape": np.ones((4, 2)), "bar": np.ones((4, 2))})
    with pytest.raises(SbiDaError, match="not positive and finite"):
        VotePosterior(p.ids, QUESTIONS, {"shape": np.full((4, 3), np.nan), "bar": np.ones((4, 2))})
    labels = LabelPosterior(np.arange(2), ("a", "b"), np.zeros((2, 2)))
    with pytest.raises(SbiDaError, match="0, 1 or NaN"):
        labels.log_prob({"a": np.array([0.5, 1])})
    with pytest.raises(UnknownNameError, match="'c'"):
        labels.log_prob({"c": np.zeros(2)})
    for posterior in (p, labels):
        with pytest.raises(SbiDaError, match="at least 1"):
            posterior.sample(0)
    with pytest.raises(SbiDaError, match="independent"):
        labels.given(a=1)
    with pytest.raises(SbiDaError, match="NaN"):
        LabelPosterior(np.arange(1), ("a",), np.array([[np.nan]]))


def test_posterior_of_labels():
    odds = np.array([[2.0, -3.0], [-1.0, 40.0], [5.0, 0.5]])
    p = LabelPosterior(np.array(["x", "y", "z"]), ("bar", "ring"), odds)
    q = 1 / (1 + np.exp(-odds))
    assert p.probabilities().values == pytest.approx(q) and p.probabilities().dims == ("object", "label")
    found = p.log_prob({"bar": np.array([1, 0, np.nan]), "ring": np.array([0, 0, 1])}).values
    assert found == pytest.approx([np.log(q[0, 0]) + np.log(1 - q[0, 1]), np.log(1 - q[1, 0]) - 40.0, np.log(q[2, 1])])
    drawn = p.sample(5000, seed=2)
    assert np.stack([drawn["bar"].mean("draw"), drawn["ring"].mean("draw")], 1) == pytest.approx(q, abs=0.02)
    assert p.columns()["labels"].tolist() == ["bar", "ring", "bar+ring"] and p.summary()["holds"].values.tolist() == (odds > 0).tolist()
    assert p.columns()["ring_probability"] == pytest.approx(q[:, 1])
    assert p.summary()["entropy"].values[0] == pytest.approx(-sum(v * np.log(v) + (1 - v) * np.log(1 - v) for v in q[0]))


# scores


def test_the_transform_of_votes_is_uniform_under_the_truth(rng):
    n = 4000
    a, b, total = rng.uniform(0.3, 20, n), rng.uniform(0.3, 20, n), rng.integers(1, 60, n)
    count = rng.binomial(total, rng.beta(a, b))
    assert kstest(vote_transform(count, total, a, b, rng), "uniform").pvalue > 0.01
    assert kstest(vote_transform(count, total, 3 * a, 3 * b, rng), "uniform").pvalue < 1e-6
    low = betabinom.cdf(count - 1, total, a, b)
    high = betabinom.cdf(count, total, a, b)
    u = vote_transform(count, total, a, b, rng)
    assert ((u >= low - 1e-9) & (u <= high + 1e-9)).all()


def test_scores_of_votes_know_the_truth(rng):
    n = 1500
    alpha = {"shape": rng.uniform(0.5, 12, (n, 3)), "bar": rng.uniform(0.5, 12, (n, 2))}
    counts = {q: np.stack([rng.multinomial(25, rng.dirichlet(row)) for row in a]).astype(float) for q, a in alpha.items()}
    counts["bar"][:600] = 0
    base = {"shape": np.array([1.0, 1, 1]), "bar": np.array([1.0, 1])}
    found = evaluate_votes(counts, alpha, base, QUESTIONS, replicates=200)
    each = scipy_dirichlet_multinomial.logpmf(counts["shape"], alpha["shape"], 25)
    blind = scipy_dirichlet_multinomial.logpmf(counts["shape"], base["shape"], 25)
    shape = found["questions"]["shape"]
    assert shape["nll"]["value"] == pytest.approx(-each.mean()) and shape["baseline_nll"]["value"] == pytest.approx(-blind.mean())
    assert shape["gain"]["low"] < (each - blind).mean() < shape["gain"]["high"] and shape["gain"]["low"] > 0
    assert found["overall"]["n"] == n and found["questions"]["bar"]["n"] == 900
    for block in found["questions"].values():
        assert block["coverage"]["error"]["value"] < 1.5 * block["coverage"]["error"]["limit"]
        for answer in block["answers"].values():
            assert answer["rank_correlation"]["low"] > 0.5 and answer["error"]["value"] < answer["baseline_error"]["value"]
    sure = evaluate_votes(counts, {q: 5 * a for q, a in alpha.items()}, base, QUESTIONS, replicates=50)
    assert sure["questions"]["shape"]["coverage"]["error"]["value"] > 3 * shape["coverage"]["error"]["limit"]
    assert sure["questions"]["shape"]["nll"]["value"] > shape["nll"]["value"]
    with pytest.raises(SbiDaError, match="none of the objects has votes"):
        evaluate_votes({q: 0 * c for q, c in counts.items()}, alpha, base, QUESTIONS)


def test_scores_of_labels_know_the_truth(rng):
    p = rng.uniform(0, 1, (1200, 2))
    y = (rng.random(p.shape) < p).astype(float)
    y[:500, 1] = -1
    found = evaluate_labels(y, p, {"bar": 0.5, "ring": 0.4}, replicates=200)
    assert found["labels"]["bar"]["per_class"]["yes"]["roc_auc"]["value"] == pytest.approx(roc_auc_score(y[:, 0], p[:, 0]))
    assert found["labels"]["ring"]["n"] == 700 and found["labels"]["ring"]["rate"] == 0.4
    hand = -np.where(y == 1, np.log(p), np.where(y == 0, np.log(1 - p), 0)).sum(1)
    assert found["overall"]["nll"]["value"] == pytest.approx(hand.mean()) and found["overall"]["gain"]["low"] > 0
    ece = found["labels"]["bar"]["calibration"]["by_class"]["yes"]
    assert ece["value"] < 1.5 * ece["limit"]
    y[:, 1] = -1
    assert evaluate_labels(y, p, {"bar": 0.5, "ring": 0.4}, replicates=20)["labels"]["ring"] is None
    with pytest.raises(SbiDaError, match="known label of bar"):
        evaluate_labels(0 * y - 1, p, {"bar": 0.5, "ring": 0.4})
