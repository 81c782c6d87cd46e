import hashlib
import json

import numpy as np
import pytest
import torch

from sbi_da.errors import ArtefactError, SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.records import ABSENT, Measurements, Records


def overwrite(records: Records, garbage: float) -> Records:
    changed = {}
    for name in records.surveys:
        m = records.survey(name)
        gone = m.state == ABSENT
        changed[name] = Measurements(
            m.channels, m.units, np.where(gone, garbage, m.value), np.where(gone, garbage, m.error), m.state
        )
    return records.with_measurements(changed)


@pytest.mark.parametrize("garbage", [1e30, np.nan, -np.inf, 0.0])
def test_no_path_for_a_missing_value(toy_estimator, toy_records, garbage):
    """Contexts, draws, densities and gradients are the same bits whatever stands in absent entries."""
    clean, dirty = toy_estimator(overwrite(toy_records, 5.0)), toy_estimator(overwrite(toy_records, garbage))
    assert torch.equal(clean.context, dirty.context)
    assert clean.sample(20).equals(dirty.sample(20))
    theta = {k: v[:] for k, v in toy_records.parameters.items()}
    assert np.array_equal(clean.log_prob(theta).values, dirty.log_prob(theta).values)


def test_gradients_do_not_see_missing_values(toy_estimator, toy_records):
    grads = []
    for garbage in (0.0, np.nan):
        s = toy_estimator.layout.read(overwrite(toy_records, garbage))
        tensors = (torch.tensor(s.value).float(), torch.tensor(s.error).float(), torch.tensor(s.state))
        toy_estimator.zero_grad()
        toy_estimator.context(*tensors).square().sum().backward()
        grads.append([p.grad.clone() for p in toy_estimator.encoder.parameters() if p.grad is not None])
    toy_estimator.zero_grad()
    assert all(torch.isfinite(g).all() for g in grads[1])
    assert all(torch.equal(a, b) for a, b in zip(*grads, strict=True))


def test_observed_values_do_matter(toy_estimator, toy_records):
    m = toy_records.survey("modality_a")
    moved = Measurements(m.channels, m.units, m.value + 1.0, m.error, m.state)
    others = {n: toy_records.survey(n) for n in toy_records.surveys if n != "modality_a"}
    changed = toy_estimator(toy_records.with_measurements({"modality_a": moved, **others})).context
    seen = (m.state != ABSENT).any(1)
    different = (changed - toy_estimator(toy_records).context).abs().max(1).values.numpy() > 1e-4
    assert np.array_equal(different, seen)


def test_order_of_surveys_and_channels_does_not_matter(toy_estimator, toy_records):
    flipped = {}
    for name in reversed(toy_records.surveys):
        m = toy_records.survey(name)
        flipped[name] = Measurements(
            m.channels[::-1], m.units[::-1], m.value[:, ::-1], m.error[:, ::-1], m.state[:, ::-1]
        )
    again = toy_estimator(toy_records.with_measurements(flipped))
    assert torch.equal(again.context, toy_estimator(toy_records).context)


def test_an_absent_survey_equals_one_that_is_not_there(toy_estimator, toy_records):
    m = {n: toy_records.survey(n) for n in toy_records.surveys}
    m["modality_b"] = m["modality_b"].where(np.zeros((64, 2), bool))
    with_it = toy_estimator(toy_records.with_measurements(m))
    without = toy_estimator(toy_records.select([n for n in toy_records.surveys if n != "modality_b"]))
    assert torch.equal(with_it.context, without.context)


def test_draws_depend_on_identifier_and_seed_only(toy_estimator, toy_records):
    whole = toy_estimator(toy_records).sample(30, seed=5)
    part = toy_estimator(toy_records.isel(np.array([40, 3, 17]))).sample(30, seed=5)
    for name in whole.data_vars:
        assert np.allclose(part[name].values, whole[name].values[[40, 3, 17]], atol=1e-4)
    other = toy_estimator(toy_records).sample(30, seed=6)
    assert not np.allclose(other["theta_1"], whole["theta_1"])


