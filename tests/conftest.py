"""Shared fixtures: a small untrained estimator of the toy, and one trained for a few seconds."""

import numpy as np
import pytest
import torch

from sbi_da.config import Config
from sbi_da.estimator import Estimator
from sbi_da.runs import build, train
from sbi_da.simulation import simulate


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
def toy_run(toy_config, tmp_path_factory):
    run = tmp_path_factory.mktemp("toy") / "run"
    train(toy_config, run, progress=False)
    return run


@pytest.fixture()
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
