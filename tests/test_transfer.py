"""Trainings that start from an earlier artefact: what is taken, what is not, and what is said of it."""

import json

import numpy as np
import pytest
import torch
from small_galaxies import CLASSES, config, records
from small_votes import target_config

from sbi_da.cli import main
from sbi_da.errors import ConfigError, SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.runs import build, train, untrained
from sbi_da.transfer import Transfer, transfer


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("transfer")


@pytest.fixture(scope="module")
def run(place):
    train(config(place), place / "run", progress=False)
    return place / "run"


@pytest.fixture(scope="module")
def earlier(run):
    return Estimator.load(run)


def three(place):
    """The toy's records with another third class."""
    path = place / "three.zarr"
    if not path.exists():
        made = records(200, seed=30)
        code = made.parameters["shape"]
        code[::7] = 2
        made = made.with_parameters({"shape": code})
        made.tree.attrs["classes_shape"] = [*CLASSES, "odd"]
        made.save(path)
    return path


def other_seed(place, **training):
    return config(place, **training).model_copy(update={"seed": 5})


def test_encoders_are_equal_and_the_head_is_fresh(place, earlier):
    estimator = untrained(other_seed(place))
    before = {k: v.clone() for k, v in estimator.state_dict().items()}
    told = transfer(estimator, earlier)
    for name, value in estimator.state_dict().items():
        same = torch.equal(value, earlier.state_dict()[name])
        assert same if name in told.taken else torch.equal(value, before[name])
    assert {name.split(".")[0] for name in told.taken} == {"encoder", "images", "fusion"}
    center = "images.center_toy_camera"
    assert center in told.taken and not torch.equal(before[center], estimator.state_dict()[center])
    assert set(told.left.values()) == {"not asked for"} and all(name.startswith("head.") for name in told.left)


def test_a_head_of_the_same_classes_is_taken_without_its_calibration(place, earlier):
    estimator = untrained(other_seed(place))
    told = transfer(estimator, earlier, Transfer(head=True))
    assert torch.equal(estimator.head.layers[-1].weight, earlier.head.layers[-1].weight)
    assert told.left["head.temperature"] == "calibration, set anew" and float(estimator.head.temperature) == 1.0
    assert float(earlier.head.temperature) != 1.0
    context = torch.randn(10, 16)
    assert torch.equal(estimator.head.logits(context), earlier.head.logits(context))


def test_other_classes_have_a_fresh_head(place, earlier):
    estimator = untrained(other_seed(place, records=str(three(place))))
    told = transfer(estimator, earlier, Transfer(head=True))
    assert {told.left[name] for name in told.left} == {"answers another question"} and "fusion.query" in told.taken
    assert estimator.head.classes == 3 and "head (6: answers another question)" in str(told)
    renamed = records(60, seed=31)
    renamed.tree.attrs["classes_shape"] = ["round", "merger"]
    renamed.save(place / "renamed.zarr")  # as many classes, so that shapes alone would agree
    told = transfer(untrained(other_seed(place, records=str(place / "renamed.zarr"))), earlier, Transfer(head=True))
    assert told.left["head.layers.1.weight"] == "answers another question"


def test_votes_start_from_a_classifier(place, earlier):
    estimator = untrained(target_config(place, "votes", ["shape"]))
    start = estimator.head.layers[-1].weight.clone()
    told = transfer(estimator, earlier, Transfer(head=True))
    assert "images.encoders.toy_camera" in str(told) and torch.equal(estimator.head.layers[-1].weight, start)


def test_rows_of_other_channels_or_surveys_are_not_taken(toy_config, toy_estimator):
    again = build(toy_config.model_copy(update={"seed": 9}))[2]
    told = transfer(again, toy_estimator, Transfer(head=True))
    assert not told.left and torch.equal(again.encoder.embed, toy_estimator.encoder.embed)
    swapped = build(toy_config.model_copy(update={"seed": 9}))[2]
    layout = swapped.layout
    object.__setattr__(layout, "surveys", layout.surveys[::-1])
    found = transfer(swapped, toy_estimator)
    assert {"encoder.embed", "encoder.survey_identity"} <= set(found.left) and "encoder.embed" not in found.taken
    assert found.left["encoder.survey_identity"] == "other surveys" and "fusion.query" in found.taken


