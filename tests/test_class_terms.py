"""What every term of a classifier keeps to, whichever it is; the published formulae; anomaly scores."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy

from sbi_da.alignment.anomalies import entropy_score, reject, threshold
from sbi_da.alignment.class_registry import CLASS_TERMS
from sbi_da.alignment.class_term import Classified, ClassTerm
from sbi_da.alignment.clustering import AdaptiveClustering
from sbi_da.alignment.entropy import Entropy
from sbi_da.alignment.fisher import Fisher
from sbi_da.alignment.separation import EntropySeparation, Tuner
from sbi_da.alignment.transport import SoftMatching
from sbi_da.errors import SbiDaError

WIDTH, CLASSES = 5, 3
ROWS = {
    "ordinary": (12, 9), "single row": (1, 1), "one real": (12, 1), "empty real": (12, 0), "empty simulated": (0, 9), "both empty": (0, 0),
}
KINDS = ("ordinary", "identical", "huge logits", "huge features", "one class", "zeros")


def batch(n, seed, kind="ordinary", labelled=True):
    """A classified batch of leaves."""
    g = torch.Generator().manual_seed(seed)
    features, logits = torch.randn(n, WIDTH, generator=g), 2 * torch.randn(n, CLASSES, generator=g)
    labels = torch.arange(n) % CLASSES
    if kind == "identical":
        features, logits = torch.ones(n, WIDTH), torch.ones(n, CLASSES)
    elif kind == "huge logits":
        logits = 1e6 * logits
    elif kind == "huge features":
        features = 1e6 * features
    elif kind == "one class":
        labels = torch.zeros(n, dtype=torch.long)
    elif kind == "zeros":
        features, logits = torch.zeros(n, WIDTH), torch.zeros(n, CLASSES)
    return Classified(features.requires_grad_(), logits.requires_grad_(), labels if labelled else None)


def run(term, n, m, kind, views):
    simulated, real = batch(n, 0, kind), batch(m, 1, kind, labelled=False)
    copies = (batch(n, 2, kind), batch(m, 3, kind, labelled=False)) if views else None
    value = term(simulated, real, copies)
    value.backward()
    return value, [x.grad for side in (simulated, real) for x in (side.features, side.logits)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("name", CLASS_TERMS)
def test_values_and_gradients_are_finite_on_every_batch(name, rows, kind):
    for views in {False, CLASS_TERMS[name].views == 2}:
        term = CLASS_TERMS[name]()
        for _ in range(2):  # a bank is empty at first
            value, gradients = run(term, *ROWS[rows], kind, views)
            assert value.shape == () and torch.isfinite(value)
            assert all(g is not None and torch.isfinite(g).all() for g in gradients)
        term.epoch_ended(value.item())


@pytest.mark.parametrize("name", CLASS_TERMS)
def test_a_side_with_too_few_objects_gives_zero_and_zero_gradients(name):
    needs_simulated = name == "fisher"
    for n, m in ((0, 9), (1, 9)) if needs_simulated else ((12, 0), (0, 0)):
        value, gradients = run(CLASS_TERMS[name](), n, m, "ordinary", False)
        assert value == 0 and not any(g.any() for g in gradients)


@pytest.mark.parametrize("name", CLASS_TERMS)
def test_ordinary_batches_give_gradients_and_real_labels_are_not_looked_at(name):
    value, gradients = run(CLASS_TERMS[name](), 12, 9, "ordinary", False)
    assert any(g.any() for g in gradients)
    hidden, shown = batch(9, 1, labelled=False), batch(9, 1)
    assert CLASS_TERMS[name]()(batch(12, 0), shown) == CLASS_TERMS[name]()(batch(12, 0), hidden) == value


@pytest.mark.parametrize("name", CLASS_TERMS)
def test_terms_are_registered_under_their_kind_and_resume_from_a_checkpoint(name, tmp_path):
    term, again = CLASS_TERMS[name](), CLASS_TERMS[name]()
    assert term.kind == name and isinstance(term, ClassTerm)
    again.load_state_dict(term.state_dict())  # before any batch
    for epoch in range(8):
        run(term, 12, 9, "ordinary", False)
        term.epoch_ended(1.0 + epoch)
    torch.save(term.state_dict(), tmp_path / "term.ckpt")
    again.load_state_dict(torch.load(tmp_path / "term.ckpt", weights_only=True))
    for loss in (9.0, 10.0, 11.0):
        assert run(term, 6, 4, "ordinary", False)[0] == run(again, 6, 4, "ordinary", False)[0]
        term.epoch_ended(loss)
        again.epoch_ended(loss)


def test_batches_that_do_not_fit_are_refused():
    with pytest.raises(SbiDaError, match="same objects"):
        Classified(torch.zeros(3, 2), torch.zeros(4, 3))
    for labels in (torch.zeros(2, dtype=torch.long), torch.zeros(3)):
        with pytest.raises(SbiDaError, match="integer codes"):
            Classified(torch.zeros(3, 2), torch.zeros(3, 3), labels)
    with pytest.raises(SbiDaError, match="no labels"):
        Fisher()(batch(4, 0, labelled=False), batch(4, 1))
    for term, wrong in (
        (Entropy, {"diversity": -1.0}), (Entropy, {"fractions": (1.0, 0.0)}), (AdaptiveClustering, {"top": 0}),
        (AdaptiveClustering, {"bank": -1}), (EntropySeparation, {"margin": -0.1}), (EntropySeparation, {"steps": ()}),
    ):
        with pytest.raises(SbiDaError):
            term(**wrong)
    with pytest.raises(SbiDaError, match="2 fractions for 3 classes"):
        Entropy(1.0, (0.5, 0.5))(batch(4, 0), batch(4, 1))
    with pytest.raises(SbiDaError, match="second view"):
        AdaptiveClustering()(batch(4, 0), batch(4, 1), (batch(4, 0), batch(3, 1)))


def test_loss_decomposition():
    """galaxy-da as executed: half of (0.25 cost of the plan + 0.5 soft matching + 0.05 mean of the five worst matches)."""
    x, y = torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0]]), torch.tensor([[0.0], [1.0], [2.5], [3.0], [4.0], [7.0]])
    cost = (x - y.T).square().numpy()
    n, log_k = len(x), -cost / 0.05
    f, g = np.zeros(n), np.zeros(n)
    for _ in range(3000):  # Sinkhorn's iteration, in the log domain
        f = -np.log(n) - np.logaddexp.reduce(log_k + g, axis=1)
        g = -np.log(n) - np.logaddexp.reduce(log_k + f[:, None], axis=0)
    plan = np.exp(f[:, None] + log_k + g)
    transport = (plan * cost).sum()
    matching = ((x.numpy() - n * plan @ y.numpy()) ** 2).mean()
    worst = np.sort(cost.min(1))[1:].mean()  # five of six
    assert worst == pytest.approx((1.0 + 0.25 + 0.0 + 0.0 + 0.0) / 5)
    term = SoftMatching(published=True, iterations=3000)
    assert (term.transport, term.barycentre, term.worst, term.scale, term.k, term.epsilon) == (0.25, 0.5, 0.05, 0.5, 5, 0.05)
    expected = 0.5 * (0.25 * transport + 0.5 * matching + 0.05 * worst)
    assert term(x, y).item() == pytest.approx(expected, rel=1e-3)


def test_fisher_is_the_ratio_of_traces():
    labels = torch.tensor([0, 0, 2, 2, 2, 0])
    features = torch.randn(6, WIDTH, generator=torch.Generator().manual_seed(0))
    real = batch(2, 1)
    parts = [features[labels == k] for k in (0, 2)]
    means = torch.stack([p.mean(0) for p in parts])
    within = [(p - p.mean(0)).square().sum() for p in parts]
    between = (means - means.mean(0)).square().sum()
    value = Fisher()(Classified(features, torch.zeros(6, CLASSES), labels), real)
    assert value.item() == pytest.approx((sum(within) / between).item(), rel=1e-4)
    balanced = Fisher(balanced=True)(Classified(features, torch.zeros(6, CLASSES), labels), real)
    assert balanced.item() == pytest.approx(((within[0] / 3 + within[1] / 3) / between).item(), rel=1e-4)
    scaled = Fisher()(Classified(100 * features + 7, torch.zeros(6, CLASSES), labels), real)
    assert scaled.item() == pytest.approx(value.item(), rel=1e-3)
    twice = Classified(features.repeat(2, 1), torch.zeros(12, CLASSES), labels.repeat(2))
    assert Fisher()(twice, real).item() == pytest.approx(2 * value.item(), rel=1e-4)
    assert Fisher(balanced=True)(twice, real).item() == pytest.approx(balanced.item(), rel=1e-4)


def test_fisher_lets_unknown_objects_be_and_a_lone_object_is_a_class():
    features = torch.tensor([[0.0], [2.0], [5.0], [99.0]])
    labels = torch.tensor([0, 0, 1, -1])
    value = Fisher()(Classified(features, torch.zeros(4, CLASSES), labels), batch(0, 0))
    assert value.item() == pytest.approx(2.0 / (2 * 2.0**2), rel=1e-4)


def test_entropy_is_that_of_the_outputs_and_diversity_makes_it_information():
    real = batch(9, 1)
    p = real.probabilities.detach().double().numpy()
    mean = scipy_entropy(p, axis=1).mean()
    assert Entropy()(batch(2, 0), real).item() == pytest.approx(mean, rel=1e-5)
    information = scipy_entropy(p.mean(0)) - mean
    assert Entropy(1.0)(batch(2, 0), real).item() == pytest.approx(math.log(CLASSES) - information, rel=1e-5)
    fractions = (14.0, 8.0, 78.0)
    expected = mean + 0.5 * scipy_entropy(p.mean(0), fractions)
    assert Entropy(0.5, fractions)(batch(2, 0), real).item() == pytest.approx(expected, rel=1e-5)


def logits_of(p):
    return torch.tensor(p).log().requires_grad_()


def classified(p, labels=None):
    return Classified(torch.zeros(len(p), 1), logits_of(p), labels)


def test_adaptive_clustering_is_the_cross_entropy_of_the_definition():
    """One simulated object of class 1, two real ones, and by the second batch the first one's outputs in the bank."""
    source, target = [[0.2, 0.7, 0.1]], [[0.3, 0.6, 0.1], [0.6, 0.3, 0.1]]
    term = AdaptiveClustering(top=3)
    first = term(classified(source, torch.tensor([1])), classified(target))
    p, q = np.array(target), np.array(source)

    def loss(a, b, same):
        return -np.log(a @ b) if same else -np.log(1 - a @ b)

    real = [loss(p[0], p[1], False), loss(p[1], p[0], False)]  # orders 1 0 2 and 0 1 2
    simulated = [loss(q[0], p[0], True), loss(q[0], p[1], False)]
    assert first.item() == pytest.approx(np.mean(real + simulated), rel=1e-4)
    # The second view of the real objects, and the bank: both real ones and the simulated one again.
    copies = np.array([[0.5, 0.4, 0.1], [0.8, 0.1, 0.1]])
    second = term(classified(source, torch.tensor([1])), classified(target), (classified(source), classified(copies.tolist())))
    pairs = [loss(p[i], copies[j], i == j) for i in range(2) for j in range(2)]
    pairs += [loss(q[0], copies[0], True), loss(q[0], copies[1], False)]
    assert second.item() == pytest.approx(np.mean(pairs + pairs), rel=1e-4)


