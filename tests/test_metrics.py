"""The 46 metrics against textbook formulae written as loops, their kernels, and the term made of them."""

import itertools
from math import log, sqrt

import numpy as np
import pytest
import torch
from scipy.spatial import distance as scipy_distance
from torch.utils._python_dispatch import TorchDispatchMode

from sbi_da.alignment import metric_mmd
from sbi_da.alignment.metric_mmd import MetricMMD
from sbi_da.alignment.metrics import ALIASES, METRICS, get_metric
from sbi_da.errors import ConfigError, SbiDaError, UnknownNameError

WEIGHT = np.array([0.5, 2.0, 1.5, 0.25, 0.75])


def total(term, *vectors):
    return sum(term(*entries) for entries in zip(*vectors, strict=True))


TEXTBOOK = {
    "minkowski": lambda x, y: total(lambda a, b: abs(a - b) ** 3, x, y) ** (1 / 3),
    "manhattan": lambda x, y: total(lambda a, b: abs(a - b), x, y),
    "euclidean": lambda x, y: sqrt(total(lambda a, b: (a - b) ** 2, x, y)),
    "chebyshev": lambda x, y: max(abs(a - b) for a, b in zip(x, y, strict=True)),
    "weighted_minkowski": lambda x, y, w: total(lambda a, b, c: c * abs(a - b) ** 3, x, y, w) ** (1 / 3),
    "weighted_manhattan": lambda x, y, w: total(lambda a, b, c: c * abs(a - b), x, y, w),
    "weighted_euclidean": lambda x, y, w: sqrt(total(lambda a, b, c: c * (a - b) ** 2, x, y, w)),
    "weighted_chebyshev": lambda x, y, w: max(c * abs(a - b) for a, b, c in zip(x, y, w, strict=True)),
    "sorensen": lambda x, y: total(lambda a, b: abs(a - b), x, y) / total(lambda a, b: a + b, x, y),
    "gower": lambda x, y: total(lambda a, b: abs(a - b), x, y) / len(x),
    "soergel": lambda x, y: total(lambda a, b: abs(a - b), x, y) / total(max, x, y),
    "kulczynski": lambda x, y: total(lambda a, b: abs(a - b), x, y) / total(min, x, y),
    "canberra": lambda x, y: total(lambda a, b: abs(a - b) / (abs(a) + abs(b)), x, y),
    "lorentzian": lambda x, y: total(lambda a, b: log(1 + abs(a - b)), x, y),
    "intersection": lambda x, y: total(min, x, y),
    "wave_hedges": lambda x, y: total(lambda a, b: 1 - min(a, b) / max(a, b), x, y),
    "czekanowski": lambda x, y: 2 * total(min, x, y) / (sum(x) + sum(y)),
    "motyka": lambda x, y: total(min, x, y) / (sum(x) + sum(y)),
    "kulczynski_s": lambda x, y: total(min, x, y) / total(lambda a, b: abs(a - b), x, y),
    "ruzicka": lambda x, y: total(min, x, y) / total(max, x, y),
    "inner_product": lambda x, y: total(lambda a, b: a * b, x, y),
    "harmonic_mean": lambda x, y: 2 * total(lambda a, b: a * b / (a + b), x, y),
    "cosine": lambda x, y: dot(x, y) / sqrt(dot(x, x) * dot(y, y)),
    "kumar_hassebrook": lambda x, y: dot(x, y) / (dot(x, x) + dot(y, y) - dot(x, y)),
    "jaccard": lambda x, y: 1 - dot(x, y) / (dot(x, x) + dot(y, y) - dot(x, y)),
    "dice": lambda x, y: 1 - 2 * dot(x, y) / (dot(x, x) + dot(y, y)),
    "fidelity": lambda x, y: total(lambda a, b: sqrt(a * b), x, y),
    "bhattacharyya": lambda x, y: -log(total(lambda a, b: sqrt(a * b), x, y)),
    "hellinger": lambda x, y: 2 * sqrt(1 - total(lambda a, b: sqrt(a * b), x, y)),
    "squared_chord": lambda x, y: total(lambda a, b: (sqrt(a) - sqrt(b)) ** 2, x, y),
    "pearson": lambda x, y: total(lambda a, b: (a - b) ** 2 / b, x, y),
    "neyman": lambda x, y: total(lambda a, b: (a - b) ** 2 / a, x, y),
    "squared_l2": lambda x, y: total(lambda a, b: (a - b) ** 2, x, y),
    "probabilistic_symmetric": lambda x, y: 2 * total(lambda a, b: (a - b) ** 2 / (a + b), x, y),
    "divergence": lambda x, y: 2 * total(lambda a, b: (a - b) ** 2 / (a + b) ** 2, x, y),
    "clark": lambda x, y: sqrt(total(lambda a, b: (abs(a - b) / (a + b)) ** 2, x, y)),
    "additive_symmetric": lambda x, y: total(lambda a, b: (a - b) ** 2 * (a + b) / (a * b), x, y),
    "kullback_leibler": lambda x, y: total(lambda a, b: a * log(a / b), x, y),
    "jeffreys": lambda x, y: total(lambda a, b: (a - b) * log(a / b), x, y),
    "k_divergence": lambda x, y: total(lambda a, b: a * log(2 * a / (a + b)), x, y),
    "topsoe": lambda x, y: total(lambda a, b: a * log(2 * a / (a + b)) + b * log(2 * b / (a + b)), x, y),
    "jensen_shannon": lambda x, y: sqrt(entropy((x + y) / 2) - (entropy(x) + entropy(y)) / 2),
    "jensen_difference": lambda x, y: entropy((x + y) / 2) - (entropy(x) + entropy(y)) / 2,
    "taneja": lambda x, y: total(lambda a, b: (a + b) / 2 * log((a + b) / (2 * sqrt(a * b))), x, y),
    "kumar_johnson": lambda x, y: total(lambda a, b: (a**2 - b**2) ** 2 / (2 * (a * b) ** 1.5), x, y),
    "average_l1_linf": lambda x, y: (TEXTBOOK["manhattan"](x, y) + TEXTBOOK["chebyshev"](x, y)) / 2,
}

