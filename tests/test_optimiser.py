import torch
from torch import nn

from sbi_da.optimiser import MuonAdamW


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 32), nn.SiLU(), nn.LayerNorm(32), nn.Linear(32, 2))


def steps(module, optimiser, count):
    torch.manual_seed(1)
    for _ in range(count):
        x = torch.randn(64, 32)
        optimiser.zero_grad()
        loss = ((module(x) - x[:, :2]) ** 2).mean()
        loss.backward()
        optimiser.step()
    return float(loss.detach())


def test_hidden_matrices_go_to_muon_and_all_parameters_to_one_of_both():
    module = network()
    optimiser = MuonAdamW(module, lr=0.01)
    muon, adamw = ([p for g in part.param_groups for p in g["params"]] for part in optimiser.parts)
    assert len(muon) == 1 and muon[0] is module[0].weight
    assert {id(p) for p in muon + adamw} == {id(p) for p in module.parameters()}


def test_it_learns_and_a_schedule_reaches_both_parts():
    module = network()
    optimiser = MuonAdamW(module, lr=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 0.0 if step else 1.0)
    before = steps(module, optimiser, 1)
    assert steps(module, optimiser, 100) < 0.1 * before
    schedule.step()
    frozen = [p.clone() for p in module.parameters()]
    steps(module, optimiser, 3)
    assert all(torch.equal(a, b) for a, b in zip(frozen, module.parameters(), strict=True))


def test_a_saved_state_goes_on_where_it_stopped():
    whole, cut = network(), network()
    first, second = MuonAdamW(whole, lr=0.01), MuonAdamW(cut, lr=0.01)
    steps(whole, first, 5)
    steps(cut, second, 5)
    third = MuonAdamW(cut, lr=0.5)
    third.load_state_dict(second.state_dict())
    steps(whole, first, 5)
    steps(cut, third, 5)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), cut.parameters(), strict=True))