def test_another_encoder_keeps_its_own_normalisation(place, earlier):
    content = other_seed(place)
    images = content.network.images.model_copy(update={"kind": "cnn", "options": {}})
    estimator = untrained(content.model_copy(update={"network": content.network.model_copy(update={"images": images})}))
    told = transfer(estimator, earlier)
    assert told.left["images.center_toy_camera"] == "of an encoder that was not taken" and "fusion.query" in told.taken


def test_nothing_fits(place, earlier):
    content = other_seed(place)
    wider = content.network.model_copy(update={"width": 24, "summary": 40, "context": 20})
    estimator = untrained(content.model_copy(update={"network": wider}))
    with pytest.raises(SbiDaError, match="training.start: not one weight of .* fits"):
        transfer(estimator, earlier, Transfer(encoders=False, head=True))
    with pytest.raises(ValueError, match="nothing is left to take"):
        Transfer(encoders=False)


def test_a_run_starts_there_and_goes_on(place, run, earlier, capsys, monkeypatch):
    """With a learning rate of almost nothing the encoders are still those of the artefact at the end."""
    how = {"start": str(run), "learning_rate": 1e-12, "weight_decay": 0.0, "epochs": 1, "steps_per_epoch": 2, "augmentation": None}
    said = []
    found = train(other_seed(place, **how), place / "again", progress=False, say=said.append)
    start = found.metadata["training"]["start"]
    assert start["start"] == str(run) and len(said) == 1 and said[0].startswith(f"start from {run}: weights taken: encoder")
    weights = earlier.state_dict()
    # running statistics of normalisation layers move with the batches; weights do not
    for name, value in found.named_parameters():
        assert not value.numel() or torch.allclose(value, weights[name], atol=1e-6) is (name in start["taken"]), name
    plain = train(other_seed(place, **{**how, "start": None}), place / "plain", progress=False)
    assert not torch.allclose(plain.fusion.query, earlier.fusion.query, atol=1e-3) and "start" not in plain.metadata["training"]
    monkeypatch.setattr("sbi_da.runs.transfer", None)  # a finished run needs the artefact no more
    assert np.isfinite(train(other_seed(place, **how), place / "again", progress=False).metadata["training"]["held_out_nll"])


def test_commands(place, run, tmp_path, capsys):
    content = config(place, records=str(three(place)), epochs=1, steps_per_epoch=2)
    file = tmp_path / "new.yaml"
    file.write_text(json.dumps(content.model_dump(mode="json")))
    assert main(["train", str(file), f"training.start={tmp_path / 'nowhere'}", "--out", str(tmp_path / "run"), "--quiet"]) == 2
    error = capsys.readouterr().err
    assert "config: training.start:" in error and "not an estimator" in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()
    start = [f"training.start={run}", "training.transfer.head=true"]
    assert main(["train", str(file), *start, "--out", str(tmp_path / "run"), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert f"start from {run}: weights taken: encoder" in out and "head (6: answers another question)" in out
    assert Estimator.load(tmp_path / "run").classes == (*CLASSES, "odd")
    assert main(["train", str(file), "training.transfer.heads=true", "--out", str(tmp_path / "x"), "--quiet"]) == 2
    assert "no such key; did you mean 'head'" in capsys.readouterr().err


def test_a_run_of_an_earlier_version_is_known_again(place, run):
    """Keys that a config has gained since do not make it another."""
    import yaml

    text = yaml.safe_load((run / "config.yaml").read_text())
    del text["training"]["transfer"], text["network"]["classifier"]["target"]
    (run / "config.yaml").write_text(yaml.safe_dump(text))
    assert train(config(place), run, progress=False).classes == CLASSES
    with pytest.raises(ConfigError, match="another config .training differ"):
        train(config(place, epochs=3), run, progress=False)
