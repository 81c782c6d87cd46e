"""Shared fixtures: a small untrained estimator of the toy, and one trained for a few seconds."""

import numpy as np
import pytest
import torch
from catalogue_tables import columns_of

from sbi_da.config import Config, TrainingConfig
from sbi_da.estimator import Estimator
from sbi_da.fitting import fit
from sbi_da.runs import build, train
from sbi_da.simulation import simulate
from sbi_da.sources import SimulatorSource
from sbi_da.training import StreamModule, TrainingModule


def pytest_addoption(parser):
    parser.addoption("--malformed", type=int, default=100, help="malformed tables to try")


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def toy_config() -> Config:
    return Config.model_validate({
        "simulator": {"name": "linear_gaussian"},
        "parameters": ["theta_1", "theta_2", "theta_3"],
        "missing": {"kind": "uniform", "channels": 0.2},
        "network": {"width": 16, "layers": 2, "heads": 2, "context": 24, "transforms": 3, "bins": 6, "hidden": [32]},
        "training": {"epochs": 2, "steps_per_epoch": 20, "batch": 128, "validation": 256, "warmup": 5},
    })


@pytest.fixture(scope="session")
def toy_estimator(toy_config) -> Estimator:
    return build(toy_config)[2].eval()


@pytest.fixture(scope="session")
def toy_records(toy_config):
    simulator, surveys, _ = build(toy_config)
    return simulate(simulator, surveys, 64, seed=3, missing=toy_config.missing)


@pytest.fixture(scope="session")
def table(toy_config):
    """A catalogue of 300 objects of the toy."""
    simulator, surveys, _ = build(toy_config)
    return columns_of(simulate(simulator, surveys, 300, 5, toy_config.missing), surveys)


@pytest.fixture(scope="session")
def toy_run(toy_config, tmp_path_factory):
    run = tmp_path_factory.mktemp("toy") / "run"
    train(toy_config, run, progress=False)
    return run


@pytest.fixture(scope="session")
def base():
    config = Config.model_validate({
        "simulator": {"name": "linear_gaussian"}, "parameters": ["theta_1", "theta_2", "theta_3"],
        "missing": {"kind": "uniform", "channels": 0.0},
        "network": {"width": 8, "layers": 1, "heads": 2, "summary": 16, "blocks": 1, "context": 16, "transforms": 2, "bins": 4,
                    "hidden": [16]},
    })
    return build(config)[2].eval()


@pytest.fixture(scope="session")
def calibrated():
    """A stand-in for training: an estimator of the toy whose posterior is learned in a few seconds."""
    config = Config.model_validate({
        "simulator": {"name": "linear_gaussian"}, "parameters": ["theta_1", "theta_2", "theta_3"],
        "network": {"width": 8, "layers": 1, "heads": 2, "summary": 48, "blocks": 1, "context": 24, "transforms": 1, "bins": 4,
                    "hidden": [32]},
    })
    simulator, surveys, estimator = build(config)
    settings = TrainingConfig(epochs=4, steps_per_epoch=60, batch=256, learning_rate=5e-3, warmup=20, validation=64)
    source = SimulatorSource(simulator, surveys, estimator.prior)
    observed = source.examples(1000, 9).observed
    estimator.encoder.fit(
        torch.from_numpy(observed.value).float(), torch.from_numpy(observed.error).float(), torch.from_numpy(observed.state)
    )
    fit(TrainingModule(estimator, settings, False), StreamModule(source, source, settings), settings)
    return estimator.eval()


@pytest.fixture()
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
