"""The Gaussian that is linear in the measurements: exact before any training where all is linear and Gaussian."""

import numpy as np
import pytest
import torch

from sbi_da.config import load_config
from sbi_da.estimator import Estimator
from sbi_da.learning import FIRST_EPOCH
from sbi_da.posteriors.gaussian import JointGaussian
from sbi_da.runs import build
from sbi_da.simulation import simulate
from sbi_da.sources import SimulatorSource

SMALL = "network.matching={width: 16, layers: 1, heads: 2, steps: 4, gaussian: linear, questions: channels}"


@pytest.fixture(scope="module")
def fitted():
    simulator, surveys, estimator = build(load_config("toy", ["network.head=flow_matching", SMALL]))
    sample = SimulatorSource(simulator, surveys, estimator.prior, seed=3).examples(40_000, FIRST_EPOCH)
    estimator.fit(sample.observed, sample.z)
    return simulator, estimator.eval(), simulate(simulator, surveys, 60, 5)


def shown(records, simulator, names):
    return records.with_measurements({
        n: records.survey(n).where(np.full((len(records), 2), n in names)) for n in simulator.matrices
    })


def test_it_is_the_exact_posterior_of_a_linear_gaussian_task_under_every_pattern(fitted):
    simulator, estimator, records = fitted
    names = list(simulator.prior.names)
    truth = {n: records.parameters[n] for n in names}
    for pattern in simulator.patterns():
        posterior = estimator(shown(records, simulator, pattern))
        found = posterior.log_prob(truth).values
        first, *rest = names
        conditional = posterior.given(**{first: truth[first]}).log_prob({n: truth[n] for n in rest}).values
        alone = posterior.marginal([first]).log_prob({first: truth[first]}).values
        for row in range(len(records)):
            mean, covariance = simulator.exact_posterior({n: records.survey(n).value[row] for n in pattern})
            away = np.array([truth[n][row] for n in names]) - mean
            exact = -0.5 * away @ np.linalg.solve(covariance, away) - 0.5 * np.linalg.slogdet(2 * np.pi * np.asarray(covariance))[1]
            assert found[row] == pytest.approx(exact, abs=0.15)
        assert np.allclose(found, conditional + alone, atol=0.02)


def test_it_predicts_what_was_not_measured(fitted):
    simulator, estimator, records = fitted
    lost = list(simulator.matrices)[-1]
    others = [n for n in simulator.matrices if n != lost]
    some = records.isel(slice(0, 8))
    channels = [f"{lost}.{c.name}" for s in estimator.layout.surveys if s.name == lost for c in s.channels]
    drawn = estimator(shown(some, simulator, others)).marginal(channels).sample(4000)
    for row in range(8):
        mean, covariance = simulator.exact_posterior({n: some.survey(n).value[row] for n in others})
        matrix = simulator.matrices[lost]
        width = np.sqrt(np.diag(matrix @ covariance @ matrix.T) + simulator.noise**2)
        own = np.stack([drawn[n].values[row] for n in channels], -1)
        assert np.abs(own.mean(0) - matrix @ mean).max() < 0.1 * width.max()
        assert own.std(0) == pytest.approx(width, rel=0.08)


def test_it_is_kept_in_the_artefact(fitted, tmp_path):
    _, estimator, records = fitted
    estimator.save(tmp_path / "kept")
    assert np.array_equal(Estimator.load(tmp_path / "kept")(records).normal_scores(5), estimator(records).normal_scores(5))


def test_what_was_not_measured_is_not_read(fitted):
    _, estimator, _ = fitted
    value, error = torch.randn(6, 8), torch.rand(6, 8) + 0.1
    state = (torch.rand(6, 8) < 0.5).to(torch.uint8)
    wild = torch.where(state == 0, torch.tensor(1e30), value), torch.where(state == 0, torch.nan, error)
    noise = torch.randn(6, 4, 3)
    with torch.inference_mode():
        one, other = (estimator.head.transform(noise, estimator.context(*of, state)[:, None]) for of in ((value, error), wild))
    assert torch.equal(one, other) and torch.isfinite(one).all()


def test_pairs_that_were_never_seen_together_leave_a_covariance():
    torch.manual_seed(0)
    z = torch.randn(500, 1)
    measured = torch.cat([z + 0.1 * torch.randn(500, 1), z + 0.1 * torch.randn(500, 1), torch.zeros(500, 1)], 1)
    seen = torch.zeros(500, 3, dtype=torch.bool)
    seen[:250, 0], seen[250:, 1] = True, True
    joint = JointGaussian(1, 3)
    joint.fit(z, torch.where(seen, measured, torch.nan), seen)
    law = joint(measured[:4], seen[:4])
    assert torch.isfinite(law.root).all() and (law.location[:, 0] - z[:4, 0]).abs().max() < 0.5


def test_questions_of_one_object_do_not_mix(fitted):
    _, estimator, _ = fitted
    head, numbers = estimator.head, torch.Generator().manual_seed(2)
    row = estimator.context(torch.randn(5, 8), torch.rand(5, 8) + 0.1, (torch.rand(5, 8) < 0.5).to(torch.uint8))
    values = torch.randn(5, 4, head.variables, generator=numbers)
    known = (torch.rand(values.shape, generator=numbers) < 0.4) & (torch.arange(head.variables) < 3)
    asked = ~known & (torch.arange(head.variables) < 3)
    together = head._units(row[:, None], (values, known, asked))
    for k in range(4):
        alone = head._units(row, (values[:, k], known[:, k], asked[:, k]))
        assert torch.allclose(together.location[:, k], alone.location, atol=1e-5)
        assert torch.allclose(together.root[:, k], alone.root, rtol=1e-4, atol=1e-4)
    same = [m[:, :1].expand(-1, head.repeats, -1) for m in (values, known, asked)]
    single = [m[:, :1] for m in (values, known, asked)]
    losses = [head.losses(v, row, k, a, torch.Generator().manual_seed(7)) for v, k, a in (same, single)]
    assert torch.allclose(*losses, rtol=1e-4)
