"""The terms that compare distributions: a contract for all, and oracles for each."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from sbi_da.alignment.coral import Coral
from sbi_da.alignment.divergences import typical
from sbi_da.alignment.metric_mmd import MetricMMD
from sbi_da.alignment.mmd import MMD, Energy, LaplacianMMD
from sbi_da.alignment.sinkhorn import Sinkhorn
from sbi_da.alignment.term import Term, squared_distances
from sbi_da.errors import ConfigError

TERMS = {
    "sinkhorn": Sinkhorn(),
    "sinkhorn_reach": Sinkhorn(reach=0.5),
    "energy": Energy(),
    "mmd": MMD(),
    "mmd_one": MMD(scales=(1.0,)),
    "laplacian_mmd": LaplacianMMD(),
    "coral": Coral(),
    "covariances": Coral(means=False),
    "metric": MetricMMD(),
    "metric_simplex": MetricMMD("jensen_shannon"),
    "metric_similarity": MetricMMD("kumar_hassebrook"),
}
UNBIASED = [name for name in TERMS if not name.startswith(("sinkhorn", "co"))]


def normal(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def value(term, simulated, real, weight=None):
    return term(simulated, real, weight=weight).item()


@pytest.fixture(params=TERMS.values(), ids=TERMS)
def term(request) -> Term:
    return request.param


def test_kinds_are_distinct():
    kinds = [t.kind for t in (Sinkhorn, Energy, MMD, LaplacianMMD, Coral, MetricMMD)]
    assert kinds == ["sinkhorn", "energy", "mmd", "laplacian_mmd", "coral", "metric"]
    assert all(t.uses == {"weight"} for t in TERMS.values())


EYE = torch.eye(4)
DEGENERATE = {
    "both_empty": (EYE[:0], EYE[:0], None),
    "simulated_empty": (EYE[:0], EYE, None),
    "real_empty": (EYE, EYE[:0], None),
    "single_each": (EYE[:1], EYE[1:2], None),
    "single_simulated": (EYE[:1], EYE, None),
    "single_real": (EYE, EYE[:1], None),
    "same_single": (EYE[:1], EYE[:1], None),
    "same_rows": (EYE, EYE, None),
    "one_point": (torch.ones(5, 4), torch.ones(6, 4), None),
    "two_points": (torch.ones(5, 4), -torch.ones(6, 4), None),
    "all_zero": (torch.zeros(5, 4), torch.zeros(6, 4), None),
    "orthogonal": (EYE[:2], EYE[2:], None),
    "repeated": (EYE[[0, 0, 1, 1]], EYE[[0, 0, 1, 1]], None),
    "tiny": (1e-12 * EYE, 1e-12 * EYE.flip(0), None),
    "huge": (1e4 * EYE, -1e4 * EYE, None),
    "one_counts": (EYE, EYE, torch.tensor([0.0, 3.0, 0.0, 0.0])),
    "none_counts": (EYE, EYE, torch.zeros(4)),
    "large_weights": (EYE, EYE, torch.full((4,), 1e6)),
}


@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_batches_have_finite_values_and_gradients(term, case):
    simulated, real, weight = DEGENERATE[case]
    x, y = simulated.clone().requires_grad_(), real.clone().requires_grad_()
    result = term(x, y, weight=weight)
    result.backward()
    assert result.shape == () and torch.isfinite(result)
    assert torch.isfinite(x.grad).all() and torch.isfinite(y.grad).all()
    if "empty" in case or case == "none_counts":
        assert result == 0 and not x.grad.any() and not y.grad.any()


def test_weights_have_no_scale_and_zero_drops_a_row(term):
    x, y = normal(7, 3), normal(6, 3, seed=1) + 0.5
    weight = torch.tensor([1.0, 2.0, 0.0, 0.5, 3.0, 0.0, 1.0])
    known = value(term, x, y, weight)
    assert value(term, x, y, 1000 * weight) == pytest.approx(known, rel=1e-6)
    assert value(term, x[weight > 0], y, weight[weight > 0]) == pytest.approx(known, rel=1e-6)
    assert value(term, x, y, torch.ones(7)) == pytest.approx(value(term, x, y), rel=1e-6)
    assert value(term, x, y) != pytest.approx(known, rel=1e-2)


@pytest.mark.parametrize("name", ["sinkhorn", "sinkhorn_reach"])
def test_sinkhorn_of_weighted_rows_is_that_of_repeated_rows(name):
    x, y = normal(4, 3), normal(6, 3, seed=1) + 0.5
    count = torch.tensor([1, 3, 2, 5])
    repeated = value(TERMS[name], x.repeat_interleave(count, 0), y)
    assert value(TERMS[name], x, y, count.double()) == pytest.approx(repeated, rel=1e-9)


def unbiased_loops(kernel, x, y, count):
    """U-statistic over repeated rows, copies of one row not being compared with one another."""
    origin = np.repeat(np.arange(len(x)), count)
    x = x[origin]
    distinct = origin[:, None] != origin
    ss, tt, st = (kernel(cdist(a, b) ** 2 / x.shape[1]) for a, b in ((x, x), (y, y), (x, y)))
    return ss[distinct].mean() + tt[~np.eye(len(y), dtype=bool)].mean() - 2 * st.mean()


def pooled_median(x, y, count):
    """Median of squared distances in the pool; as many repeated rows as real ones, so that sides weigh alike."""
    origin = np.repeat(np.arange(len(x)), count)
    assert len(origin) == len(y)
    rows = np.concatenate([x[origin], y])
    label = np.concatenate([origin, len(x) + np.arange(len(y))])
    distances = (cdist(rows, rows) ** 2 / rows.shape[1])[label[:, None] != label]
    return np.sort(distances)[(len(distances) - 1) // 2]


@pytest.mark.parametrize("count", [[1, 1, 1, 1, 1, 1, 1], [1, 3, 2, 1]])
@pytest.mark.parametrize("name", ["energy", "mmd", "mmd_one", "laplacian_mmd"])
def test_kernel_terms_are_their_loops_over_repeated_rows(name, count):
    x, y = normal(len(count), 3), normal(7, 3, seed=1) + 0.5
    median = pooled_median(x.numpy(), y.numpy(), count)
    scales = (1.0,) if name == "mmd_one" else (0.25, 0.5, 1.0, 2.0, 4.0)
    kernel = {
        "energy": lambda q: -np.sqrt(q),
        "laplacian_mmd": lambda q: np.exp(-np.sqrt(q / median)),
    }.get(name, lambda q: np.mean([np.exp(-q / (s * median)) for s in scales], axis=0))
    expected = unbiased_loops(kernel, x.numpy(), y.numpy(), count)
    assert value(TERMS[name], x, y, torch.tensor(count)) == pytest.approx(expected, rel=1e-4)


def test_typical_is_the_median_of_the_pool():
    x, y = normal(8, 2), normal(8, 2, seed=1)
    w = torch.full((8,), 1 / 8, dtype=torch.float64)
    blocks = squared_distances(x, x), squared_distances(y, y), squared_distances(x, y)
    assert typical(blocks, (w, w)).item() == pytest.approx(pooled_median(x.numpy(), y.numpy(), [1] * 8))
    assert typical(tuple(0 * b for b in blocks), (w, w)) == pytest.approx(1e-6)


def test_coral_is_the_difference_of_weighted_moments():
    x, y, weight = normal(9, 3), 2 * normal(7, 3, seed=1) + 1, torch.rand(9, dtype=torch.float64) + 0.1
    spread = np.cov(x.T, aweights=weight) - np.cov(y.T)
    shift = np.average(x, axis=0, weights=weight) - y.numpy().mean(0)
    assert value(Coral(means=False), x, y, weight) == pytest.approx((spread**2).sum() / 36)
    assert value(Coral(), x, y, weight) == pytest.approx((spread**2).sum() / 36 + (shift**2).sum() / 3)


@pytest.mark.parametrize("name", UNBIASED)
def test_unbiased_terms_vanish_on_average_for_equal_laws(name):
    values = np.array([value(TERMS[name], normal(10, 3, seed=2 * i), normal(10, 3, seed=2 * i + 1)) for i in range(80)])
    error = values.std() / np.sqrt(80)
    assert abs(values.mean()) < 3 * error
    assert values.min() < 0 < values.max()


@pytest.mark.parametrize("name", [name for name in TERMS if name != "covariances"])
def test_weighting_undoes_a_population_shift(name):
    """Rows of N(1, 1) weighted to N(0, 1) look like N(0, 1): nearer by far than without weights."""
    term = TERMS[name]
    x, y = normal(300, 2, seed=3) + 1, normal(300, 2, seed=4)
    weight = torch.exp(1 - x.sum(1))
    assert value(term, x, y, weight) < 0.5 * value(term, x, y)


@pytest.mark.parametrize("name", TERMS)
def test_terms_grow_with_a_shift_or_a_stretch(name):
    x, y, direction = normal(60, 4), normal(60, 4, seed=1), torch.tensor([1.0, -1.0, 0.5, 0.0])
    sizes = (0.0, 0.7, 2.0)
    values = [value(TERMS[name], (1 + s) * x if name == "covariances" else x + s * direction, y) for s in sizes]
    assert values[0] < values[1] < values[2]
    if name in UNBIASED:
        assert abs(values[0]) < 0.3 * values[1]


@pytest.mark.parametrize("side", ["simulated", "real"])
def test_gradient_steps_on_either_side_reduce_the_term(term, side):
    x, y = 1.5 * normal(40, 4) + torch.tensor([2.0, -1.0, 0.0, 0.0]), normal(40, 4, seed=1)
    moved = (x if side == "simulated" else y).requires_grad_()
    optimiser, values = torch.optim.Adam([moved], lr=0.1), []
    for _ in range(25):
        optimiser.zero_grad()
        loss = term(x, y)
        loss.backward()
        values.append(loss.item())
        optimiser.step()
    assert value(term, x, y) < 0.5 * values[0]
    assert (x.grad if side == "real" else y.grad) is None


@pytest.mark.parametrize("name", [name for name in TERMS if name != "metric_simplex"])
def test_width_is_of_no_account(name):
    """Every feature written out three times: the same value."""
    term = TERMS[name]
    x, y = normal(12, 4), normal(12, 4, seed=1) + 0.5
    assert value(term, x.repeat(1, 3), y.repeat(1, 3)) == pytest.approx(value(term, x, y), rel=1e-5)


def test_a_common_offset_does_not_cost_precision():
    x, y = normal(40, 4, dtype=torch.float32), normal(40, 4, seed=1, dtype=torch.float32) + 0.5
    for name in ("sinkhorn", "sinkhorn_reach", "energy", "mmd", "laplacian_mmd", "coral", "metric"):
        assert value(TERMS[name], x + 1000, y + 1000) == pytest.approx(value(TERMS[name], x, y), rel=2e-3)


def test_without_gradient_the_callers_choice_stands(term):
    x, y = normal(5, 3).requires_grad_(), normal(5, 3, seed=1)
    with torch.no_grad():
        result = term(x, y)
        assert not torch.is_grad_enabled() and not result.requires_grad
    assert term(x, y).requires_grad and torch.is_grad_enabled()


@pytest.mark.parametrize("name", ["energy", "coral", "covariances"])
def test_gradients_are_those_of_the_values(name):
    x, y = normal(4, 3).requires_grad_(), normal(5, 3, seed=1).requires_grad_()
    weight = torch.tensor([1.0, 0.5, 2.0, 0.0])
    assert torch.autograd.gradcheck(lambda a, b: TERMS[name](a, b, weight=weight), (x, y))


def sinkhorn_by_hand(a, x, b, y, blur, reach=None):
    """Debiased value from plain fixed-point iterations of the potentials in logarithms, then the primal cost."""
    epsilon, rho = blur**2, None if reach is None else reach**2
    damping = 1.0 if rho is None else rho / (rho + epsilon)

    def penalty(p, q):
        return (p * (p / q).log() - p + q).sum()

    def transport(a, x, b, y):
        c = torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist") ** 2 / 2
        f, g = torch.zeros_like(a), torch.zeros_like(b)
        for _ in range(1500):
            f = -damping * epsilon * torch.logsumexp((g - c) / epsilon + b.log(), 1)
            g = -damping * epsilon * torch.logsumexp((f[:, None] - c) / epsilon + a.log()[:, None], 0)
        plan = a[:, None] * b * torch.exp((f[:, None] + g - c) / epsilon)
        value = (plan * c).sum() + epsilon * penalty(plan, a[:, None] * b)
        return value if rho is None else value + rho * (penalty(plan.sum(1), a) + penalty(plan.sum(0), b))

    return (transport(a, x, b, y) - transport(a, x, a, x) / 2 - transport(b, y, b, y) / 2).item()


@pytest.mark.parametrize("reach", [None, 0.3])
@pytest.mark.parametrize("blur", [0.1, 0.5])
def test_sinkhorn_is_the_divergence_by_hand(blur, reach):
    x, y = normal(15, 3), normal(18, 3, seed=1) + 1
    a, b = torch.rand(15, generator=torch.Generator().manual_seed(2)).double(), torch.full((18,), 1 / 18).double()
    largest = squared_distances(torch.cat([x, y]), torch.cat([x, y])).max().sqrt().item()
    expected = sinkhorn_by_hand(
        a / a.sum(), x / 3**0.5, b, y / 3**0.5, blur * largest, None if reach is None else reach * largest
    )
    assert value(Sinkhorn(blur=blur, reach=reach, scaling=0.97), x, y, a) == pytest.approx(expected, rel=5e-3)
    assert value(Sinkhorn(blur=blur, reach=reach), x, y, a) == pytest.approx(expected, rel=0.05)


def test_sinkhorn_of_a_shift_is_half_its_square_over_the_width():
    x, shift = normal(80, 4, dtype=torch.float32), torch.tensor([0.3, 0.0, -0.4, 0.0])
    order = torch.randperm(80, generator=torch.Generator().manual_seed(0))
    assert value(Sinkhorn(), x, x[order] + shift) == pytest.approx(0.25 / 8, rel=1e-3)
    assert value(Sinkhorn(), x, x[order]) == pytest.approx(0, abs=1e-6)
    assert value(Sinkhorn(), x[:1], x[1:2]) == pytest.approx((x[0] - x[1]).square().sum().item() / 8, rel=1e-5)
    far = normal(400, 2, seed=1) + torch.tensor([6.0, 0.0])
    assert value(Sinkhorn(), normal(400, 2), far) == pytest.approx(9, rel=0.1)


def test_sinkhorn_with_a_wide_blur_compares_means():
    x, y, weight = normal(20, 3), normal(25, 3, seed=1) + 1, torch.rand(20).double()
    shift = (weight / weight.sum()) @ x - y.mean(0)
    assert value(Sinkhorn(blur=50.0), x, y, weight) == pytest.approx(shift.square().sum().item() / 6, rel=1e-2)


def test_sinkhorn_pulls_both_sides_alike():
    x, y = normal(30, 4).requires_grad_(), (normal(40, 4, seed=1) + 0.5).requires_grad_()
    weight = torch.rand(30, generator=torch.Generator().manual_seed(1)).double()
    Sinkhorn(scaling=0.99)(x, y, weight=weight).backward()
    shift = ((weight / weight.sum()) @ x - y.mean(0)).detach()
    assert x.grad.sum(0).numpy() == pytest.approx(shift.numpy() / 4, rel=2e-2, abs=1e-2)
    assert y.grad.sum(0).numpy() == pytest.approx(-shift.numpy() / 4, rel=2e-2, abs=1e-2)


def test_a_finite_reach_leaves_outliers_alone():
    y = normal(50, 2, seed=1)
    x = torch.cat([normal(49, 2), torch.tensor([[30.0, 0.0]])])
    pulls = []
    for reach in (None, 0.1):
        rows = x.clone().requires_grad_()
        Sinkhorn(reach=reach)(rows, y).backward()
        pulls.append(rows.grad[-1].norm().item())
    assert pulls[1] < 0.1 * pulls[0]


def test_blur_decays_geometrically_with_progress():
    term = Sinkhorn(blur=0.02, anneal=25.0)
    blurs = []
    for term.progress in (-1.0, 0.0, 0.5, 1.0, 2.0):
        blurs.append(term.relative_blur())
    assert blurs == pytest.approx([0.5, 0.5, 0.1, 0.02, 0.02])
    x, y = normal(20, 2), normal(20, 2, seed=1)
    assert value(term, x, y) == value(Sinkhorn(blur=0.02), x, y)
    term.progress = 0.0
    assert value(term, x, y) == value(Sinkhorn(blur=0.5), x, y)
    assert Sinkhorn().progress == 1.0 and not Sinkhorn().state_dict()


def test_blur_follows_the_latent_scale_down_to_a_floor():
    x, y = normal(20, 2), normal(20, 2, seed=1) + 0.5
    assert value(Sinkhorn(), 100 * x, 100 * y) == pytest.approx(1e4 * value(Sinkhorn(), x, y), rel=1e-6)
    assert value(Sinkhorn(blur=1e-6), 0.1 * x, 0.1 * y) == value(Sinkhorn(blur=1e-9), 0.1 * x, 0.1 * y)
    assert value(Sinkhorn(), 0.01 * x, 0.01 * y) < 0.9e-4 * value(Sinkhorn(), x, y)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (Sinkhorn, {"blur": 0.0}),
        (Sinkhorn, {"reach": -1.0}),
        (Sinkhorn, {"anneal": 0.0}),
        (Sinkhorn, {"scaling": 1.0}),
        (MMD, {"scales": ()}),
        (MMD, {"scales": (1.0, -2.0)}),
    ],
)
def test_arguments_out_of_range_are_named(kind, arguments):
    with pytest.raises(ConfigError, match=next(iter(arguments))):
        kind(**arguments)
