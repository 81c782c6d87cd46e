"""`sbi-da align` as a person meets it."""

import json

import numpy as np
import pytest

from sbi_da.cli import main
from sbi_da.estimator import Estimator
from sbi_da.records import write_table
from sbi_da.simulation import simulate
from sbi_da.simulators import get_simulator

TINY = ["alignment.epochs=1", "alignment.steps_per_epoch=2", "alignment.batch=32"]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Real objects of the toy with labels of two parameters, and some without."""
    folder = tmp_path_factory.mktemp("real")
    simulator = get_simulator("linear_gaussian")
    for name, n in (("labelled", 60), ("plain", 80)):
        records = simulate(simulator, simulator.surveys(), n, 1)
        columns = {"name": np.array([f"{name}-{i}" for i in range(n)])}
        for survey in simulator.surveys():
            m = records.survey(survey.name)
            for k, channel in enumerate(survey.channels):
                columns[channel.column], columns[channel.error_column] = m.value[:, k] + 0.5, m.error[:, k]
        if name == "labelled":
            columns["one"] = np.zeros(n, int)
            columns |= {"t1": records.parameters["theta_1"], "t1_sd": np.full(n, 0.1), "t2": records.parameters["theta_2"]}
        write_table(folder / f"{name}.csv", columns)
    return folder


def fails(capsys, *argv):
    assert main([str(a) for a in argv]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and captured.err.startswith("sbi-da: "), captured.err
    return captured.err


def test_the_whole_way(toy_run, tables, tmp_path, capsys):
    out = tmp_path / "aligned"
    status = main([
        "align", str(toy_run), "--labelled", str(tables / "labelled.csv"), "--label", "theta_1=t1:t1_sd", "--label", "theta_2=t2:0.05",
        "--id-column", "name", "--out", str(out), "--quiet", *TINY,
    ])
    printed = capsys.readouterr()
    assert status == 0
    told = json.loads((out / "alignment.json").read_text())
    assert told["verdict"]["reason"] in printed.out
    kept = told["verdict"]["kept"]
    assert ("aligned estimator" in printed.out.replace("unaligned", "")) == kept
    assert ("alignment is not used" in printed.err) != kept
    assert Estimator.load(out).metadata["alignment"]["labelled"] == 60
    assert main(["query", str(out), str(tables / "plain.csv"), "--id-column", "name", "--draws", "20"]) == 0


def test_without_labels(toy_run, tables, tmp_path, capsys):
    out = tmp_path / "aligned"
    argv = ["align", toy_run, "--real", tables / "plain.csv", "--id-column", "name", "--out", out, "--quiet", *TINY]
    assert main([str(a) for a in argv]) == 0
    printed = capsys.readouterr().out
    assert "held-out objects without labels" in printed and "nats" in printed


def test_bad_input_is_one_line_and_leaves_nothing(toy_run, tables, tmp_path, capsys):
    out = tmp_path / "aligned"
    start = ("align", toy_run, "--out", out, "--quiet")
    labelled = ("--labelled", tables / "labelled.csv", "--id-column", "name")
    assert "needs labelled real objects" in fails(capsys, *start)
    assert "all of one group" in fails(capsys, *start, *labelled, "--label", "theta_1=t1:t1_sd", "--group-column", "one")
    assert "not training.epochs=3" in fails(capsys, *start, *labelled, "training.epochs=3")
    assert "theta_9" in fails(capsys, *start, *labelled, "--label", "theta_9=t1")
    assert "no column" in fails(capsys, *start, *labelled, "--label", "theta_1=nowhere")
    assert "--label" in fails(capsys, *start, *labelled, "--label", "theta_1")
    assert "not given" in fails(capsys, *start, "--label", "theta_1=t1")
    assert "carry none of" in fails(capsys, *start, *labelled)
    assert "did you mean 'epochs'" in fails(capsys, *start, *labelled, "alignment.epoch=3")
    assert "sinkhorn" in fails(capsys, *start, *labelled, "alignment.terms=[{kind: sinkhron}]")
    assert not out.exists()