def test_nothing_observed_is_an_ordinary_object(toy_estimator, toy_records):
    empty = {n: toy_records.survey(n).where(np.zeros((64, 2), bool)) for n in toy_records.surveys}
    sample = toy_estimator(toy_records.with_measurements(empty)).sample(10)
    assert np.isfinite(sample.to_array().values).all()


def test_artefact_round_trip_is_exact(toy_estimator, toy_records, tmp_path):
    again = Estimator.load(toy_estimator.save(tmp_path / "artefact"))
    assert torch.equal(again(toy_records).context, toy_estimator(toy_records).context)
    assert again(toy_records).sample(7).equals(toy_estimator(toy_records).sample(7))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["artefact"]
    assert sorted(p.name for p in (tmp_path / "artefact").iterdir()) == ["estimator.json", "model.safetensors"]


def _edit(folder, **changes):
    file = folder / "estimator.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, **changes}))


@pytest.mark.parametrize("damage", ["truncated weights", "truncated json", "other schema", "no weights", "lost key"])
def test_damaged_artefacts_say_what_to_do(toy_estimator, tmp_path, damage):
    folder = toy_estimator.save(tmp_path / "artefact")
    weights, text = folder / "model.safetensors", folder / "estimator.json"
    if damage == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "truncated json":
        text.write_text(text.read_text()[:500])
    elif damage == "other schema":
        _edit(folder, schema=99)
    elif damage == "no weights":
        weights.unlink()
    else:
        content = json.loads(text.read_text())
        del content["prior"]
        text.write_text(json.dumps(content))
    with pytest.raises(ArtefactError, match="train it again|not an estimator") as error:
        Estimator.load(folder)
    assert "\n" not in str(error.value)


def test_weights_that_fit_nothing_are_refused(toy_estimator, tmp_path):
    folder = toy_estimator.save(tmp_path / "artefact")
    weights = folder / "model.safetensors"
    weights.write_bytes(b"not safetensors at all")
    _edit(folder, weights_sha256=hashlib.sha256(weights.read_bytes()).hexdigest())
    with pytest.raises(ArtefactError):
        Estimator.load(folder)


def test_records_of_unknown_surveys_are_refused(toy_estimator, toy_records):
    renamed = {f"other_{n}": toy_records.survey(n) for n in toy_records.surveys}
    with pytest.raises(SbiDaError, match="other_modality_a"):
        toy_estimator(toy_records.with_measurements(renamed))


def test_a_wrong_unit_is_refused(toy_estimator, toy_records):
    m = toy_records.survey("modality_a")
    wrong = Measurements(m.channels, ("mas", "mas"), m.value, m.error, m.state)
    with pytest.raises(SbiDaError, match="mas"):
        toy_estimator(toy_records.with_measurements({"modality_a": wrong}))


def test_an_observed_nan_is_refused(toy_estimator, toy_records):
    m = toy_records.survey("modality_a")
    value = np.where(m.state != ABSENT, np.nan, m.value)
    with pytest.raises(SbiDaError, match="observed but its value is nan"):
        toy_estimator(toy_records.with_measurements({"modality_a": Measurements(m.channels, m.units, value, m.error, m.state)}))


@pytest.mark.parametrize("error", [1e-300, 1e39])
def test_errors_beyond_single_precision_are_refused(toy_estimator, toy_records, error):
    m = toy_records.survey("modality_a")
    wild = Measurements(m.channels, m.units, m.value, np.full_like(m.error, error), m.state)
    with pytest.raises(SbiDaError, match="observed but its error is"):
        toy_estimator(toy_records.with_measurements({"modality_a": wild}))


def test_saving_never_removes_files_of_others(toy_estimator, tmp_path):
    folder = toy_estimator.save(tmp_path / "artefact")
    toy_estimator.save(folder)
    (folder / "notes.txt").write_text("precious")
    with pytest.raises(SbiDaError, match="something else"):
        toy_estimator.save(folder)
    assert (folder / "notes.txt").read_text() == "precious"
