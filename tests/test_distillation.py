import numpy as np
import pytest
import torch

from sbi_da.cli import main
from sbi_da.config import load_config
from sbi_da.distillation import Distillation, distil, fast_copy
from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.evaluation import evaluate, write_evaluation
from sbi_da.network import FewStepConfig
from sbi_da.runs import build
from sbi_da.simulation import simulate
from sbi_da.sources import SimulatorSource

SMALL = ["network.width=16", "network.layers=1", "network.summary=32", "network.blocks=1", "network.context=16", "network.hidden=[32]",
         "network.transforms=2", "network.bins=6", "network.matching={width: 16, layers: 1, heads: 2, tokens: 2, steps: 4}"]


@pytest.fixture(scope="module", params=["spline", "flow_matching"])
def taught(request):
    """A teacher whose posteriors are not Gaussian, an unlearned copy, a learned one, and objects."""
    simulator, surveys, teacher = build(load_config("toy", [*SMALL, f"network.head={request.param}"]))
    teacher.fit(SimulatorSource(simulator, surveys, teacher.prior).examples(2000, 7).observed)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in teacher.head.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter) / max(1, parameter.shape[-1]) ** 0.5)
    source = SimulatorSource(simulator, surveys, teacher.prior)
    how = Distillation(objects=2000, steps=600, batch=64, draws=16, held_out=200)
    untaught = distil(teacher.eval(), source, Distillation(objects=200, steps=1, batch=8, held_out=200), FewStepConfig(width=32))
    return teacher, untaught, distil(teacher, source, how, FewStepConfig(width=32)), simulate(simulator, surveys, 20, 3)


def error(estimator):
    return estimator.metadata["distillation"]["held_out_error"]


def test_a_copy_draws_what_its_teacher_draws_of_the_same_noise(taught):
    teacher, untaught, copy, records = taught
    assert error(copy) < 0.25 and error(copy) < 0.6 * error(untaught)
    own, aim = copy(records).normal_scores(200), teacher(records).normal_scores(200)
    assert np.corrcoef(own[..., 0].ravel(), aim[..., 0].ravel())[0, 1] > 0.97
    assert np.abs(own.mean(1) - aim.mean(1)).max() < 0.3


def test_it_encodes_as_its_teacher_and_has_no_density(taught, tmp_path):
    teacher, _, copy, records = taught
    assert torch.equal(teacher(records).context, copy(records).context)
    with pytest.raises(SbiDaError, match="distilled from"):
        copy(records).log_prob({n: np.zeros(20) for n in copy.parameter_names})
    copy.save(tmp_path / "fast")
    again = Estimator.load(tmp_path / "fast")
    assert np.array_equal(again(records).normal_scores(5), copy(records).normal_scores(5))


def test_it_is_evaluated_without_log_scores(taught, tmp_path):
    teacher, _, copy, records = taught
    (own, figures), (aim, _) = (evaluate(e, records, 40) for e in (copy, teacher))
    assert "nll" in aim["overall"] and "nll" not in own["overall"] and "information_gain" not in own["overall"]
    write_evaluation(own, figures, tmp_path / "report")
    assert "NLL (nats)" not in (tmp_path / "report" / "report.html").read_text()


def test_at_most_four_evaluations(taught, monkeypatch):
    _, _, copy, records = taught
    calls = []
    for step in copy.head.steps:
        step.register_forward_hook(lambda *_: calls.append(1))
    copy(records).normal_scores(10)
    assert len(calls) == 4
    with pytest.raises(ValueError):
        FewStepConfig(steps=5)


def test_a_mixture_cannot_be_distilled():
    teacher = build(load_config("toy", [*SMALL, "network.head=mixture"]))[2]
    with pytest.raises(SbiDaError, match="spline or flow_matching"):
        fast_copy(teacher)


def test_commands(tmp_path, capsys):
    tiny = ["training.epochs=1", "training.steps_per_epoch=2", "training.batch=32", "training.validation=50", "training.simulations=100"]
    assert main(["train", "toy", *SMALL, *tiny, "--out", str(tmp_path / "run"), "--quiet"]) == 0
    assert main(["distill", str(tmp_path / "run"), "--out", str(tmp_path / "fast"), "--steps", "3", "--evaluations", "2", "--quiet"]) == 0
    assert "2 evaluations per draw" in capsys.readouterr().out
    assert Estimator.load(tmp_path / "fast").network.few_step.steps == 2
    assert main(["distill", str(tmp_path / "run"), "--out", str(tmp_path / "fast"), "--quiet"]) == 2
    assert main(["train", "toy", *SMALL, *tiny, "network.head=few_step", "--out", str(tmp_path / "no"), "--quiet"]) == 2
    assert "sbi-da distill" in capsys.readouterr().err and not (tmp_path / "no").exists()
