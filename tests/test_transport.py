"""Terms made of transport plans, against POT and closed forms."""


import numpy as np
import ot
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from sbi_da.alignment.keypoints import KeypointTransport
from sbi_da.alignment.plan import entropic_plan
from sbi_da.alignment.term import squared_distances
from sbi_da.alignment.transport import OptimalTransport, SoftMatching
from sbi_da.errors import SbiDaError

TERMS = {
    "entropic": OptimalTransport(),
    "undebiased": OptimalTransport(debias=False),
    "unbalanced": OptimalTransport("unbalanced"),
    "partial": OptimalTransport("partial"),
    "exact": OptimalTransport("exact"),
    "joint": OptimalTransport(joint=0.5),
    "soft_matching": SoftMatching(),
    "published": SoftMatching(published=True),
    "keypoints": KeypointTransport(),
    "keypoints_exact": KeypointTransport(plan="exact"),
}


def clouds(n=48, width=4, shift=0.8, scale=1.0, seed=0):
    g = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(n, width, generator=g), torch.randn(n, width, generator=g)


def descend(term, x, y, steps=25, **extra):
    """Gradient descent of the term on the simulated rows, each moved in units of its own share."""
    x = x.clone().requires_grad_()
    for _ in range(steps):
        (slope,) = torch.autograd.grad(term(x, y, **extra), x)
        x = (x - 0.35 * x.numel() * slope).detach().requires_grad_()
    return x.detach()


def value(cost, epsilon, rho=None):
    """Value of the entropic problem, whose gradient that of a term must be."""
    n, m = cost.shape
    a, b = torch.full((n,), 1 / n, dtype=cost.dtype), torch.full((m,), 1 / m, dtype=cost.dtype)
    plan = entropic_plan(cost, a, b, epsilon, 20_000, 1e-13, rho, rho)

    def divergence(p, q):
        return (torch.special.xlogy(p, p / q) - p + q).sum()

    soft = 0.0 if rho is None else rho * (divergence(plan.sum(1), a) + divergence(plan.sum(0), b))
    return (plan * cost).sum() + epsilon * divergence(plan, a[:, None] * b) + soft


@pytest.mark.parametrize("plan", ["entropic", "unbalanced"])
def test_gradient_is_that_of_the_sinkhorn_divergence(plan):
    x, y = (z.double() for z in clouds(8, 2))
    term = OptimalTransport(plan, epsilon=0.2, rho=0.5, iterations=20_000)
    scale = squared_distances(x, y).mean().item()
    rho = 0.5 * scale if plan == "unbalanced" else None

    def divergence(z):
        cross, *selves = (value(squared_distances(p, q), 0.2 * scale, rho) for p, q in ((z, y), (z, z), (y, y)))
        return cross - 0.5 * sum(selves)

    x.requires_grad_()
    (slope,) = torch.autograd.grad(term(x, y), x)
    with torch.no_grad():
        for row, column in ((0, 0), (3, 1)):
            step = torch.zeros_like(x)
            step[row, column] = 1e-5
            numeric = (divergence(x + step) - divergence(x - step)) / 2e-5
            # the term stops at its own tolerance of the marginals
            assert slope[row, column].item() == pytest.approx(numeric.item(), rel=0.02, abs=1e-3)


def test_debiased_term_is_made_of_pots_plans():
    x, y = clouds(20, 3)
    cost, n = squared_distances(x, y).numpy(), np.full(20, 0.05)
    costs = [cost, squared_distances(x, x).numpy(), squared_distances(y, y).numpy()]
    parts = [(ot.sinkhorn(n, n, c, 0.1 * cost.mean(), method="sinkhorn_log") * c).sum() for c in costs]
    term = OptimalTransport(epsilon=0.1, iterations=2000)
    assert term(x, y).item() == pytest.approx(parts[0] - (parts[1] + parts[2]) / 2, rel=5e-3)
    assert OptimalTransport(epsilon=0.1, debias=False)(x, y).item() == pytest.approx(parts[0], rel=5e-3)


def test_exact_term_is_the_mean_distance_of_the_best_permutation():
    x, y = clouds(30)
    rows, columns = linear_sum_assignment(squared_distances(x, y).numpy())
    assert OptimalTransport("exact")(x, y).item() == pytest.approx(
        (x[rows] - y[columns]).square().mean().item(), rel=1e-4
    )


def test_partial_term_leaves_out_the_far_rows():
    x, y = clouds(20, shift=0.0)
    far = x.clone()
    far[:2] += 1000.0
    assert OptimalTransport("partial", mass=0.9)(far, y) < 5 < OptimalTransport("exact")(far, y)


