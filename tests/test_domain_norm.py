"""Batch normalisation per domain, against the ordinary one."""

import copy

import pytest
import torch
from torch import nn

from sbi_da.encoders.domain_norm import DomainBatchNorm1d, DomainBatchNorm2d, convert, domains
from sbi_da.encoders.freezing import freeze
from sbi_da.encoders.registry import image_encoder
from sbi_da.errors import SbiDaError

REAL = torch.tensor([False, True, False, True, True, False, False])


def rows(seed=0):
    """Seven rows, the real ones brighter and wider."""
    torch.manual_seed(seed)
    x = torch.randn(7, 4, 3, 3)
    x[REAL] = 3 * x[REAL] + 5
    return x


def run(norm, x, real):
    with domains(norm, real):
        return norm(x)


def test_each_domain_is_normalised_as_if_it_were_alone():
    norm, simulated, real = DomainBatchNorm2d(4), nn.BatchNorm2d(4), nn.BatchNorm2d(4)
    for module in (norm, simulated, real):
        with torch.no_grad():
            module.weight.copy_(torch.arange(1.0, 5).expand_as(module.weight))
            module.bias.copy_(torch.arange(4.0).expand_as(module.bias))
    for seed in range(3):
        out = run(norm, rows(seed), REAL)
        assert torch.allclose(out[~REAL], simulated(rows(seed)[~REAL]), atol=1e-6)
        assert torch.allclose(out[REAL], real(rows(seed)[REAL]), atol=1e-6)
    assert torch.equal(norm.running_mean, torch.stack([simulated.running_mean, real.running_mean]))
    assert torch.equal(norm.running_var, torch.stack([simulated.running_var, real.running_var]))
    for module in (norm, simulated, real):
        module.eval()
    out = run(norm, rows(9), REAL)
    assert torch.allclose(out[~REAL], simulated(rows(9)[~REAL]), atol=1e-6)
    assert torch.allclose(out[REAL], real(rows(9)[REAL]), atol=1e-6)


def test_real_rows_do_not_move_what_simulated_ones_left():
    with_real, without = DomainBatchNorm2d(4), DomainBatchNorm2d(4)
    for seed in range(3):
        run(with_real, rows(seed), REAL)
        run(without, rows(seed)[~REAL], torch.zeros(4, dtype=torch.bool))
    assert torch.equal(with_real.running_mean[0], without.running_mean[0]) and torch.equal(with_real.running_var[0], without.running_var[0])
    assert with_real.batches.tolist() == [3, 3] and without.batches.tolist() == [3, 0]
    assert torch.equal(without.running_mean[1], torch.zeros(4))


def test_until_real_rows_are_seen_they_are_normalised_as_simulated_ones():
    norm = DomainBatchNorm2d(4)
    run(norm, rows()[~REAL], torch.zeros(4, dtype=torch.bool))
    norm.eval()
    x = rows()
    assert torch.equal(run(norm, x, torch.ones(7, dtype=torch.bool)), run(norm, x, torch.zeros(7, dtype=torch.bool)))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("kind", ["compact", "cnn", "deepmerge"])
def test_a_converted_encoder_equals_the_plain_one_on_simulated_rows(kind, training):
    torch.manual_seed(0)
    plain = image_encoder(kind, 3, 32, {"widths": [8, 16]} if kind == "cnn" else {})
    for seed in range(2):
        plain(torch.randn(6, 3, 32, 32) + seed)
    converted = convert(copy.deepcopy(plain))
    assert not any(isinstance(part, nn.BatchNorm2d) for part in converted.modules())
    x = torch.randn(5, 3, 32, 32)
    plain.train(training), converted.train(training)
    with domains(converted, torch.zeros(5, dtype=torch.bool)):
        assert torch.allclose(plain(x), converted(x), atol=1e-5)
        assert torch.allclose(plain.eval()(x), converted.eval()(x), atol=1e-5)


def test_a_shared_gain_learns_from_both_and_a_separate_one_from_its_own():
    for separate in (False, True):
        norm = DomainBatchNorm2d(4, separate=separate)
        out = run(norm, rows(), torch.ones(7, dtype=torch.bool))
        (out * torch.randn_like(out)).sum().backward()
        assert norm.weight.shape == (1 + separate, 4)
        assert norm.weight.grad.any(1).tolist() == ([False, True] if separate else [True])


def test_domains_without_rows_or_with_one_are_no_trouble():
    norm = DomainBatchNorm1d(4)
    x = torch.randn(5, 4, requires_grad=True)
    one = torch.tensor([True, False, False, False, False])
    out = run(norm, x, one)
    assert torch.isfinite(out).all() and norm.batches.tolist() == [1, 0]
    assert torch.allclose(out[1:], nn.BatchNorm1d(4)(x[1:]), atol=1e-6)
    assert run(norm, x[:0], one[:0]).shape == (0, 4)
    out.sum().backward()
    assert x.grad.shape == (5, 4)


def test_rows_must_be_told_apart_and_only_for_as_long_as_that_is_said():
    norm = DomainBatchNorm2d(4)
    with pytest.raises(SbiDaError, match="which rows are real"):
        norm(rows())
    with domains(norm, REAL):
        with domains(norm, ~REAL):
            assert torch.equal(norm.real, ~REAL)
        assert torch.equal(norm.real, REAL)
        with pytest.raises(SbiDaError, match="told of 7 rows and the network was given 3"):
            norm(rows()[:3])
    with pytest.raises(RuntimeError), domains(norm, REAL):
        raise RuntimeError
    assert norm.real is None
    with pytest.raises(SbiDaError, match="boolean vector"), domains(norm, REAL.float()):
        pass
    with pytest.raises(SbiDaError, match="dimensions"):
        run(norm, rows()[:, :, 0], REAL)


def test_what_was_frozen_stays_frozen_and_the_state_is_all_there_is():
    torch.manual_seed(0)
    network = convert(nn.Sequential(freeze(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)))
    before = {k: v.clone() for k, v in network.state_dict().items()}
    network.train()
    x = torch.randn(7, 3, 9, 9) + 2
    run(network, x, REAL)
    after = network.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"2.running_mean", "2.running_var", "2.batches"}
    assert not network[0][1].weight.requires_grad and network[2].weight.requires_grad
    again = convert(nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)))
    again.load_state_dict(after)
    assert torch.equal(run(again.eval(), x, REAL), run(network.eval(), x, REAL))


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(4, affine=False), nn.BatchNorm2d(4, track_running_stats=False), nn.InstanceNorm2d(4), nn.Tanh()]
)
def test_what_cannot_be_converted_is_named(norm):
    with pytest.raises(SbiDaError, match=r"0 is \w+Norm2d.*only BatchNorm|holds no batch normalisation"):
        convert(nn.Sequential(norm))
