"""Keypoint-guided plans against their formulae, linear programmes, and clusters that plain transport gets wrong."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from scipy.spatial.distance import jensenshannon

from sbi_da.alignment.keypoints import (
    KeypointTransport,
    guiding_cost,
    keypoint_gromov_plan,
    keypoint_mask,
    keypoint_masses,
    keypoint_plan,
    relations,
)
from sbi_da.alignment.plan import exact_plan
from sbi_da.alignment.term import squared_distances
from sbi_da.alignment.transport import OptimalTransport
from sbi_da.errors import SbiDaError

SIZE = 15
CENTRES = torch.tensor([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]], dtype=torch.float64)
LABEL = torch.arange(4).repeat_interleave(SIZE)
MATCHES = torch.tensor([[3, 8], [SIZE + 1, SIZE + 4], [2 * SIZE + 6, 2 * SIZE + 13], [3 * SIZE + 2, 3 * SIZE]])


def clusters(seed=0, space=2):
    """A square of four clusters and its quarter-turned image, in another space if asked: the nearest cluster is wrong."""
    g = torch.Generator().manual_seed(seed)
    turned = CENTRES.roll(-1, 0) + torch.tensor([0.5, 0.3])
    x, y = (c[LABEL] + 0.3 * torch.randn(4 * SIZE, 2, dtype=torch.float64, generator=g) for c in (CENTRES, turned))
    if space > 2:
        basis = torch.linalg.qr(torch.randn(space, 2, dtype=torch.float64, generator=g))[0]
        y = 3.0 * y @ basis.T + 7.0
    return x, y


def within(x, y):
    return squared_distances(x, x), squared_distances(y, y)


def correct(plan):
    """Share of the mass that goes to the right cluster."""
    return (plan * (LABEL[:, None] == LABEL)).sum().item() / plan.sum().item()


def assert_marginals(plan, a, b):
    assert plan.isfinite().all() and (plan >= 0).all()
    assert (plan.sum(1) - a).abs().max() < 1e-9 and (plan.sum(0) - b).abs().max() < 1e-9


# --- parts


def test_mask_sends_keypoints_to_partners_and_free_rows_to_free_rows():
    mask = keypoint_mask(3, 4, torch.tensor([[0, 2], [2, 1]]))
    assert mask.int().tolist() == [[0, 0, 1, 0], [1, 0, 0, 1], [0, 1, 0, 0]]
    assert keypoint_mask(2, 2, torch.zeros(0, 2).long()).all()


@pytest.mark.parametrize(
    ("matches", "match"),
    [([[0, 0], [0, 1]], "twice"), ([[0, 1], [2, 1]], "twice"), ([[0, 4]], "real row"), ([[-1, 0]], "simulated row"),
     ([[0.0, 1.0]], "integer"), ([0, 1], "integer")],
)
def test_mask_refuses_pairs_that_are_none(matches, match):
    with pytest.raises(SbiDaError, match=match):
        keypoint_mask(3, 4, torch.tensor(matches))


def test_relations_are_the_softmax_of_distances_over_the_largest():
    x = torch.tensor([[0.0], [1.0], [3.0]], dtype=torch.float64)
    score = relations(squared_distances(x, x), torch.tensor([0, 2]), tau=0.5)
    for row, (near, far) in zip(score, ((0, 9), (1, 4), (9, 0)), strict=True):
        weights = np.exp(-2 * np.array([near, far]) / 9 / 0.5)
        assert row.numpy() == pytest.approx(weights / weights.sum())
    assert relations(1e6 * squared_distances(x, x), torch.tensor([0, 2]), 0.5).numpy() == pytest.approx(score.numpy())
    assert relations(torch.zeros(2, 2), torch.tensor([0])).tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize("sizes", [(5, 7, 3), (40, 300, 400)])
def test_guiding_cost_is_the_jensen_shannon_divergence(sizes):
    n, m, k = sizes
    g = torch.Generator().manual_seed(0)
    p, q = (torch.softmax(8 * torch.randn(size, k, dtype=torch.float64, generator=g), 1) for size in (n, m))
    cost = guiding_cost(p, q)
    assert cost.shape == (n, m)
    for i, j in ((0, 0), (n - 1, m - 1), (n // 2, 1)):
        assert cost[i, j].item() == pytest.approx(jensenshannon(p[i], q[j]) ** 2)
    assert guiding_cost(torch.eye(2), torch.eye(2)).flatten().tolist() == pytest.approx([0, np.log(2), np.log(2), 0])
    assert guiding_cost(torch.zeros(3, 0), torch.zeros(2, 0)).tolist() == [[0, 0]] * 3


def test_masses_agree_within_pairs_and_sum_to_one():
    a, b = torch.tensor([0.1, 0.4, 0.2, 0.3]), torch.full((3,), 1 / 3)
    p, q = keypoint_masses(a, b, torch.tensor([[1, 0]]))
    assert p[1].item() == q[0].item() == pytest.approx((0.4 / 3) ** 0.5)
    assert p.sum().item() == q.sum().item() == pytest.approx(1)
    assert (p / a)[[0, 2, 3]].std() < 1e-6
    even = torch.full((4,), 0.25)
    assert all(mass.allclose(even) for mass in keypoint_masses(even, even, torch.tensor([[1, 0], [0, 3]])))
    p, q = keypoint_masses(torch.full((2,), 0.5), b, torch.tensor([[0, 2], [1, 0]]))
    assert p.tolist() == pytest.approx([0.5, 0.5]) and q.tolist() == pytest.approx([0.5, 0, 0.5])


# --- plans


@pytest.mark.parametrize("plan", ["exact", "entropic"])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_plan_matches_keypoints_and_keeps_the_marginals(plan, alpha):
    x, y = clusters()
    y = y[:50]
    result = keypoint_plan(squared_distances(x, y), *within(x, y), MATCHES[:3], alpha=alpha, plan=plan)
    p, q = keypoint_masses(torch.full((60,), 1 / 60).double(), torch.full((50,), 1 / 50).double(), MATCHES[:3])
    assert_marginals(result, p, q)
    assert (result[~keypoint_mask(60, 50, MATCHES[:3])] == 0).all()
    for i, j in MATCHES[:3].tolist():
        assert result[i, j].item() == pytest.approx(p[i].item())


def test_exact_plan_solves_the_masked_linear_programme():
    g = torch.Generator().manual_seed(1)
    x, y = (torch.randn(6, 2, dtype=torch.float64, generator=g) for _ in range(2))
    matches, cost = torch.tensor([[0, 3], [4, 1]]), squared_distances(x, y)
    pairs = zip(within(x, y), matches.T, strict=True)
    guide = guiding_cost(*(relations(c, i, 0.2) for c, i in pairs))
    mixed = (0.3 * cost / cost.max() + 0.7 * guide).numpy()
    sums = np.concatenate([np.kron(np.eye(6), np.ones(6)), np.kron(np.ones(6), np.eye(6))])
    bounds = [(0, None if free else 0) for free in keypoint_mask(6, 6, matches).flatten()]
    least = linprog(mixed.ravel(), A_eq=sums, b_eq=np.full(12, 1 / 6), bounds=bounds).fun
    plan = keypoint_plan(cost, *within(x, y), matches, alpha=0.3, tau=0.2)
    assert (plan.numpy() * mixed).sum() == pytest.approx(least)
    assert (plan[~keypoint_mask(6, 6, matches)] == 0).all()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_keypoints_rescue_clusters_that_plain_transport_gets_wrong(seed):
    x, y = clusters(seed)
    cost, even = squared_distances(x, y), torch.full((60,), 1 / 60)
    assert correct(exact_plan(cost, even, even)) < 0.1
    for plan in ("exact", "entropic"):
        for alpha in (0.0, 0.5):
            assert correct(keypoint_plan(cost, *within(x, y), MATCHES, alpha=alpha, plan=plan, epsilon=0.02)) > 0.9


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_keypoints_match_across_spaces(seed):
    x, y = clusters(seed, space=5)
    assert correct(keypoint_plan(None, *within(x, y), MATCHES)) > 0.9
    for plan in ("exact", "entropic"):
        assert correct(keypoint_gromov_plan(*within(x, y), MATCHES, plan=plan, epsilon=0.02)) > 0.9
    # A square looks the same from every corner: without keypoints the same method cannot know.
    assert correct(keypoint_gromov_plan(*within(x, y), MATCHES[:0], alpha=1.0)) < 0.9


def test_a_cluster_without_keypoint_needs_the_mixed_cost():
    """Two far clusters with keypoints, two between them without: only distances across tell those two apart."""
    g = torch.Generator().manual_seed(0)
    centres = torch.tensor([[-5.0, 0.0], [5.0, 0.0], [0.0, 3.0], [0.0, -3.0]], dtype=torch.float64)
    x, y = (centres[LABEL] + 0.3 * torch.randn(60, 2, dtype=torch.float64, generator=g) for _ in range(2))
    pure, mixed = (
        correct(keypoint_plan(squared_distances(x, y), *within(x, y), MATCHES[:2], alpha=alpha)) for alpha in (0.0, 0.5)
    )
    assert pure < 0.85 < 0.99 < mixed


def tangled(size=8, convex=True):
    """Distances on both sides; as likenesses on one they make the objective convex, and the best plans split rows."""
    g = torch.Generator().manual_seed(2)
    x, y = within(*torch.randn(2, size, 2, dtype=torch.float64, generator=g))
    inside, matches = [x / x.max(), 1 - y / y.max() if convex else y / y.max()], torch.tensor([[0, 3], [4, 1]])
    return inside, matches, guiding_cost(*(relations(c, i) for c, i in zip(inside, matches.T, strict=True)))


def objective(plan, x, y, guide, alpha):
    """The Gromov-Wasserstein objective and its slope, by the sum that defines them."""
    gap = (x[:, None, :, None] - y[None, :, None, :]) ** 2
    distortion = torch.einsum("ijkl,kl->ij", gap, plan)
    value = alpha * (distortion * plan).sum() + (1 - alpha) * (plan * guide).sum()
    return value.item(), 2 * alpha * distortion + (1 - alpha) * guide


@pytest.mark.parametrize("alpha", [0.3, 0.8, 1.0])
def test_gromov_plan_is_where_no_step_goes_down(alpha):
    inside, matches, guide = tangled()
    start = keypoint_plan(None, *inside, matches)
    plan = keypoint_gromov_plan(*inside, matches, alpha=alpha, iterations=1000, tolerance=1e-10)
    value, slope = objective(plan, *inside, guide, alpha)
    assert value < objective(start, *inside, guide, alpha)[0] - 1e-3
    even = torch.full((8,), 1 / 8, dtype=torch.float64)
    assert_marginals(plan, even, even)
    best = exact_plan(slope, even, even, keypoint_mask(8, 8, matches))
    assert ((plan - best) * slope).sum() < 1e-3 * (plan * slope).sum()


@pytest.mark.parametrize("convex", [True, False])
@pytest.mark.parametrize("alpha", [0.3, 0.8, 1.0])
def test_gromov_step_is_the_best_on_its_line(alpha, convex):
    inside, matches, guide = tangled(convex=convex)
    before = keypoint_plan(None, *inside, matches)
    lengths = []
    for steps in (1, 2, 3):
        after = keypoint_gromov_plan(*inside, matches, alpha=alpha, iterations=steps, tolerance=0.0)
        _, slope = objective(before, *inside, guide, alpha)
        even = torch.full((8,), 1 / 8, dtype=torch.float64)
        step = exact_plan(slope, even, even, keypoint_mask(8, 8, matches)) - before
        values = [objective(before + t * step, *inside, guide, alpha)[0] for t in np.linspace(0, 1, 201)]
        assert objective(after, *inside, guide, alpha)[0] == pytest.approx(min(values), abs=1e-6)
        lengths.append(np.argmin(values) / 200)
        before = after
    assert any(0.02 < length < 0.98 for length in lengths) if convex else lengths[0] == (alpha > 0.3)


def test_gromov_plan_finds_an_isometry_from_one_keypoint():
    x = torch.randn(9, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    order = torch.randperm(9, generator=torch.Generator().manual_seed(1))
    y = x[order] @ torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    matches = torch.stack([order[:3], torch.arange(3)], dim=1)
    plan = keypoint_gromov_plan(*within(x, y), matches)
    assert plan.argmax(0).equal(order)
    assert plan.max(0).values.numpy() == pytest.approx(1 / 9)


def test_guide_alone_needs_no_gromov_step():
    x, y = clusters(space=3)
    plan = keypoint_gromov_plan(*within(x, y), MATCHES, alpha=0.0)
    assert torch.equal(plan, keypoint_plan(None, *within(x, y), MATCHES))


# --- the term


def cloud(n=32, width=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    return 0.5 + torch.randn(n, width, generator=g), torch.randn(n, width, generator=g)


@pytest.mark.parametrize("plan", ["entropic", "exact"])
@pytest.mark.parametrize("matches", [None, torch.zeros(0, 2).long()])
def test_without_pairs_the_term_is_plain_transport(plan, matches):
    x, y = cloud()
    weight = torch.linspace(0, 1, 32)
    guided, plain = KeypointTransport(plan=plan), OptimalTransport(plan)
    expected = plain(x, y, weight=weight).item()
    assert guided(x, y, weight=weight, matches=matches).item() == pytest.approx(expected, rel=1e-3)
    assert guided(x, y, weight=weight, matches=torch.tensor([[1, 1]])).item() != pytest.approx(expected, rel=1e-3)


def test_exact_term_costs_what_its_plan_costs():
    x, y = clusters()
    plan, cost = keypoint_plan(squared_distances(x, y), *within(x, y), MATCHES, alpha=0.3), squared_distances(x, y)
    assert KeypointTransport(0.3, plan="exact")(x, y, matches=MATCHES).item() == pytest.approx((plan * cost).sum().item())
    soft = [
        (keypoint_plan(cost, *within(x, y), MATCHES, plan="entropic") * cost).sum().item(),
        KeypointTransport(debias=False, iterations=1000)(x, y, matches=MATCHES).item(),
    ]
    assert soft[0] == pytest.approx(soft[1])


@pytest.mark.parametrize("plan", ["entropic", "exact"])
def test_pairs_that_cannot_serve_are_free_rows(plan):
    x, y = cloud(8)
    term = KeypointTransport(plan=plan)
    one = term(x, y, matches=torch.tensor([[1, 2]]))
    assert term(x, y, matches=torch.tensor([[1, 2], [1, 5], [3, 2]])) == one
    four = torch.tensor([[1, 2], [0, 1], [2, 4], [3, 3]])
    more = torch.cat([four, torch.tensor([[4, 0], [5, 5]])])
    assert term(x, y, matches=more) == term(x, y, matches=four)
    assert term(x[:1], y, matches=torch.tensor([[0, 1]])) == term(x[:1], y)
    with pytest.raises(SbiDaError, match="real row"):
        term(x, y, matches=torch.tensor([[1, 8]]))


@pytest.mark.parametrize("plan", ["entropic", "exact"])
def test_a_row_without_weight_is_as_if_absent(plan):
    x, y = cloud(12)
    weight = torch.ones(12)
    weight[[0, 5]] = 0
    x[5] = 1e3
    kept = weight > 0
    term = KeypointTransport(plan=plan)
    here = term(x, y, weight=weight, matches=torch.tensor([[5, 0], [7, 3], [1, 1]]))
    absent = term(x[kept], y, weight=weight[kept], matches=torch.tensor([[5, 3], [0, 1]]))
    assert here.item() == pytest.approx(absent.item(), rel=1e-5)


def test_term_finds_a_turn_that_marginals_hide():
    """A square of clusters turned by a quarter looks like itself: plain transport leaves every cluster wrong."""
    x, y = (z.float() for z in clusters())
    y = y - y.mean(0)
    error = {}
    for name, term in (("plain", OptimalTransport()), ("guided", KeypointTransport())):
        z = (x - x.mean(0)).clone().requires_grad_()
        for _ in range(25):
            (slope,) = torch.autograd.grad(term(z, y, matches=MATCHES), z)
            z = (z - 0.3 * z.numel() * slope).detach().requires_grad_()
        centres = torch.stack([(z[LABEL == k].mean(0) - y[LABEL == k].mean(0)).norm() for k in range(4)])
        error[name] = centres.max().item()
    assert error["guided"] < 0.1 and error["plain"] > 3
    spread = torch.stack([z.detach()[LABEL == k].std(0) / y[LABEL == k].std(0) for k in range(4)])
    assert spread.numpy() == pytest.approx(1, abs=0.25)


def test_term_refuses_what_it_cannot_use():
    for wrong in ({"alpha": 1.5}, {"tau": 0.0}, {"epsilon": 0.0}, {"plan": "partial"}):
        with pytest.raises(SbiDaError):
            KeypointTransport(**wrong)