def test_unbalanced_term_pulls_far_rows_less():
    x, y = clouds(20, shift=0.0)
    x[0] += 30.0
    pull = {}
    for plan in ("entropic", "unbalanced"):
        z = x.clone().requires_grad_()
        OptimalTransport(plan, rho=0.2)(z, y).backward()
        pull[plan] = z.grad[0].norm()
    assert pull["unbalanced"] < 0.2 * pull["entropic"]


@pytest.mark.parametrize("name", ["entropic", "unbalanced", "partial", "exact", "keypoints"])
def test_term_is_zero_on_equal_clouds(name):
    x, y = clouds()
    rows = torch.arange(10)[:, None].expand(-1, 2)
    term = TERMS[name]
    assert abs(term(y, y, matches=rows).item()) < 2e-4 < 0.05 < term(x, y, matches=rows).item()


@pytest.mark.parametrize("plan", ["entropic", "unbalanced", "exact"])
def test_descent_moves_a_cloud_and_keeps_its_spread(plan):
    x, y = clouds(scale=0.8)
    moved = descend(OptimalTransport(plan, iterations=60), x, y)
    assert (moved.mean(0) - y.mean(0)).abs().max() < 0.12
    assert (moved.std(0) / y.std(0)).mean().item() == pytest.approx(1, abs=0.05)


def test_undebiased_descent_shrinks_a_cloud():
    """What the self-terms are for, and that the tests above can fail."""
    x, y = clouds(scale=0.8)
    assert (descend(OptimalTransport(epsilon=0.2, debias=False), x, y).std(0) / y.std(0)).mean() < 0.8


def test_joint_cost_steers_the_plan_and_receives_its_gradient():
    x, y = clouds(10, shift=0.0)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(3))
    cost = torch.full((10, 10), 100.0)
    cost[torch.arange(10), order] = -7.0
    cost.requires_grad_()
    loss = OptimalTransport("exact", joint=0.5)(x, y, cost=cost)
    assert loss.item() == pytest.approx((x - y[order]).square().mean().item() - 3.5, rel=1e-4)
    loss.backward()
    assert cost.grad.argmax(1).equal(order) and cost.grad.sum().item() == pytest.approx(0.5)
    plain = OptimalTransport()
    assert plain(x, y, cost=cost.detach()) == plain(x, y)
    assert plain.uses == {"weight"} and OptimalTransport(joint=0.5).uses == {"weight", "cost"}


@pytest.mark.parametrize("plan", ["entropic", "unbalanced"])
def test_the_zero_of_a_joint_cost_means_nothing(plan):
    x, y = clouds(10)
    x.requires_grad_()
    cost = torch.linspace(0, 3, 100).view(10, 10)
    term = OptimalTransport(plan, joint=1.0)
    slopes = [torch.autograd.grad(term(x, y, cost=cost + c), x)[0] for c in (0.0, -20.0)]
    assert slopes[0].numpy() == pytest.approx(slopes[1].numpy(), abs=1e-4) and slopes[0].abs().max() > 0.01


@pytest.mark.parametrize("plan", ["entropic", "unbalanced"])
@pytest.mark.parametrize("epsilon", [0.05, 0.2])
def test_joint_descent_neither_shrinks_nor_swells_a_cloud(plan, epsilon):
    x, y = clouds(scale=0.9)
    cost = ((x - 0.8)[:, None, :2] / 0.9 - y[:, :2]).square().sum(-1) / (2 * 0.3**2)
    debiased, plain = (
        descend(OptimalTransport(plan, epsilon, 5.0, joint=1.0, debias=debias, iterations=40), x, y, 40, cost=cost)
        for debias in (True, False)
    )
    assert (debiased.std(0) / y.std(0)).mean().item() == pytest.approx(1, abs=0.06)
    assert (plain.std(0) / y.std(0)).mean() < 0.8


@pytest.mark.parametrize("name", [name for name in TERMS if name != "joint"])
def test_weights_count_as_repetitions_and_their_scale_does_not(name):
    x, y = clouds(12)
    x, y = x.double(), y.double()
    times = torch.tensor([0, 1, 2, 3] * 3)
    term = TERMS[name]
    weighted = term(x, y, weight=times.double())
    assert term(x, y, weight=17.0 * times).item() == pytest.approx(weighted.item(), rel=1e-4)
    if isinstance(term, SoftMatching):  # its worst k rows would be a smaller share of the repeated ones
        term = SoftMatching(worst=0.0, published=term.published)
        weighted = term(x, y, weight=times.double())
    assert term(x.repeat_interleave(times, 0), y).item() == pytest.approx(weighted.item(), rel=2e-3)


