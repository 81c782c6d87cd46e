"""Mixtures over a bank of simulations, and recalibration: against closed forms."""

import math

import pytest
import torch

from sbi_da.alignment.mixture import BankMixture, couple
from sbi_da.errors import SbiDaError
from sbi_da.posteriors.recalibration import RecalibratedHead, Recalibration, fit_recalibration, gain_of_recalibration
from sbi_da.posteriors.spline import SplineHead


class Normal:
    """N(context, 0.5^2)."""

    def log_prob(self, z, context):
        return (-0.5 * ((z - context) / 0.5) ** 2 - math.log(0.5) - 0.5 * math.log(2 * math.pi)).sum(-1)

    def transform(self, noise, context):
        return context + 0.5 * noise

    def noise(self, z, context):
        return (z - context) / 0.5, torch.full(z.shape[:-1], -z.shape[-1] * math.log(0.5))


def test_each_alone_is_a_softmax():
    real, bank = torch.randn(5, 3), torch.randn(7, 3)
    cost = ((real[:, None] - bank) ** 2).mean(-1)
    expected = torch.softmax(-cost / (0.5 * cost.mean()), 1)
    assert torch.allclose(couple(real, bank, 0.5, 0.0), expected, atol=1e-5)
    assert torch.allclose(couple(real, bank, 0.5, 1e-4), expected, atol=1e-2)


def test_a_batch_held_to_the_bank_uses_all_of_it():
    torch.manual_seed(0)
    weights = couple(torch.randn(60, 2) + 3.0, torch.randn(40, 2), 0.1, 1.0)
    assert torch.allclose(weights.sum(1), torch.ones(60), atol=1e-5)
    assert torch.allclose(weights.mean(0), torch.full((40,), 1 / 40), atol=1e-3)


def test_the_mixture_is_a_mixture():
    bank = torch.tensor([[0.0], [2.0]])
    weights = torch.tensor([[0.25, 0.75]])
    mixture = BankMixture(Normal(), bank, weights)
    z = torch.tensor([[1.2]])
    density = sum(w * math.exp(-0.5 * ((1.2 - m) / 0.5) ** 2) / (0.5 * math.sqrt(2 * math.pi)) for w, m in ((0.25, 0), (0.75, 2)))
    assert float(mixture.log_prob(z)) == pytest.approx(math.log(density), abs=1e-5)
    drawn = mixture.sample(20_000, 1)
    assert float(drawn.mean()) == pytest.approx(1.5, abs=0.03)
    assert float(drawn.std()) == pytest.approx(math.sqrt(0.25 + 4 * 0.25 * 0.75), abs=0.03)


@pytest.mark.parametrize("arguments", [(0.5, 1.5), (0.0, 1.0)])
def test_senseless_strengths_are_refused(arguments):
    with pytest.raises(SbiDaError, match="couple"):
        couple(torch.zeros(2, 2), torch.zeros(2, 2), *arguments)


def test_recalibration_finds_shift_and_inflation():
    torch.manual_seed(0)
    context = torch.randn(4000, 2)
    z = context + torch.tensor([0.5, 0.0]) + torch.randn(4000, 2) @ torch.diag(torch.tensor([1.0, 0.5]))
    found = fit_recalibration(Normal().noise(z, context)[0])
    fixed = RecalibratedHead(Normal(), found)
    assert found.inflation == pytest.approx(math.sqrt(2.0), rel=0.05)
    left = (z - context - torch.tensor([0.5, 0.0])) / torch.tensor([1.0, 0.5])
    exact = -0.5 * left.square().sum(1) - math.log(0.5) - math.log(2 * math.pi)
    assert float((fixed.log_prob(z, context) - exact).abs().mean()) < 0.05
    noise = torch.randn(4000, 2)
    moved = fixed.transform(noise, context) - context
    assert moved.mean(0) == pytest.approx(torch.tensor([0.5, 0.0]), abs=0.06)
    assert moved.std(0) == pytest.approx(torch.tensor([1.0, 0.5]), rel=0.06)


def test_few_objects_hardly_move_a_good_posterior():
    torch.manual_seed(1)
    assert 0.8 < fit_recalibration(0.5 * torch.randn(5, 2)).inflation < 1.2
    with pytest.raises(SbiDaError, match="needs 2"):
        fit_recalibration(torch.zeros(1, 2))


def test_cross_validation_tells_a_gain_from_none():
    torch.manual_seed(3)
    noise = torch.randn(400, 2)
    assert abs(gain_of_recalibration(noise).mean()) < 0.03
    # Posteriors three times too narrow: KL(N(0, 9) || N(0, 1)) in each of two dimensions.
    assert gain_of_recalibration(3 * noise).mean() == pytest.approx(2 * (4.0 - math.log(3)), rel=0.1)
    assert gain_of_recalibration(noise[:12]).mean() < 0.1


def test_a_recalibrated_head_comes_back_and_inverts():
    torch.manual_seed(2)
    head = SplineHead(2, 3, 2, 4, (8,))
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    context, noise = torch.randn(50, 3), torch.randn(50, 2)
    z = head.transform(noise, context)
    assert torch.allclose(head.noise(z, context)[0], noise, atol=1e-3)
    found = fit_recalibration(1.5 * noise + 0.3)
    fixed, again = RecalibratedHead(head, found), RecalibratedHead(head, Recalibration.from_dict(found.to_dict()))
    assert torch.allclose(fixed.log_prob(z, context), again.log_prob(z, context), atol=1e-5)
