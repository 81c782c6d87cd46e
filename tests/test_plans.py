"""Transport plans against linear programmes, POT and closed forms."""

import math

import numpy as np
import ot
import pytest
import torch
from scipy.optimize import linear_sum_assignment, linprog

from sbi_da.alignment.plan import entropic_plan, exact_plan, partial_plan
from sbi_da.errors import SbiDaError


def problem(n=40, m=30, width=3, dtype=torch.float64, seed=0):
    """Costs of two clouds, uneven masses."""
    g = torch.Generator().manual_seed(seed)
    x, y = torch.randn(n, width, dtype=dtype, generator=g), 1 + torch.randn(m, width, dtype=dtype, generator=g)
    a, b = (torch.rand(size, dtype=dtype, generator=g) + 0.1 for size in (n, m))
    return torch.cdist(x, y) ** 2, a / a.sum(), b / b.sum()


def cheapest(cost, a, b, mass=None, allowed=None):
    """Least cost of all plans, by a generic linear programme."""
    n, m = cost.shape
    sums = np.concatenate([np.kron(np.eye(n), np.ones(m)), np.kron(np.ones(n), np.eye(m))])
    masses = np.concatenate([a, b])
    bounds = None if allowed is None else [(0, None if free else 0) for free in allowed.ravel()]
    if mass is None:
        result = linprog(cost.ravel(), A_eq=sums, b_eq=masses, bounds=bounds)
    else:
        result = linprog(cost.ravel(), A_ub=sums, b_ub=masses, A_eq=np.ones((1, n * m)), b_eq=[mass], bounds=bounds)
    assert result.success
    return result.fun


def assert_marginals(plan, a, b, tolerance=1e-3):
    assert plan.isfinite().all() and (plan >= 0).all()
    assert (plan.sum(1) - a).abs().sum() < tolerance
    assert (plan.sum(0) - b).abs().sum() < tolerance


# --- plans


@pytest.mark.parametrize("ratio", [0.1, 1.0, 10.0])
def test_two_rows_and_two_columns_have_a_closed_form(ratio):
    half = torch.full((2,), 0.5, dtype=torch.float64)
    cost = torch.tensor([[0.0, ratio], [ratio, 0.0]], dtype=torch.float64)
    plan = entropic_plan(cost, half, half, 1.0, tolerance=1e-12)
    stay = 0.5 / (1 + math.exp(-ratio))
    assert plan.flatten().tolist() == pytest.approx([stay, 0.5 - stay, 0.5 - stay, stay], abs=1e-10)


def test_one_row_with_soft_marginals_has_a_closed_form():
    """With one cell, c + ε log p + (ρ + σ) log p = 0."""
    one, cost = torch.ones(1, dtype=torch.float64), torch.tensor([[0.7]], dtype=torch.float64)
    plan = entropic_plan(cost, one, one, 0.3, tolerance=1e-12, iterations=5000, rho_a=0.5, rho_b=2.0)
    assert plan.item() == pytest.approx(math.exp(-0.7 / (0.3 + 0.5 + 2.0)), rel=1e-8)


def test_balanced_plan_is_that_of_pot():
    cost, a, b = problem()
    plan = entropic_plan(cost, a, b, 0.3, iterations=5000, tolerance=1e-11)
    known = ot.sinkhorn(a.numpy(), b.numpy(), cost.numpy(), 0.3, method="sinkhorn_log", stopThr=1e-12)
    assert plan.numpy() == pytest.approx(known, abs=1e-9)


@pytest.mark.parametrize(("rho_a", "rho_b"), [(0.7, 0.7), (0.5, 3.0), (None, 0.8), (0.8, None)])
def test_unbalanced_plan_is_that_of_pot(rho_a, rho_b):
    cost, a, b = problem()
    plan = entropic_plan(cost, a, b, 0.3, iterations=5000, tolerance=1e-12, rho_a=rho_a, rho_b=rho_b)
    strength = tuple(math.inf if rho is None else rho for rho in (rho_a, rho_b))
    known = ot.unbalanced.sinkhorn_unbalanced(
        a.numpy(), b.numpy(), cost.numpy(), 0.3, strength, stopThr=1e-14, numItermax=10_000
    )
    assert plan.numpy() == pytest.approx(known, abs=1e-10)
    if rho_a is None:
        assert plan.sum(1).numpy() == pytest.approx(a.numpy(), abs=1e-12)
    if rho_b is None:
        assert plan.sum(0).numpy() == pytest.approx(b.numpy(), abs=1e-12)