def test_unlabelled_simulations_are_compared_by_order_and_labels_by_class():
    target, source = [[0.5, 0.4, 0.1]], [[0.5, 0.1, 0.4]]
    value = {
        (top, label): AdaptiveClustering(top=top, bank=0)(
            classified(source, None if label is None else torch.tensor([label])), classified(target)
        ).item()
        for top in (1, 3) for label in (None, 0, 1)
    }
    s = 0.25 + 0.04 + 0.04
    same, other = -math.log(s), -math.log(1 - s)
    expected = {(1, None): same, (3, None): other, (1, 0): same, (3, 0): same, (1, 1): other, (3, 1): other}
    assert value == pytest.approx(expected, rel=1e-4)


def test_the_paper_compares_three_of_three_and_seven_of_ten_classes():
    def value(classes, swapped):
        a = torch.arange(classes, 0, -1.0)[None]
        b = a.clone()
        b[0, swapped] = b[0, swapped].flip(0)
        s = float((a.softmax(-1) * b.softmax(-1)).sum())
        loss = AdaptiveClustering(bank=0)(Classified(torch.zeros(1, 1), a), Classified(torch.zeros(1, 1), b)).item()
        assert min(abs(loss + math.log(s)), abs(loss + math.log(1 - s))) < 1e-4
        return abs(loss + math.log(s)) < 1e-4

    assert value(3, []) and not value(3, [1, 2])
    assert value(10, [7, 8]) and not value(10, [6, 7])
    assert not value(4, [2, 3])


