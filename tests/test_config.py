import inspect
import sys

import numpy as np
import pytest
import yaml

from sbi_da.config import Config, list_configs, load_config
from sbi_da.errors import ConfigError, SbiDaError, UnknownNameError
from sbi_da.runs import build
from sbi_da.simulation import simulate
from sbi_da.simulators import get_simulator, list_simulators, simulator_class


@pytest.mark.parametrize("name", list_configs())
def test_every_shipped_config_is_valid_and_takes_one_step(name, tmp_path):
    from sbi_da.runs import train

    tiny = ["training.epochs=1", "training.steps_per_epoch=1", "training.batch=16", "training.validation=32",
            "training.simulations=64"]
    if name.startswith("galaxies/"):
        pytest.importorskip("galsim")
        tiny += _galaxies(name, tmp_path)
    estimator = train(load_config(name, tiny), tmp_path / "run", progress=False)
    assert estimator.metadata["training"]["steps"] == 1


def _galaxies(name, folder):
    """No hub, small images, and records where a config trains on some."""
    content = load_config(name)
    if content.network.images.kind.startswith("resnet"):
        pytest.importorskip("transformers")
        small = ["network.images.options.pretrained=false"]
    else:
        small = []
    if content.training.records:
        simulator, surveys, _ = build(load_config("galaxies/default"))
        records, rng = simulate(simulator, surveys, 64, 3), np.random.default_rng(3)
        votes = {f"{q}_votes_{answer}": rng.integers(0, 9, 64) for q in content.parameters for answer in ("smooth", "featured")}
        labels = {name: rng.integers(0, 2, 64) for name in content.parameters if name != "morphology"}
        records.with_parameters({**votes, **labels}).save(folder / "source.zarr")
        small.append(f"training.records={folder / 'source.zarr'}")
    return small


@pytest.mark.parametrize("name", ["galaxy_da", "galaxy_da_as_executed", "deepastrouda", "deepmerge2"])
def test_published_systems_have_nothing_of_ours(name):
    found, ours = (load_config(f"galaxies/{each}") for each in (name, "default"))
    for part in ("refine", "restage", "outliers"):
        assert getattr(found.alignment.classes, part) is None
    assert ours.alignment.classes.outliers is not None and ours.network.images.measured and not found.network.images.measured


def test_overrides_reach_nested_keys():
    config = load_config("toy", ["training.epochs=3", "network.hidden=[8, 8]", "training.learning_rate=1e-2"])
    assert (config.training.epochs, config.network.hidden, config.training.learning_rate) == (3, (8, 8), 0.01)


def test_extends_merges_and_replaces_laws_of_another_kind(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"extends": "toy", "training": {"epochs": 1}, "missing": {"kind": "nothing"}}))
    config = load_config(str(file))
    assert config.training.epochs == 1 and config.missing.kind == "nothing" and config.training.batch == 512


@pytest.mark.parametrize(
    ("overrides", "message"),
    [(["training.epoch=3"], "did you mean 'epochs'"), (["training.epochs=many"], "training.epochs"),
     (["simulater.name=stars"], "did you mean 'simulator'"), (["epochs"], "key.sub=value"),
     (["training.batch=-1"], "training.batch"), (["missing.kind=sometimes"], "missing"),
     (["network.width=50", "network.heads=4"], "multiple of heads"), (["network.hidden=[]"], "hidden"),
     (["network.hidden=[0]"], "hidden"),
     (["missing={kind: mixed, laws: [], weights: []}"], "one weight for each law"),
     (["missing={kind: mixed, laws: [{kind: nothing}], weights: [1, 2]}"], "one weight for each law"),
     (["missing={kind: mixed, laws: [{kind: nothing}], weights: [-1]}"], "weights must be"),
     (["missing={kind: empirical, rows: ['10', '1'], counts: [1, 1]}"], "rows must be"),
     (["missing={kind: empirical, rows: ['12'], counts: [1]}"], "rows must be"),
     (["missing={kind: empirical, rows: ['10'], counts: [-1]}"], "counts must be"),
     (["missing={kind: empirical, rows: ['10'], counts: [0]}"], "counts must be")],
)
def test_bad_keys_are_named_on_one_line(overrides, message):
    with pytest.raises(ConfigError, match=message) as error:
        load_config("toy", overrides)
    assert "\n" not in str(error.value)


