"""Answers computed on another device than the processor, and devices that are not there."""

import numpy as np
import pytest
import torch
from catalogue_tables import answer_rows, untrained_answerer
from second_device import second_device

from sbi_da.catalog import Question, infer
from sbi_da.catalog.answering import Answerer
from sbi_da.catalog.devices import usable
from sbi_da.catalog.rows import read_rows
from sbi_da.errors import SbiDaError
from sbi_da.posteriors.recalibration import Invertible, Recalibration
from sbi_da.records import write_table
from sbi_da.records.columns import open_source

QUESTION = Question(draws=20, id_column="source_id", correlations=True)


@pytest.mark.parametrize("head", ["spline", "mixture", "flow_matching", "few_step"])
def test_another_device_answers_alike(toy_config, table, head, monkeypatch):
    monkeypatch.setattr("sbi_da.posteriors.posterior.MANY_ROWS", 6000)  # it is the processor after all
    answerer = untrained_answerer(toy_config, head)
    estimator = answerer.estimator
    if isinstance(estimator.head, Invertible):
        size = len(estimator.parameter_names)
        estimator.recalibration = Recalibration(0.1 * torch.ones(size), 1.2 * torch.eye(size))
    rows = read_rows(open_source(table), estimator.layout.surveys, QUESTION, "source_id")
    here = answerer(rows, QUESTION)
    with second_device() as device:
        there = answerer.to(device)(rows, QUESTION)
    assert here.keys() == there.keys() and "p_fault" in here
    for name, values in here.items():
        if np.asarray(values).dtype.kind == "f":
            np.testing.assert_allclose(there[name], values, rtol=2e-4, atol=2e-4, err_msg=name)
        else:
            assert (np.asarray(there[name]) == np.asarray(values)).all(), name


def test_the_second_device_is_one():
    with second_device() as device:
        with pytest.raises(RuntimeError, match="two devices"):
            torch.ones(3, device=device) + torch.ones(3)
        with pytest.raises(RuntimeError):
            torch.ones(3, device=device).numpy()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_a_device_that_is_not_there(tmp_path, toy_run):
    assert usable(None) == "cpu"
    with pytest.raises(SbiDaError, match="'cuda': PyTorch sees 0 such devices here: use cpu"):
        infer(toy_run, tmp_path / "a.parquet", tmp_path / "out", device="cuda")
    with pytest.raises(SbiDaError, match="'gpu': is none of cpu, cuda"):
        usable("gpu")
    assert not (tmp_path / "out").exists()


def test_bfloat16_moves_answers_by_less_than_sampling_noise_and_alone(toy_run, table):
    """The noise of a mean of a hundred draws is a tenth of a standard deviation."""
    answerer, question = Answerer.load(toy_run), QUESTION.model_copy(update={"draws": 100})
    exact = answer_rows(answerer, table, np.arange(300), question)
    question = question.model_copy(update={"bf16": True})
    rough = answer_rows(answerer, table, np.arange(300), question)
    away = np.stack([(rough[f"theta_{k}_mean"] - exact[f"theta_{k}_mean"]) / exact[f"theta_{k}_sd"] for k in (1, 2, 3)])
    assert 0 < np.sqrt((away**2).mean()) < 0.03
    part = answer_rows(answerer, table, np.arange(40, 60), question)
    assert all(np.asarray(v)[40:60].tobytes() == np.asarray(part[k]).tobytes() for k, v in rough.items())


def test_an_inference_ends_on_the_kind_of_device_it_began_on(tmp_path, toy_run, table):
    path = write_table(tmp_path / "a.parquet", table)
    infer(toy_run, path, tmp_path / "out", QUESTION, 1, device="cpu")
    manifest = tmp_path / "out" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"device": "cpu"', '"device": "cuda"'))
    with pytest.raises(SbiDaError, match="begun with device cuda, not cpu: go on with --device cuda"):
        infer(toy_run, path, tmp_path / "out", QUESTION, 1, device="cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no graphics processor")
def test_a_graphics_processor_answers_alike(toy_run, table):
    answerer = Answerer.load(toy_run)
    rows = read_rows(open_source(table), answerer.estimator.layout.surveys, QUESTION, "source_id")
    here = answerer(rows, QUESTION)
    there = answerer.to("cuda")(rows, QUESTION)
    for name in answerer.estimator.parameter_names:
        np.testing.assert_allclose(there[f"{name}_mean"], here[f"{name}_mean"], rtol=1e-3, atol=1e-3)
