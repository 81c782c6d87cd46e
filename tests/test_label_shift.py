"""Class fractions against known ones, brute force and Bayes' theorem."""

import numpy as np
import pytest
from scipy.stats import norm

from sbi_da.alignment.label_shift import bbse, correct, label_shift_em, label_weights
from sbi_da.errors import SbiDaError

SOURCE, TARGET = np.array([0.22, 0.06, 0.71]) / 0.99, np.array([0.14, 0.08, 0.78])
CENTRES = np.array([-1.5, 0.0, 1.5])


def posterior(x, prior):
    """Exact class probabilities: classes are unit normals at the centres."""
    joint = prior * norm.pdf(x[:, None], CENTRES)
    return joint / joint.sum(1, keepdims=True)


def draw(n, prior, seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, n, p=prior)
    return CENTRES[labels] + rng.standard_normal(n), labels


def simplex(step):
    grid = np.arange(0, 1 + step / 2, step)
    a, b = (x.ravel() for x in np.meshgrid(grid, grid))
    inside = a + b <= 1 + 1e-9
    return np.stack([a, b, np.maximum(1 - a - b, 0)], axis=1)[inside]


def test_em_recovers_the_fractions_of_galaxies_and_their_errors():
    estimates = []
    for seed in range(12):
        x, _ = draw(3000, TARGET, seed)
        estimates.append(label_shift_em(posterior(x, SOURCE), SOURCE, replicates=40, seed=seed))
    fractions = np.array([e.fractions for e in estimates])
    sd = np.mean([e.sd for e in estimates], axis=0)
    assert np.abs(fractions.mean(0) - TARGET).max() < 3 * sd.max() / 12**0.5
    assert fractions.std(0, ddof=1) == pytest.approx(sd, rel=0.6)
    covered = np.mean([(e.low <= TARGET) & (TARGET <= e.high) for e in estimates])
    assert covered > 0.8 and all(e.trusted for e in estimates)
    naive = np.mean([posterior(draw(3000, TARGET, seed)[0], SOURCE).mean(0) for seed in range(12)], axis=0)
    assert (np.abs(naive - TARGET) > 3 * sd / 12**0.5)[:2].all()


@pytest.mark.parametrize("seed", range(3))
def test_em_is_the_maximum_of_the_likelihood(seed):
    x, _ = draw(40, TARGET, seed)
    p = posterior(x, SOURCE)
    found = label_shift_em(p, SOURCE, replicates=2).fractions
    grid = simplex(0.005)
    likelihood = np.log(grid @ (p / SOURCE).T + 1e-300).sum(1)
    assert np.log(found @ (p / SOURCE).T).sum() > likelihood.max() - 1e-4
    assert found == pytest.approx(grid[likelihood.argmax()], abs=0.01)


def test_certain_classes_are_counted_with_the_binomial_error():
    p = np.eye(3)[np.repeat([0, 1, 2], [1400, 800, 7800])]
    for repeat, replicates in ((1, 400), (4, 100)):  # the second beyond the size of a resample
        result = label_shift_em(np.repeat(p, repeat, axis=0), SOURCE, replicates)
        assert result.fractions == pytest.approx([0.14, 0.08, 0.78])
        assert result.sd == pytest.approx(np.sqrt(result.fractions * (1 - result.fractions) / len(p) / repeat), rel=0.25)
        assert result.low == pytest.approx(result.fractions - 1.96 * result.sd, abs=0.003)


def test_bbse_inverts_the_confusion_matrix_where_that_gives_fractions():
    x, labels = draw(3000, SOURCE, 0)
    y, _ = draw(4000, TARGET, 1)
    even = np.full(3, 1 / 3)
    p, q = posterior(x, even), posterior(y, even)
    rate = np.array([[np.mean(p[labels == j].argmax(1) == i) for j in range(3)] for i in range(3)])
    expected = np.linalg.solve(rate, np.bincount(q.argmax(1), minlength=3) / 4000)
    assert expected.min() > 0
    result = bbse(p, labels, q)
    assert result.fractions == pytest.approx(expected, abs=1e-6)
    assert (np.abs(result.fractions - TARGET) < 3.5 * result.sd).all() and (result.sd < 0.1).all() and result.trusted
    assert ((result.low <= TARGET) & (TARGET <= result.high)).all()


def test_bbse_is_exact_for_a_poor_classifier_too():
    labels, target = np.repeat([0, 1], 1000), np.repeat([0, 1], [505, 495])
    said = np.concatenate([np.repeat([0, 1], [520, 480]), np.repeat([0, 1], [480, 520])])
    result = bbse(np.eye(2)[said], labels, np.eye(2)[target], replicates=20)
    assert result.fractions == pytest.approx([0.625, 0.375], abs=1e-7)
    assert not result.trusted