def test_a_hard_marginal_holds_before_convergence():
    cost, a, b = problem()
    assert (entropic_plan(cost, a, b, 0.01, 1, rho_b=1.0).sum(1) - a).abs().max() < 1e-12
    assert (entropic_plan(cost, a, b, 0.01, 1, rho_a=1.0).sum(0) - b).abs().max() < 1e-12


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0, 1e3, 1e6])
@pytest.mark.parametrize("iterations", [1, 200])
def test_all_the_mass_is_carried_at_any_cost_scale(dtype, scale, iterations):
    cost, a, b = problem(dtype=dtype)
    a = torch.where(torch.arange(len(a)) < 5, 0.0, a)
    a = a / a.sum()
    plan = entropic_plan(scale * cost, a, b, 0.05, iterations)
    assert plan.dtype == dtype
    assert_marginals(plan, a, b, 1e-5)
    assert plan.sum().item() == pytest.approx(1, abs=1e-5)
    if iterations > 1:
        sharp = scale >= 1
        least = (exact_plan(cost, a, b) * cost).sum()
        assert (plan * cost).sum() < (1.3 if sharp else 1.001) * (least if sharp else a @ cost @ b)


@pytest.mark.parametrize("rho", [None, 0.5])
def test_a_cloud_and_itself_need_few_iterations(rho):
    torch.manual_seed(0)
    x = torch.randn(60, 3, dtype=torch.float64)
    cost, a = torch.cdist(x, x) ** 2, torch.full((60,), 1 / 60, dtype=torch.float64)
    few, many = (entropic_plan(cost, a, a, 0.02, n, 1e-9, rho_a=rho, rho_b=rho) for n in (25, 20_000))
    assert (few - many).abs().sum() < 1e-4


@pytest.mark.parametrize("rho", [None, 0.5])
def test_far_rows_are_left_to_the_logarithm(rho):
    cost, a, b = problem()
    cost[0], cost[:, 1] = 1e4 + cost[0], 1e4 + cost[:, 1]
    exact = entropic_plan(cost, a, b, 0.5, 5000, 1e-10, rho_a=rho, rho_b=rho)
    single = entropic_plan(cost.float(), a.float(), b.float(), 0.5, 5000, 1e-5, rho_a=rho, rho_b=rho)
    assert single.isfinite().all() and (single - exact).abs().sum() < 0.01 * exact.sum()
    if rho:
        assert exact[0].sum() < 1e-12 and exact.sum() > 0.1


def test_a_constant_added_to_the_cost_changes_no_balanced_plan():
    cost, a, b = problem(dtype=torch.float32)
    cost = (64 * cost).round() / 64  # single precision holds it with the constant
    plain, moved = (entropic_plan(cost + c, a, b, 0.3, tolerance=1e-5) for c in (0.0, -1e5))
    assert moved.numpy() == pytest.approx(plain.numpy(), abs=1e-6)


def test_half_precision_costs_are_solved_in_single():
    cost, a, b = problem(dtype=torch.float32)
    plan = entropic_plan(cost.half(), a.half(), b.half(), 0.3)
    assert plan.dtype == torch.float32
    assert plan.numpy() == pytest.approx(entropic_plan(cost, a, b, 0.3).numpy(), abs=1e-3)


@pytest.mark.parametrize("more", [(1, 2), (2, 1)])
def test_mass_of_unequal_sums_is_the_lesser(more):
    cost, a, b = problem()
    for plan in (entropic_plan(cost, more[0] * a, more[1] * b, 0.3), exact_plan(cost, more[0] * a, more[1] * b)):
        assert plan.sum().item() == pytest.approx(1)
        assert_marginals(plan, a, b)


