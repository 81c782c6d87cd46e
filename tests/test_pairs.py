"""Terms over rows that belong together, against loops."""

import math

import pytest
import torch

from sbi_da.alignment.pairs import InfoNCE, PairCosine, PairMean, PairMSE
from sbi_da.errors import SbiDaError

TERMS = [PairMSE, PairMean, PairCosine, InfoNCE]


def sides(term, n=5, width=4, draws=3, seed=0):
    torch.manual_seed(seed)
    shape = (n, draws, width) if term is PairMean else (n, width)
    return torch.randn(shape, requires_grad=True), torch.randn(n, width, requires_grad=True)


def cosine(a, b):
    return float(a @ b / (a.norm() * b.norm()))


def loop(term, s, o):
    """Values of the pairs by the textbook."""
    s, o = s.detach().double(), o.detach().double()
    if term is PairMSE:
        return [float(((b - a) ** 2).sum() / len(b)) for a, b in zip(s, o, strict=True)]
    if term is PairMean:
        return [float(((b - sum(a) / len(a)) ** 2).sum() / len(b)) for a, b in zip(s, o, strict=True)]
    if term is PairCosine:
        return [1 - cosine(a, b) for a, b in zip(s, o, strict=True)]
    e = [[math.exp(cosine(a, b) / 0.1) for b in o] for a in s]
    n = len(s)
    return [
        -0.5 * (math.log(e[i][i] / sum(e[i])) + math.log(e[i][i] / sum(e[j][i] for j in range(n)))) for i in range(n)
    ]


@pytest.mark.parametrize("term", TERMS)
def test_value_is_the_weighted_mean_over_pairs(term):
    s, o = sides(term)
    values = loop(term, s, o)
    assert term()(s, o).item() == pytest.approx(sum(values) / 5, rel=1e-5)
    weight = torch.tensor([1.0, 2.0, 0.5, 3.0, 1.5])
    expected = sum(w * v for w, v in zip(weight.tolist(), values, strict=True)) / 8
    assert term()(s, o, weight).item() == pytest.approx(expected, rel=1e-5)
    assert term()(s, o, 10 * weight).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("term", TERMS)
def test_rows_of_weight_zero_are_as_if_absent(term):
    s, o = sides(term)
    weight = torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0])
    keep = weight > 0
    assert term()(s, o, weight).item() == pytest.approx(term()(s[keep], o[keep]).item(), rel=1e-5)
    term()(s, o, weight).backward()
    assert o.grad.isfinite().all() and not o.grad[~keep].any() and o.grad[keep].any()


@pytest.mark.parametrize("term", TERMS)
def test_simulations_are_moved_only_when_asked(term):
    s, o = sides(term)
    term()(s, o).backward()
    assert s.grad is None and o.grad.any()
    term(stop_gradient=False)(s, o).backward()
    assert s.grad.any()


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("weight", [None, 0.0])
def test_no_pair_is_a_connected_zero(term, weight):
    s, o = sides(term, n=0 if weight is None else 3)
    loss = term()(s, o, None if weight is None else torch.zeros(3))
    loss.backward()
    assert loss.item() == 0 and not o.grad.any()


@pytest.mark.parametrize("term", TERMS)
def test_zero_vectors_have_finite_gradients(term):
    s, o = (torch.zeros_like(x, requires_grad=True) for x in sides(term))
    for other in (torch.zeros_like(s), torch.randn_like(s)):
        loss = term(stop_gradient=False)(s + other, o)
        loss.backward()
        assert loss.isfinite() and o.grad.isfinite().all() and s.grad.isfinite().all()


@pytest.mark.parametrize("term", TERMS)
def test_descent_on_the_real_side_finds_the_partners(term):
    s, o = sides(term, n=8)
    optimiser = torch.optim.Adam([o], lr=0.1)
    for _ in range(150):
        optimiser.zero_grad()
        term()(s, o).backward()
        optimiser.step()
    target = s.mean(1) if term is PairMean else s
    cosines = torch.cosine_similarity(o[:, None], target[None], dim=-1)
    assert torch.equal(cosines.argmax(1), torch.arange(8))
    assert cosines.diagonal().min() > (0.7 if term is InfoNCE else 0.999)  # InfoNCE also keeps away from the others


def test_known_values():
    s, o = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 3.0], [0.0, -1.0]])
    assert PairMSE()(s, o).item() == pytest.approx((10 / 2 + 9 / 2) / 2)
    assert PairCosine()(s, o).item() == pytest.approx((1 + 2) / 2)
    assert PairCosine(log1p=True)(s, o).item() == pytest.approx((math.log(2) + math.log(3)) / 2)
    assert InfoNCE()(s[:1], o[:1]).item() == pytest.approx(0, abs=1e-6)
    same = torch.ones(7, 3)
    assert InfoNCE()(same, same).item() == pytest.approx(math.log(7), rel=1e-5)
    assert InfoNCE(temperature=0.5)(torch.eye(2), torch.eye(2)).item() == pytest.approx(math.log1p(math.exp(-2)), rel=1e-5)


def test_mean_of_draws_has_the_optimum_of_the_mean():
    """The distance to one noisy twin is on average larger by the variance of the twin, to the mean by a draws-th of it."""
    torch.manual_seed(0)
    o, twins = torch.zeros(4000, 2), torch.randn(4000, 8, 2)
    assert PairMSE()(twins[:, 0], o).item() == pytest.approx(1, abs=0.05)
    assert PairMean()(twins, o).item() == pytest.approx(1 / 8, abs=0.01)


def test_what_is_no_pair_is_refused():
    for term, s, o in [
        (PairMSE(), (3, 2), (4, 2)), (PairMSE(), (3, 5, 2), (3, 2)), (PairCosine(), (3, 4), (3, 2)),
        (PairMean(), (3, 2), (3, 2)), (PairMean(), (3, 0, 2), (3, 2)), (InfoNCE(), (1, 2), (4, 2)),
    ]:
        with pytest.raises(SbiDaError, match="are no pairs"):
            term(torch.zeros(s), torch.zeros(o))
    with pytest.raises(SbiDaError, match="temperature"):
        InfoNCE(temperature=0.0)
