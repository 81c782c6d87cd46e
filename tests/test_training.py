import csv
import shutil

import numpy as np
import pytest
import torch

from sbi_da.config import TrainingConfig
from sbi_da.distributions import Normal
from sbi_da.errors import ArtefactError, ConfigError, SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.prior import Prior
from sbi_da.proposal import Proposal, Widening
from sbi_da.records import EmpiricalMissing, MixedMissing, write_table
from sbi_da.runs import build, resolve, train
from sbi_da.simulation import simulate
from sbi_da.sources import RecordsSource, SimulatorSource
from sbi_da.training import TrainingModule


def weights(estimator):
    return torch.cat([p.detach().flatten() for p in estimator.state_dict().values()])


def test_a_run_leaves_logs_checkpoints_and_an_artefact(toy_run, toy_config):
    assert (toy_run / "config.yaml").is_file() and (toy_run / "checkpoints" / "last.ckpt").is_file()
    with open(toy_run / "logs" / "metrics.csv") as file:
        rows = list(csv.DictReader(file))
    assert sum(bool(r["val_loss"]) for r in rows) == toy_config.training.epochs
    assert list((toy_run / "logs" / "tensorboard").glob("events.*"))
    metadata = Estimator.load(toy_run).metadata
    assert metadata["training"]["steps"] == 40 and metadata["config"]["simulator"]["name"] == "linear_gaussian"


def test_the_same_seed_gives_the_same_weights_and_another_does_not(toy_run, toy_config, tmp_path):
    again = train(toy_config, tmp_path / "again", progress=False)
    assert torch.equal(weights(again), weights(Estimator.load(toy_run)))
    other = train(toy_config.model_copy(update={"seed": 1}), tmp_path / "other", progress=False)
    assert not torch.equal(weights(other), weights(again))


def test_an_interrupted_run_goes_on_to_the_same_weights(toy_run, toy_config, tmp_path, monkeypatch):
    calls = {"n": 0}
    step = TrainingModule.training_step

    def interrupted(self, batch, batch_idx):
        calls["n"] += 1
        if calls["n"] == 30:
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    monkeypatch.setattr(TrainingModule, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(toy_config, tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "estimator").exists()
    monkeypatch.undo()
    resumed = train(toy_config, tmp_path / "run", progress=False)
    assert torch.equal(weights(resumed), weights(Estimator.load(toy_run)))


def test_epochs_that_were_no_better_are_not_trained_again(toy_config, tmp_path, monkeypatch):
    settings = toy_config.training.model_copy(update={"epochs": 9, "steps_per_epoch": 5, "patience": 4})
    config = toy_config.model_copy(update={"training": settings})
    step, calls = TrainingModule.training_step, []

    def counted(self, batch, batch_idx):
        if len(calls) == 17:
            raise KeyboardInterrupt
        calls.append(self.global_step)
        return step(self, batch, batch_idx)

    def worse(self):
        self.log("val_loss", torch.tensor(float(self.current_epoch)))
        self.log("val_loss_proposal", torch.tensor(0.0))

    monkeypatch.setattr(TrainingModule, "training_step", counted)
    monkeypatch.setattr(TrainingModule, "on_validation_epoch_end", worse)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path, progress=False)
    calls.clear()
    trained = train(config, tmp_path, progress=False)
    assert calls == list(range(15, 25))
    first = torch.load(tmp_path / "checkpoints" / "best.ckpt", weights_only=True)
    assert first["epoch"] == 0 and trained.metadata["training"]["held_out_loss"] == 0
    calls.clear()
    shutil.rmtree(tmp_path / "estimator")
    assert torch.equal(weights(train(config, tmp_path, progress=False)), weights(trained)) and not calls


def test_a_finished_run_is_not_trained_again(toy_run, toy_config, monkeypatch):
    monkeypatch.setattr(TrainingModule, "training_step", lambda *_: pytest.fail("trained again"))
    assert torch.equal(weights(train(toy_config, toy_run)), weights(Estimator.load(toy_run)))