def test_the_bank_keeps_the_latest_up_to_its_size_and_only_in_training():
    term = AdaptiveClustering(bank=5)
    for k in range(3):
        side = Classified(torch.zeros(2, 1), torch.full((2, CLASSES), float(k)), torch.full((2,), k))
        term(side, Classified(torch.zeros(1, 1), torch.full((1, CLASSES), 10.0 + k)))
    assert term.bank_logits[:, 0].tolist() == [12, 2, 2, 11, 1] and term.bank_labels.tolist() == [-1, 2, 2, -1, 1]
    term.eval()
    term(side, side)
    assert term.bank_logits[:, 0].tolist() == [12, 2, 2, 11, 1]
    with pytest.raises(SbiDaError, match="3 classes"):
        term(*[Classified(torch.zeros(2, 1), torch.zeros(2, 4))] * 2)


def test_entropy_separation_drives_away_from_the_boundary_what_is_beyond_the_margin():
    p = [[0.98, 0.01, 0.01], [0.34, 0.33, 0.33], [0.8, 0.19, 0.01]]
    h = scipy_entropy(np.array(p), axis=1)
    rho = math.log(3) / 2
    assert abs(h[2] - rho) < 0.2 < min(abs(h[0] - rho), abs(h[1] - rho))
    real = classified(p)
    value = EntropySeparation(margin=0.2)(batch(2, 0), real)
    assert value.item() == pytest.approx(-(abs(h[0] - rho) + abs(h[1] - rho)) / 3, rel=1e-5)
    value.backward()
    step = real.logits.detach() - real.logits.grad
    after = scipy_entropy(step.softmax(-1).numpy(), axis=1)
    assert after[0] < h[0] and after[1] >= h[1] - 1e-9 and not real.logits.grad[2].any()
    assert EntropySeparation(margin=0.9, bounded=False)(batch(2, 0), classified(p)) == 0