def test_unknown_names_list_the_known(tmp_path):
    with pytest.raises(ConfigError, match="did you mean toy"):
        load_config("toyy")
    with pytest.raises(UnknownNameError, match="linear_gaussian"):
        build(load_config("toy", ["simulator.name=galaxys"]))
    with pytest.raises(ConfigError, match="options are noise, seed"):
        build(load_config("toy", ["simulator.options.nois=1"]))
    with pytest.raises(UnknownNameError, match="theta_1"):
        build(load_config("toy", ["parameters=[theta_9]"]))
    with pytest.raises(UnknownNameError, match="gaia"):
        build(load_config("toy", ["surveys=[gaja]"]))


PLUGIN = """
from __future__ import annotations
from pydantic import BaseModel, Field
from sbi_da.simulators import Simulator

class Positive(BaseModel):
    size: float = Field(gt=0)

class Mine(Simulator):
    prior = None
    def at(self, theta, rng): ...
    def __init__(self, size: float = 1.0, OPTIONS) -> None:
        self.size = Positive(size=size).size

SIMULATOR = Mine
"""


def test_options_of_plug_ins(tmp_path):
    for name, options in (("late", "name: str | None = None"), ("loose", "**rest: float"), ("many", "*rest: float")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(PLUGIN.replace("OPTIONS", options))
    assert get_simulator(str(tmp_path / "late"), size="2", name="x").size == 2.0
    with pytest.raises(ConfigError, match="name: .*options are size, name"):
        get_simulator(str(tmp_path / "late"), name=3)
    with pytest.raises(ConfigError, match="late': size: .*greater than 0"):
        get_simulator(str(tmp_path / "late"), size=-1)
    for name, argument in (("loose", r"\*\*rest"), ("many", r"\*rest")):
        with pytest.raises(SbiDaError, match=argument):
            get_simulator(str(tmp_path / name))


def test_a_built_in_simulator_is_one_module():
    from sbi_da.simulators.linear_gaussian import LinearGaussian

    assert simulator_class("linear_gaussian") is LinearGaussian
    assert simulator_class(inspect.getfile(LinearGaussian).removesuffix("/__init__.py")) is LinearGaussian


def test_an_entry_point_is_imported_under_its_own_name_and_not_when_listed(tmp_path, monkeypatch):
    (tmp_path / "sky_maker").mkdir()
    (tmp_path / "sky_maker" / "__init__.py").write_text(PLUGIN.replace("OPTIONS", ""))
    info = tmp_path / "sky_maker-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sky_maker\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[sbi_da.simulators]\nmaker = sky_maker\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        assert "maker" in list_simulators() and "sky_maker" not in sys.modules
        assert simulator_class("maker") is sys.modules["sky_maker"].Mine
    finally:
        sys.modules.pop("sky_maker", None)


def test_broken_files(tmp_path):
    (tmp_path / "broken.yaml").write_text("a: [1")
    (tmp_path / "list.yaml").write_text("- 1")
    (tmp_path / "loop.yaml").write_text(f"extends: {tmp_path / 'loop.yaml'}")
    for name, message in (("broken", "not valid YAML"), ("list", "mapping"), ("loop", "extends itself")):
        with pytest.raises(ConfigError, match=message) as error:
            load_config(str(tmp_path / f"{name}.yaml"))
        assert "\n" not in str(error.value)


def test_config_survives_a_round_trip():
    config = load_config("toy")
    assert Config.model_validate(yaml.safe_load(yaml.safe_dump(config.model_dump(mode="json")))) == config