def test_bbse_stays_on_the_simplex_at_the_maximum_of_the_likelihood():
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1, 2], 50)
    p = np.eye(3)[np.where(rng.random(150) < 0.6, labels, rng.integers(3, size=150))]
    q = np.eye(3)[np.repeat([0, 1, 2], [2, 3, 95])]
    rate = np.stack([p[labels == j].mean(0) for j in range(3)], axis=1)
    assert np.linalg.solve(rate, q.mean(0)).min() < 0
    grid = simplex(0.005)
    best = grid[(q.mean(0) * np.log(grid @ rate.T)).sum(1).argmax()]
    result = bbse(p, labels, q, replicates=20)
    assert result.fractions == pytest.approx(best, abs=0.006)
    assert (result.low >= 0).all() and (result.high <= 1).all()


def test_bbse_needs_no_calibration_and_em_does():
    even = np.full(3, 1 / 3)
    x, labels = draw(6000, SOURCE, 4)
    y, _ = draw(6000, TARGET, 5)
    cold = [c**4 / (c**4).sum(1, keepdims=True) for c in (posterior(x, even), posterior(y, even))]
    result = bbse(cold[0], labels, cold[1])
    assert (np.abs(result.fractions - TARGET) < 3.5 * result.sd).all()
    assert np.abs(label_shift_em(cold[1], even, replicates=2).fractions - TARGET).max() > 0.05


def test_a_class_nobody_predicted_is_no_division_by_zero():
    p, labels = np.eye(3)[[0, 1, 0, 1, 0, 1]], np.array([0, 1, 2, 0, 1, 2])
    result = bbse(p, labels, np.eye(3)[[2, 2]], replicates=5)
    assert np.isfinite(result.fractions).all() and result.fractions.sum() == pytest.approx(1)


def test_correction_is_bayes_theorem():
    x, _ = draw(200, TARGET, 0)
    p = posterior(x, SOURCE)
    assert correct(p, SOURCE, TARGET) == pytest.approx(posterior(x, TARGET))
    assert correct(correct(p, SOURCE, TARGET), TARGET, SOURCE) == pytest.approx(p)
    assert correct(p, SOURCE, [0.5, 0.5, 0.0]) == pytest.approx(posterior(x, np.array([0.5, 0.5, 0.0])))
    assert correct([[0, 0, 1.0]], SOURCE, [0.5, 0.5, 0.0]).tolist() == [[0.5, 0.5, 0.0]]


def test_weights_give_the_source_the_target_fractions():
    labels = np.repeat([0, 1, 2], [22, 6, 72])
    weights = label_weights(labels, np.bincount(labels), TARGET)
    assert np.bincount(labels, weights) / weights.sum() == pytest.approx(TARGET)
    assert weights.mean() == pytest.approx(1)
    assert label_weights(np.array([0, 1]), np.array([0.01, 0.99]), np.array([0.5, 0.5])).max() == 20


def test_what_cannot_be_told_apart_is_not_trusted():
    rng = np.random.default_rng(0)
    assert not label_shift_em(np.tile(SOURCE, (500, 1)), SOURCE, replicates=5).trusted
    merged = posterior(draw(500, TARGET, 0)[0], SOURCE)
    merged[:, :2] = merged[:, :2].sum(1, keepdims=True) * SOURCE[:2] / SOURCE[:2].sum()
    assert not label_shift_em(merged, SOURCE, replicates=5).trusted
    labels = rng.integers(3, size=300)
    constant = np.tile([0.1, 0.2, 0.7], (300, 1))
    assert not bbse(constant, labels, constant, replicates=5).trusted
    certain = np.eye(3)[rng.choice(3, 100, p=TARGET)]
    assert label_shift_em(certain, SOURCE, replicates=5).trusted
    assert not label_shift_em(certain[:4], SOURCE, replicates=5).trusted


def test_nonsense_is_refused():
    good = np.full((4, 3), 1 / 3)
    for call, message in [
        (lambda: label_shift_em(good + 0.1, SOURCE), "sum to one"),
        (lambda: label_shift_em(good[:0], SOURCE), "not empty"),
        (lambda: label_shift_em(good, [0.5, 0.5]), "source_prior must be 3"),
        (lambda: label_shift_em(good, [0.5, 0.0, 0.5]), "class 1 has fraction zero"),
        (lambda: correct(good, SOURCE, [1.0, -1.0, 1.0]), "target_prior"),
        (lambda: bbse(good, [0, 1, 1, 0], good), "no labelled source object of class 2"),
        (lambda: bbse(good, [0, 1, 2, 3], good), "classes 0 to 2"),
        (lambda: bbse(good, [0, 1, 2], good), "classes 0 to 2"),
    ]:
        with pytest.raises(SbiDaError, match=message):
            call()