def test_mask_is_respected_and_a_masked_row_stays_out():
    cost, a, b = problem(6, 6)
    a = b = torch.full((6,), 1 / 6, dtype=torch.float64)
    blocks = torch.block_diag(torch.ones(2, 2), torch.ones(4, 4)).bool()
    for plan in (entropic_plan(cost, a, b, 0.2, mask=blocks), exact_plan(cost, a, b, blocks)):
        assert plan[~blocks].abs().max() == 0
        assert_marginals(plan, a, b)
    least = cheapest(cost.numpy(), a.numpy(), b.numpy(), allowed=blocks.numpy())
    assert (exact_plan(cost, a, b, blocks) * cost).sum().item() == pytest.approx(least)
    for rho in (None, 1.0):
        closed = blocks.clone()
        closed[3] = False
        plan = entropic_plan(0.1 * cost, a, b, 0.2, mask=closed, rho_a=rho, rho_b=rho)
        assert plan.isfinite().all() and plan[3].sum() == 0 and plan[~closed].abs().max() == 0
        assert plan[0].sum() > 0.01
    assert entropic_plan(cost, a, b, 0.2, mask=closed).sum().item() == pytest.approx(5 / 6)
    assert entropic_plan(cost, a, b, 0.2, mask=torch.zeros(6, 6).bool()).sum() == 0
    assert exact_plan(cost, a, b, torch.zeros(6, 6).bool()).sum() == 0


def test_closed_cells_may_cost_anything():
    cost, a, b = problem(4, 4)
    mask = ~torch.eye(4).bool()
    plan = entropic_plan(cost.masked_fill(~mask, torch.inf), a, b, 0.3, mask=mask)
    assert plan.numpy() == pytest.approx(entropic_plan(cost, a, b, 0.3, mask=mask).numpy())


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_exact_plan_of_equal_masses_is_the_best_permutation(scale):
    cost = scale * problem(20, 20)[0]
    even = torch.full((20,), 0.05, dtype=torch.float64)
    plan = exact_plan(cost, even, even)
    assert torch.equal(plan.argmax(1), torch.from_numpy(linear_sum_assignment(cost.numpy())[1]))
    assert plan.max(1).values.numpy() == pytest.approx(0.05)


def test_exact_plan_solves_the_linear_programme():
    cost, a, b = problem(7, 5)
    plan = exact_plan(cost, a, b)
    assert_marginals(plan, a, b)
    assert (plan * cost).sum().item() == pytest.approx(cheapest(cost.numpy(), a.numpy(), b.numpy()))


def test_sharp_entropic_plan_is_the_exact_one():
    cost, a, b = problem(12, 12)
    even = torch.full((12,), 1 / 12, dtype=torch.float64)
    plan = entropic_plan(cost, even, even, 1e-3, iterations=20_000)
    assert plan.numpy() == pytest.approx(exact_plan(cost, even, even).numpy(), abs=1e-3)


@pytest.mark.parametrize("mass", [0.2, 0.7, 1.0])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_partial_plan_solves_the_linear_programme(mass, scale):
    cost, a, b = problem(7, 5)
    plan = partial_plan(scale * cost, a, b, mass)
    assert plan.sum().item() == pytest.approx(mass)
    assert (plan.sum(1) <= a + 1e-9).all() and (plan.sum(0) <= b + 1e-9).all()
    assert (plan * cost).sum().item() == pytest.approx(cheapest(cost.numpy(), a.numpy(), b.numpy(), mass))


def test_partial_plan_of_free_moves_moves_its_mass():
    even = torch.full((4,), 0.25)
    assert partial_plan(torch.zeros(4, 4), even, even, 0.4).sum().item() == pytest.approx(0.4)


def test_plans_of_what_cannot_be_are_refused():
    cost, a, b = problem(4, 3)
    with pytest.raises(SbiDaError, match="row per mass"):
        entropic_plan(cost, b, a, 1.0)
    with pytest.raises(SbiDaError, match="positive epsilon"):
        entropic_plan(cost, a, b, 0.0)
    with pytest.raises(SbiDaError, match="fraction of the mass"):
        partial_plan(cost, a, b, 1.5)
    for solve in (lambda c: entropic_plan(c, a, b, 1.0), lambda c: exact_plan(c, a, b)):
        with pytest.raises(SbiDaError, match="not finite"):
            solve(cost * torch.nan)


# --- terms