def test_a_folder_of_something_else_is_left_alone(toy_run, toy_config, tmp_path):
    with pytest.raises(ConfigError, match=r"another config \(seed differ"):
        train(toy_config.model_copy(update={"seed": 9}), toy_run)
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(ConfigError, match="not a training run"):
        train(toy_config, tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "precious"


def test_a_truncated_checkpoint_says_what_to_do(toy_run, toy_config, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(toy_run, run)
    shutil.rmtree(run / "estimator")
    checkpoint = run / "checkpoints" / "last.ckpt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:2000])
    with pytest.raises(ArtefactError, match="cannot be resumed"):
        train(toy_config, run, progress=False)


def test_training_learns(toy_run, toy_config):
    simulator, surveys, fresh = build(toy_config)
    records = simulate(simulator, surveys, 500, seed=11)
    theta = {n: records.parameters[n] for n in fresh.parameter_names}
    trained = Estimator.load(toy_run)
    assert trained(records).log_prob(theta).mean() > fresh.eval()(records).log_prob(theta).mean() + 0.3


def test_training_on_saved_records(toy_config, tmp_path):
    simulator, surveys, _ = build(toy_config)
    simulate(simulator, surveys, 400, seed=2).save(tmp_path / "records.zarr")
    training = toy_config.training.model_copy(update={"records": str(tmp_path / "records.zarr")})
    config = toy_config.model_copy(update={"training": training})
    assert train(config, tmp_path / "run", progress=False).metadata["training"]["steps"] == 40


def test_the_pattern_of_a_real_table_is_read_once(toy_config, tmp_path):
    simulator, surveys, _ = build(toy_config)
    columns = {}
    for k, survey in enumerate(surveys):
        for channel in survey.channels:
            seen = np.arange(20) % 4 >= k
            columns[channel.column] = np.where(seen, 0.3, np.nan)
            columns[channel.error_column] = np.where(seen, 0.5, np.nan)
    write_table(tmp_path / "table.csv", columns)
    law = MixedMissing(laws=[EmpiricalMissing(table=str(tmp_path / "table.csv"))], weights=[1])
    config = resolve(toy_config.model_copy(update={"missing": law}))
    (tmp_path / "table.csv").unlink()
    records = simulate(simulator, surveys, 400, 0, config.missing)
    names, counts = np.unique(records.pattern(), return_counts=True)
    order = ["modality_a", "modality_b", "modality_c", "modality_d"]
    assert set(names) == {"+".join(order[: k + 1]) for k in range(4)} and counts.min() > 60


def test_proposal_weights_recover_the_prior(rng):
    proposal = Proposal(prior_fraction=0.2, parameters={"b": Widening(shift=1.5, scale=2.0)})
    z, log_weight = proposal.sample(400_000, ["a", "b"], rng)
    weight = np.exp(log_weight)
    assert weight.max() <= 5.0 + 1e-9 and weight.mean() == pytest.approx(1, abs=0.01)
    assert np.average(z[:, 1], weights=weight) == pytest.approx(0, abs=0.02)
    assert np.average(z[:, 1] ** 2, weights=weight) == pytest.approx(1, abs=0.03)


def test_relative_weights_leave_the_posterior_where_it_is():
    """Trained from a shifted proposal, the posterior without data is the prior and not the proposal."""
    from sbi_da.config import Config

    config = Config.model_validate({
        "simulator": {"name": "linear_gaussian"}, "parameters": ["theta_1", "theta_2", "theta_3"],
        "missing": {"kind": "empirical", "rows": ["0" * 8, "1" * 8], "counts": [1, 1]},
        "proposal": {"prior_fraction": 0.3, "parameters": {"theta_1": {"shift": 1.5, "scale": 1.2}}},
        "network": {"width": 16, "layers": 1, "heads": 2, "context": 24, "transforms": 2, "bins": 6, "hidden": [32]},
        "training": {"epochs": 4, "steps_per_epoch": 100, "batch": 256, "validation": 256, "learning_rate": 0.005},
    })
    simulator, surveys, estimator = build(config)
    source = SimulatorSource(simulator, surveys, estimator.prior, config.missing, config.proposal)
    module = TrainingModule(estimator, config.training, weighted=True)
    module.log = lambda *_, **__: None
    optimiser = torch.optim.Adam(module.parameters(), 3e-3)
    from sbi_da.training import tensors

    for epoch in range(4):
        whole = tensors(source.examples(100 * 256, epoch))
        for rows in torch.arange(len(whole["z"])).split(256):
            loss = module.training_step({"simulated": {k: v[rows] for k, v in whole.items()}}, 0)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    records = simulate(simulator, surveys, 4, seed=0)
    empty = records.with_measurements({n: records.survey(n).where(np.zeros((4, 2), bool)) for n in records.surveys})
    drawn = estimator(empty).sample(4000)["theta_1"].values.ravel()
    assert drawn.mean() == pytest.approx(0, abs=0.15)  # the proposal's mean is 1.05
    assert drawn.std() == pytest.approx(1, abs=0.15)


def test_a_diverged_training_leaves_no_estimator(toy_config, tmp_path):
    training = toy_config.training.model_copy(update={"learning_rate": 1e20, "warmup": 0})
    with pytest.raises(SbiDaError, match="lower training.learning_rate"):
        train(toy_config.model_copy(update={"training": training}), tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "estimator").exists()


def test_saved_records_bring_their_weights_and_their_own_missing_data(toy_config):
    simulator, surveys, estimator = build(toy_config)
    proposal = Proposal(parameters={"theta_1": Widening(shift=1.0)})
    drawn = simulate(simulator, surveys, 300, 1, toy_config.missing, proposal)
    plain = simulate(simulator, surveys, 300, 1)
    weighted = RecordsSource(drawn, surveys, estimator.prior, toy_config.missing)
    assert weighted.weighted and weighted.examples(200, 0).log_weight.std() > 0
    assert not RecordsSource(plain, surveys, estimator.prior).weighted
    absent = np.mean([(drawn.survey(s.name).state == 0).mean() for s in surveys])
    assert (weighted.examples(3000, 0).observed.state == 0).mean() == pytest.approx(absent, abs=0.03)
    again = RecordsSource(plain, surveys, estimator.prior, toy_config.missing)
    assert (again.examples(3000, 0).observed.state == 0).mean() > 0.4


def test_some_training_objects_are_seen_by_nobody_whatever_the_law(toy_config):
    simulator, surveys, estimator = build(toy_config)
    examples = SimulatorSource(simulator, surveys, estimator.prior).examples(20_000, 0)
    empty = (examples.observed.state == 0).all(1)
    assert 0.005 < empty.mean() < 0.015
    assert abs(examples.z[empty].mean()) < 0.2


def test_sources_repeat_an_epoch_exactly_and_differ_between_epochs(toy_config):
    simulator, surveys, estimator = build(toy_config)
    for simulations in (None, 100):
        source = SimulatorSource(simulator, surveys, estimator.prior, toy_config.missing, simulations=simulations)
        a, b, c = source.examples(150, 3), source.examples(150, 3), source.examples(150, 4)
        assert np.array_equal(a.observed.value, b.observed.value) and np.array_equal(a.z, b.z)
        assert not np.array_equal(a.observed.value, c.observed.value)
        assert len(np.unique(a.z[:, 0])) == (150 if simulations is None else 100)


def test_records_without_the_parameters_are_refused(toy_config, toy_records):
    _, surveys, _ = build(toy_config)
    with pytest.raises(SbiDaError, match="lack weight"):
        RecordsSource(toy_records, surveys, Prior({"weight": Normal(mean=0, sd=1, low=-1, high=1)}))


def test_schedule_warms_up_and_ends_at_zero(toy_config):
    module = TrainingModule(build(toy_config)[2], TrainingConfig(epochs=2, steps_per_epoch=100, warmup=20), False)
    schedule = module.configure_optimizers()["lr_scheduler"]["scheduler"].lr_lambdas[0]
    assert schedule(0) < 0.1 and schedule(19) == pytest.approx(1) and schedule(200) == pytest.approx(0, abs=1e-9)