SCIPY = {
    "minkowski": lambda x, y: scipy_distance.minkowski(x, y, 3),
    "weighted_minkowski": lambda x, y: scipy_distance.minkowski(x, y, 3, w=WEIGHT),
    "weighted_euclidean": lambda x, y: scipy_distance.euclidean(x, y, w=WEIGHT),
    "sorensen": scipy_distance.braycurtis,
    "canberra": scipy_distance.canberra,
    "cosine": lambda x, y: 1 - scipy_distance.cosine(x, y),
    "jensen_shannon": scipy_distance.jensenshannon,
}

FAMILIES = {
    "lp": 8,
    "l1": 6,
    "intersection": 6,
    "inner product": 6,
    "squared chord": 4,
    "chi-squared": 7,
    "shannon": 6,
    "combination": 3,
}


def dot(x, y):
    return total(lambda a, b: a * b, x, y)


def entropy(x):
    return -total(lambda a: a * log(a), x)


def textbook(metric, x, y, weight=WEIGHT):
    value = TEXTBOOK[metric.name]
    return value(x, y, weight) if metric.weighted else value(x, y)


def vectors(metric, n, width, rng, concentration=1.0):
    """Rows of the metric's domain."""
    if metric.needs_nonnegative:
        return rng.dirichlet(np.full(width, concentration), n)
    return rng.standard_normal((n, width))


def test_there_are_46_in_eight_families_and_no_two_are_the_same(rng):
    assert len(METRICS) == 46 == len(TEXTBOOK)
    families = [metric.family for metric in METRICS.values()]
    assert {family: families.count(family) for family in families} == FAMILIES
    x, y = rng.gamma(2.0, size=(2, 6, 5))  # for distributions some more coincide
    values = [m(*map(torch.as_tensor, (x, y)), torch.as_tensor(WEIGHT)).numpy() for m in METRICS.values()]
    for a, b in itertools.combinations(values, 2):
        assert np.abs(a - b).max() > 1e-3
    assert all(name == metric.name and metric.formula for name, metric in METRICS.items())


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_metric_is_the_textbook_formula(metric, rng):
    x, y = vectors(metric, 4, 5, rng, 3.0), vectors(metric, 3, 5, rng, 3.0)
    value = metric(torch.as_tensor(x), torch.as_tensor(y), torch.as_tensor(WEIGHT))
    expected = np.array([[textbook(metric, a, b) for b in y] for a in x])
    assert value.shape == (4, 3)
    assert value.numpy() == pytest.approx(expected, rel=2e-6, abs=1e-8)
    if metric.name in SCIPY:
        assert value.numpy() == pytest.approx(np.array([[SCIPY[metric.name](a, b) for b in y] for a in x]), rel=2e-6)
    if metric.weighted:
        plain = METRICS[metric.name.removeprefix("weighted_")]
        assert torch.equal(metric(*map(torch.as_tensor, (x, y))), plain(*map(torch.as_tensor, (x, y))))