@pytest.mark.parametrize("name", list(TERMS))
@pytest.mark.parametrize("case", ["identical", "coinciding", "orthogonal", "one_row", "one_each", "huge", "weightless"])
def test_degenerate_batches_have_finite_gradients(name, case):
    x, y = clouds(6, 4)
    if case == "identical":
        x = y.clone()
    elif case == "coinciding":
        x, y = torch.ones(6, 4), torch.ones(5, 4)
    elif case == "orthogonal":
        x, y = torch.eye(4)[:2], torch.eye(4)[2:]
    elif case in ("one_row", "one_each"):
        x, y = x[:1], y[: 1 if case == "one_each" else 6]
    elif case == "huge":
        x = 1e6 * x
    x, y = x.clone().requires_grad_(), y.clone().requires_grad_()
    weight = torch.zeros(len(x)) if case == "weightless" else None
    loss = TERMS[name](
        x, y, weight=weight, matches=torch.tensor([[0, 0]]), cost=torch.linspace(-1, 1, len(x) * len(y)).view(len(x), -1)
    )
    loss.backward()
    assert loss.ndim == 0 and loss.isfinite()
    assert x.grad.isfinite().all() and y.grad.isfinite().all()
    if case == "weightless":
        assert loss == 0 and (x.grad == 0).all() and (y.grad == 0).all()


@pytest.mark.parametrize("name", list(TERMS))
@pytest.mark.parametrize("sizes", [(0, 5), (5, 0), (0, 0)])
def test_empty_batches_have_zero_gradients(name, sizes):
    x, y = (torch.ones(size, 3, requires_grad=True) for size in sizes)
    loss = TERMS[name](x, y, weight=torch.ones(sizes[0]), matches=torch.zeros(0, 2).long(), cost=torch.zeros(sizes))
    loss.backward()
    assert loss == 0 and (x.grad == 0).all() and (y.grad == 0).all()


def test_terms_refuse_what_they_cannot_use():
    for wrong in ({"epsilon": 0.0}, {"rho": -1.0}, {"mass": 0.0}, {"joint": -1.0}, {"plan": "sharp"}):
        with pytest.raises(SbiDaError):
            OptimalTransport(**wrong)
    with pytest.raises(SbiDaError, match="k at least 1"):
        SoftMatching(k=0)
    with pytest.raises(SbiDaError, match="not finite"):
        OptimalTransport()(torch.full((3, 2), torch.nan), torch.zeros(3, 2))


@pytest.mark.parametrize("published", [True, False])
def test_soft_matching_is_the_published_sum(published):
    x, y = (z.double() / 3 for z in clouds(16, 4))
    cost = ((x[:, None] - y) ** 2).sum(-1).numpy() / (1 if published else 4)
    n = np.full(16, 1 / 16)
    epsilon = 0.05 if published else 0.05 * cost.mean()
    plan = ot.sinkhorn(n, n, cost, epsilon, method="sinkhorn_log", numItermax=5000)
    parts = [
        (plan * cost).sum(), ((x.numpy() - 16 * plan @ y.numpy()) ** 2).mean(), np.sort(cost.min(1))[-5:].mean(),
    ]
    for weights in np.eye(3):
        term = SoftMatching(*weights, published=published, iterations=5000)
        assert term(x, y).item() == pytest.approx(0.5 * weights @ parts, rel=5e-3)
    whole = SoftMatching(published=published, iterations=5000)(x, y).item()
    assert whole == pytest.approx(0.5 * np.dot([0.25, 0.5, 0.05], parts), rel=5e-3)


def test_worst_rows_of_soft_matching_count_by_weight():
    """Real row at the origin; distances 9, 4, 1, 0 with a quarter, a half, a quarter, nothing of the weight."""
    x, y = torch.tensor([[1.0], [0.0], [3.0], [2.0]]), torch.zeros(1, 1)
    weight = torch.tensor([1.0, 0.0, 1.0, 2.0])
    for k, expected in ((1, 9.0), (2, (9 + 4) / 2), (3, (9 + 2 * 4) / 3), (4, (9 + 2 * 4 + 1) / 4), (9, 18 / 4)):
        assert SoftMatching(0, 0, 1, 1, k=k)(x, y, weight=weight).item() == pytest.approx(expected, rel=1e-5)
