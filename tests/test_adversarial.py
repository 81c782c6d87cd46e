"""Gradient reversal, and features that a discriminator cannot tell apart."""

import math

import pytest
import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits

from sbi_da.alignment.adversarial import Adversarial, ConditionalAdversarial, reverse_gradient
from sbi_da.alignment.term import Term
from sbi_da.errors import SbiDaError


@pytest.fixture()
def term() -> Adversarial:
    torch.manual_seed(0)
    return Adversarial(3, (8,))


def test_reversal_is_the_identity_with_minus_strength_times_the_gradient():
    x = torch.randn(4, 2, requires_grad=True)
    y = reverse_gradient(x, 0.3)
    assert torch.equal(y, x)
    (y**2).sum().backward()
    assert torch.allclose(x.grad, -0.3 * 2 * x.detach())


@pytest.mark.parametrize(("progress", "fraction"), [(0, 0.0), (0.1, math.tanh(0.5)), (0.5, math.tanh(2.5)), (3, math.tanh(5))])
def test_strength_follows_a_sigmoid(term, progress, fraction):
    term.progress = progress
    assert term.reversal == pytest.approx(0.4 * fraction)


def test_features_are_reversed_and_the_discriminator_is_not(term):
    x, y = torch.randn(6, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    term.progress = 1.0
    term(x, y).backward()
    seen = [x.grad.clone(), y.grad.clone(), term.discriminator[0].weight.grad.clone()]
    for t in (x, y, term.discriminator[0].weight):
        t.grad = None
    logits = term.discriminator(torch.cat([x, y]))[:, 0]
    row = torch.cat([torch.full((6,), 1 / 12), torch.full((5,), 1 / 10)])
    plain = binary_cross_entropy_with_logits(logits, (torch.arange(11) < 6).float(), weight=row, reduction="sum")
    assert term(x, y).item() == pytest.approx(plain.item(), rel=1e-6)
    plain.backward()
    assert torch.allclose(seen[0], -term.reversal * x.grad, atol=1e-8) and seen[0].abs().max() > 1e-4
    assert torch.allclose(seen[1], -term.reversal * y.grad, atol=1e-8)
    assert torch.allclose(seen[2], term.discriminator[0].weight.grad, atol=1e-8)


def test_integer_weights_are_repeated_rows_and_their_scale_is_of_no_account(term):
    x, y = torch.randn(3, 3), torch.randn(5, 3)
    weight = torch.tensor([1.0, 0.0, 2.0])
    expected = term(x[[0, 2, 2]], y)
    assert torch.allclose(term(x, y, weight=weight), expected)
    assert torch.allclose(term(x, y, weight=7 * weight), expected)
    assert not torch.allclose(term(x, y), expected)


@pytest.mark.parametrize(("n", "m", "weight"), [(0, 4, None), (4, 0, None), (0, 0, None), (2, 3, 0.0)])
def test_nothing_to_compare_is_a_zero_with_zero_gradients(term, n, m, weight):
    x, y = torch.randn(n, 3, requires_grad=True), torch.randn(m, 3, requires_grad=True)
    term.progress = 1.0
    loss = term(x, y, weight=None if weight is None else torch.full((n,), weight))
    loss.backward()
    assert loss.item() == 0
    assert not x.grad.any() and not y.grad.any()
    assert not any(p.grad.any() for p in term.parameters())


def test_extreme_features_stay_finite(term):
    x, y = torch.full((1, 3), 1e6, requires_grad=True), torch.full((1, 3), -1e6, requires_grad=True)
    term.progress = 1.0
    loss = term(x, y)
    loss.backward()
    assert loss.isfinite() and x.grad.isfinite().all() and y.grad.isfinite().all()


def play(term, fixed, moving, steps=400, **conditions):
    """Let an offset of the real rows and the discriminator play against each other; the offset's mean over the second half."""
    offset = nn.Parameter(torch.zeros(fixed.shape[1]))
    optimiser = torch.optim.Adam([{"params": [offset], "lr": 0.05}, {"params": term.parameters(), "lr": 0.01}])
    path = []
    for step in range(steps):
        term.progress = step / steps
        optimiser.zero_grad()
        term(fixed, moving + offset, **conditions).backward()
        optimiser.step()
        path.append(offset.detach().clone())
    return torch.stack(path[steps // 2 :]).mean(0)


def test_two_gaussians_are_brought_together():
    torch.manual_seed(1)
    fixed, moving = torch.randn(400, 2), torch.randn(400, 2) + torch.tensor([2.0, -1.0])
    found = play(Adversarial(2, (16,), strength=1.0), fixed, moving)
    assert torch.allclose(found, torch.tensor([-2.0, 1.0]), atol=0.35)


def test_weights_choose_what_the_real_rows_are_brought_to():
    torch.manual_seed(1)
    left, right = torch.randn(200, 1) - 3, torch.randn(200, 1) + 3
    weight = (torch.arange(400) < 200).float()
    term = Adversarial(1, (16,), strength=1.0)
    assert play(term, torch.cat([left, right]), torch.randn(300, 1), weight=weight).item() == pytest.approx(-3, abs=0.5)


def test_the_conditional_form_is_blind_to_what_the_condition_explains():
    """Features are condition + noise and the populations differ: nothing is to be aligned, given the condition."""
    torch.manual_seed(2)
    theta, other = torch.randn(400, 1), torch.randn(400, 1) + 2
    fixed, moving = theta + 0.3 * torch.randn(400, 1), other + 0.3 * torch.randn(400, 1)
    marginal = play(Adversarial(1, (16,), strength=1.0), fixed, moving).item()
    conditional = play(
        ConditionalAdversarial(1, 1, (16,), strength=1.0), fixed, moving, simulated_condition=theta, real_condition=other
    ).item()
    assert marginal < -1.4
    assert abs(conditional) < 0.5


def test_the_condition_gets_no_gradient():
    term = ConditionalAdversarial(2, 4, (8,))
    term.progress = 1.0
    x, y, a, b = (torch.randn(5, k, requires_grad=True) for k in (2, 2, 4, 4))
    term(x, y, simulated_condition=a, real_condition=b).backward()
    assert a.grad is None and b.grad is None and x.grad.any() and y.grad.any()
    for given in ({}, {"simulated_condition": a}, {"real_condition": b}):
        with pytest.raises(SbiDaError, match="cdan needs"):
            term(x, y, **given)


def test_they_are_terms_with_names_and_refuse_nonsense():
    assert issubclass(Adversarial, Term) and (Adversarial.kind, ConditionalAdversarial.kind) == ("dann", "cdan")
    assert [m.out_features for m in Adversarial(7).discriminator if isinstance(m, nn.Linear)] == [128, 64, 1]
    with pytest.raises(SbiDaError, match="strength"):
        Adversarial(3, strength=-1.0)
    with pytest.raises(SbiDaError, match="widths"):
        Adversarial(3, (8, 0))