def gram_failure(metric, x):
    """How far a kernel is from symmetric, or how negative its least eigenvalue, at the worst of three bandwidths."""
    value = metric(torch.as_tensor(x), torch.as_tensor(x)).numpy()
    scale = np.median(value[np.triu_indices(len(x), 1)])
    kernels = [value] if metric.similarity else [np.exp(-value / (h * scale)) for h in (0.3, 1.0, 10.0)]
    asymmetry = max(np.abs(k - k.T).max() for k in kernels)
    return max(asymmetry, *(-np.linalg.eigvalsh((k + k.T) / 2)[0] / len(x) for k in kernels))


def configurations(metric, rng):
    """Random rows of several widths and kinds, and a grid, on which norms of order above two fail."""
    for width, concentration in ((2, 1.0), (3, 0.3), (3, 3.0), (8, 0.5), (30, 1.0)):
        yield vectors(metric, 60, width, rng, concentration)
    grid = np.array(list(itertools.product((-1.0, 0.0, 1.0), repeat=4)))
    if metric.needs_nonnegative:
        grid = grid[(grid >= 0).all(1) & grid.any(1)]
        grid /= grid.sum(1, keepdims=True)
    yield grid


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_valid_kernels_are_positive_definite_and_only_they(metric, rng):
    worst = max(gram_failure(metric, x) for x in configurations(metric, rng))
    assert worst < 1e-9 if metric.valid_kernel else worst > 1e-5


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
def test_values_and_gradients_are_finite_at_the_edges(metric):
    eye = torch.eye(4)
    rows = torch.cat([eye, eye[:1], torch.zeros(1, 4), torch.full((1, 4), 0.25), torch.full((1, 4), 1e-12)])
    if not metric.needs_nonnegative:
        rows = torch.cat([rows, -rows, 100 * rows])
    x, y = rows.clone().requires_grad_(), rows.clone().requires_grad_()
    value = metric(x, y)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(x.grad).all() and torch.isfinite(y.grad).all()


def test_unknown_metrics_suggest_the_nearest():
    with pytest.raises(SbiDaError, match="unknown metric 'euclidian'.*did you mean 'euclidean'"):
        get_metric("euclidian")
    with pytest.raises(UnknownNameError, match="did you mean 'kumar_hassebrook'"):
        MetricMMD("kumar-hassebrook")
    with pytest.raises(ConfigError, match="bandwidth"):
        MetricMMD(bandwidth=0.0)
    assert [get_metric(alias).name for alias in ALIASES] == ["soergel"]


def loops(metric, s, t, w, bandwidth):
    """The term by its definition, one pair at a time."""

    def view(z):
        if not metric.needs_nonnegative:
            return z / sqrt(len(z))
        raised = np.log1p(np.exp(z)) + 1e-3
        return raised / raised.sum()

    s, t, w, v = [view(z) for z in s], [view(z) for z in t], w / w.sum(), np.full(len(t), 1 / len(t))
    half = [*w / 2, *v / 2]
    mean = sum(a * row for a, row in zip(half, [*s, *t], strict=True))
    spread = np.sqrt(sum(a * (row - mean) ** 2 for a, row in zip(half, [*s, *t], strict=True)))
    weight = 1 / (spread + 0.01 * spread.mean())
    k = {}
    for side, x, y in (("ss", s, s), ("tt", t, t), ("st", s, t)):
        for (i, a), (j, b) in itertools.product(enumerate(x), enumerate(y)):
            if side == "st" or i != j:
                k[side, i, j] = textbook(metric, a, b, weight / weight.mean())
    if not metric.similarity:
        chance = {("ss", i, j): w[i] * w[j] for i in range(len(s)) for j in range(len(s))}
        chance |= {("tt", i, j): v[i] * v[j] for i in range(len(t)) for j in range(len(t))}
        chance |= {("st", i, j): 2 * w[i] * v[j] for i in range(len(s)) for j in range(len(t))}
        order = sorted(k, key=k.get)
        below = np.cumsum([chance[pair] for pair in order])
        scale = bandwidth * k[order[int(np.argmax(below >= below[-1] / 2 - 1e-12))]]
        k = {pair: np.exp(-d / scale) for pair, d in k.items()}
    within_s = sum(w[i] * w[j] * x for (side, i, j), x in k.items() if side == "ss") / (1 - sum(w**2))
    within_t = sum(v[i] * v[j] * x for (side, i, j), x in k.items() if side == "tt") / (1 - sum(v**2))
    return within_s / 2 + within_t / 2 - sum(w[i] * v[j] * x for (side, i, j), x in k.items() if side == "st")


