import pytest
import yaml

from sbi_da.config import Config, list_configs, load_config
from sbi_da.errors import ConfigError, UnknownNameError
from sbi_da.runs import build


@pytest.mark.parametrize("name", list_configs())
def test_every_shipped_config_is_valid_and_takes_one_step(name, tmp_path):
    from sbi_da.runs import train

    tiny = ["training.epochs=1", "training.steps_per_epoch=1", "training.batch=16", "training.validation=32",
            "training.simulations=64"]
    estimator = train(load_config(name, tiny), tmp_path / "run", progress=False)
    assert estimator.metadata["training"]["steps"] == 1


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
     (["training.batch=-1"], "training.batch"), (["missing.kind=sometimes"], "missing")],
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