def test_tuner_takes_the_steps_of_algorithm_1():
    """A loss that never falls after its first epoch: the whole sequence; and falling losses leave all as it is."""
    rho, margin = math.log(3) / 2, 0.4
    tuner = Tuner(rho, margin)
    seen = []
    for epoch in range(1, 52):
        if tuner.update(1.0):
            seen.append((epoch, tuner.rho, tuner.margin))
    expected, epoch = [], 6
    for step in (0.3, -0.3, 0.5, -0.5):
        rho += step
        expected.append((epoch, rho, margin))
        margin += step
        expected.append((epoch + 3, rho, margin))
        margin *= 2
        expected.append((epoch + 6, rho, margin))
        epoch += 12  # three epochs to the choice of the next step, three more until there are six
    assert [e for e, *_ in seen] == [6, 9, 12, 18, 21, 24, 30, 33, 36, 42, 45, 48]
    assert np.array(seen) == pytest.approx(np.array(expected))
    assert [tuner.step, tuner.change] == [4, 0]
    calm = Tuner(0.5, 0.4)
    assert not any(calm.update(-float(k)) for k in range(50)) and (calm.rho, calm.margin) == (0.5, 0.4)


def test_tuner_waits_while_the_loss_falls_and_takes_nan_as_no_fall():
    tuner = Tuner(0.5, 0.4)
    losses = [5, 4, 3, 2, 1, 1, 0.5, 0.6, math.nan, 0.5, 0.4, 0.45]
    changed = [tuner.update(x) for x in losses]
    assert [k for k, x in enumerate(changed, 1) if x] == [6, 9, 12]
    assert tuner.lowest == 0.4 and tuner.rho == pytest.approx(0.8) and tuner.margin == pytest.approx(1.4)


def test_bounded_separation_never_switches_itself_off():
    free, bounded = EntropySeparation(bounded=False), EntropySeparation()
    still = EntropySeparation(tuned=False)
    for _ in range(200):
        for term in (free, bounded, still):
            p = [[0.999998, 1e-6, 1e-6], [0.34, 0.33, 0.33]]
            value = term(batch(2, 0), classified(p))
            term.epoch_ended(1.0)
            assert term is free or value < 0
    assert free(batch(2, 0), classified(p)) == 0
    assert 0 <= bounded.rho <= math.log(3) and 0 <= bounded.tuner.margin < math.log(3), "held, or no step brings it back"
    assert still.rho == pytest.approx(math.log(3) / 2)
    with pytest.raises(SbiDaError, match="once a batch"):
        _ = EntropySeparation().rho


def test_separation_finds_an_unknown_class():
    """Free logits of known-looking and of ambiguous objects: descent drives them apart, and rejection tells them."""
    p = torch.tensor([[0.85, 0.14, 0.01]] * 4 + [[0.4, 0.35, 0.25]] * 4)
    logits = p.log().requires_grad_()
    term = EntropySeparation(margin=0.05)
    for _ in range(60):
        (gradient,) = torch.autograd.grad(term(batch(2, 0), Classified(torch.zeros(8, 1), logits)), logits)
        logits = (logits - gradient).detach().requires_grad_()
    rejected = reject(logits.softmax(-1).detach().numpy(), term.rho)
    assert rejected.tolist() == [False] * 4 + [True] * 4
    assert entropy_score(logits.softmax(-1).detach().numpy())[:4].max() < 0.25


def test_anomaly_scores_against_their_definitions():
    p = np.array([[1.0, 0.0, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    assert entropy_score(p) == pytest.approx([0.0, math.log(3)])
    assert reject(p).tolist() == [False, True] and reject(p, 2.0).tolist() == [False, False]
    assert threshold(np.arange(101.0), 0.05) == pytest.approx(95.0)
    with pytest.raises(SbiDaError):
        threshold(np.zeros(0))