@pytest.mark.parametrize("name", METRICS)
def test_term_is_its_definition(name, rng):
    s, t, w = rng.standard_normal((4, 5)), rng.standard_normal((5, 5)) + 0.5, np.array([1.0, 2.0, 0.5, 3.0])
    value = MetricMMD(name, bandwidth=0.7)(*map(torch.as_tensor, (s, t)), weight=torch.as_tensor(w))
    assert float(value) == pytest.approx(loops(METRICS[name], s, t, w, 0.7), rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("name", METRICS)
def test_term_is_exactly_zero_on_average_over_splits_of_one_sample(name, rng):
    sample = torch.as_tensor(rng.standard_normal((6, 4)))
    term, values = MetricMMD(name), []
    for half in itertools.combinations(range(6), 3):
        rest = [i for i in range(6) if i not in half]
        values.append(float(term(sample[list(half)], sample[rest])))
    # which direction of a pair enters the median distance depends on the split, where the directions differ
    one_sided = name in ("pearson", "neyman", "kullback_leibler", "k_divergence")
    assert np.std(values) > 0
    assert np.mean(values) == pytest.approx(0, abs=(1e-2 if one_sided else 1e-6) * np.std(values))


@pytest.mark.parametrize("name", METRICS)
def test_term_sees_a_shift_and_gradient_steps_reduce_it(name):
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(2, 40, 4, generator=generator)
    shift = torch.tensor([2.0, -2.0, 0.0, 1.0])
    term = MetricMMD(name)
    s, t = (base[0] + shift).requires_grad_(), base[1]
    before = float(term(s.detach(), t))
    if METRICS[name].valid_kernel:
        assert before > 5 * abs(float(term(base[0], t)))
    optimiser = torch.optim.Adam([s], lr=0.1)
    for _ in range(15):
        optimiser.zero_grad()
        term(s, t).backward()
        optimiser.step()
    assert float(term(s.detach(), t)) < 0.7 * before


class Largest(TorchDispatchMode):
    """Notes the size of the largest tensor made."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        made = out if isinstance(out, (tuple, list)) else [out]
        self.entries = max(
            [self.entries, *(o.untyped_storage().nbytes() // o.itemsize for o in made if torch.is_tensor(o))]
        )
        return out


@pytest.mark.parametrize("name", ["euclidean", "weighted_chebyshev", "kumar_johnson", "kullback_leibler", "cosine"])
def test_chunks_change_nothing_but_memory(name, monkeypatch):
    generator = torch.Generator().manual_seed(1)
    s, t = (torch.randn(48, 16, generator=generator, dtype=torch.float64).requires_grad_() for _ in range(2))
    whole = MetricMMD(name)(s, t)
    expected = torch.autograd.grad(whole, (s, t))
    monkeypatch.setattr(metric_mmd, "CHUNK", 3 * 48 * 16)
    stored = []
    with (
        Largest() as largest,
        torch.autograd.graph.saved_tensors_hooks(lambda x: stored.append(x.numel()) or x, lambda x: x),
    ):
        value = MetricMMD(name)(s, t)
        assert sum(stored) < 48 * 48 * 16  # less than one tensor of all pairs and features
        gradients = torch.autograd.grad(value, (s, t))
    assert largest.entries <= 3 * 48 * 48  # the pooled pairs
    assert value.item() == pytest.approx(whole.item(), rel=1e-12)
    for gradient, known in zip(gradients, expected, strict=True):
        assert torch.allclose(gradient, known, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.similarity])
def test_gradients_are_those_of_the_values(name):
    generator = torch.Generator().manual_seed(2)
    s, t = (torch.randn(n, 3, generator=generator, dtype=torch.float64).requires_grad_() for n in (4, 5))
    weight = torch.rand(4, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a, b: MetricMMD(name)(a, b, weight=weight), (s, t))


@pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.family == "lp"])
def test_clouds_that_have_collapsed_count_as_alike(name):
    generator = torch.Generator().manual_seed(3)
    s, t = (torch.randn(20, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    assert MetricMMD(name)(s + 3, t).item() > 0.1
    assert abs(MetricMMD(name)(1e-9 * (s + 3), 1e-9 * t).item()) < 1e-2
