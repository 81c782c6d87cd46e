"""The command line as a person meets it: what it prints, its exit status, and what it leaves behind."""

import errno
import json
import os
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest

from sbi_da import inference
from sbi_da.cli import main
from sbi_da.estimator import Estimator
from sbi_da.inference import query, summary_units
from sbi_da.records import Records, read_table, write_table
from sbi_da.records.columns import open_source
from sbi_da.runs import build

TINY = ["training.epochs=1", "training.steps_per_epoch=2", "training.batch=32", "training.validation=64"]


@pytest.fixture()
def table(tmp_path, toy_config):
    """A table of the toy's columns: 12 objects, some without some modalities, the last without any."""
    rng = np.random.default_rng(4)
    columns = {"name": np.array([f"star-{i}" for i in range(12)])}
    for survey in build(toy_config)[1]:
        absent = rng.random(12) < 0.3
        absent[-1] = True
        for channel in survey.channels:
            columns[channel.column] = np.where(absent, np.nan, rng.standard_normal(12))
            columns[channel.error_column] = np.where(absent, np.nan, 0.5)
    write_table(tmp_path / "objects.csv", columns)
    return tmp_path / "objects.csv"


def fails(capsys, *argv: str) -> str:
    assert main(list(map(str, argv))) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1 and captured.err.startswith("sbi-da: "), captured.err
    assert "Traceback" not in captured.err
    return captured.err


def test_list_names_everything(capsys):
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    for name in ("gaia", "panstarrs", "stars", "linear_gaussian", "toy"):
        assert f"  {name}" in printed
    assert main(["list", "configs"]) == 0
    assert "gaia" not in capsys.readouterr().out


@pytest.mark.parametrize("command", ["list", "simulate", "train", "align", "evaluate", "query", "cluster"])
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0 and "usage" in capsys.readouterr().out


def test_usage_errors_exit_with_two(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["query"])
    assert stop.value.code == 2


def test_the_whole_way(tmp_path, capsys, table):
    run, records, report = tmp_path / "run", tmp_path / "records.zarr", tmp_path / "report"
    assert main(["simulate", "toy", "--out", str(records), "--n", "150", "--seed", "5"]) == 0
    assert len(Records.open(records)) == 150
    assert main(["train", "toy", *TINY, "--out", str(run), "--quiet"]) == 0
    assert "held-out NLL" in capsys.readouterr().out
    assert main(["evaluate", str(run), str(records), "--out", str(report), "--draws", "60"]) == 0
    metrics = json.loads((report / "metrics.json").read_text())
    assert metrics["overall"]["n"] == 150 and "pattern" in metrics["strata"]
    html = (report / "report.html").read_text()
    assert "<img" in html and "http://" not in html.replace("http://www.w3.org", "") and len(list((report / "figures").iterdir())) >= 4
    assert main(["query", str(run), str(table), "--out", str(tmp_path / "answer.csv"), "--id-column", "name", "--draws", "40"]) == 0
    assert "12 objects, 1 without data" in capsys.readouterr().out
    answer = (tmp_path / "answer.csv").read_text().splitlines()
    assert len(answer) == 13 and "no_data" in answer[-1] and "theta_1_q50" in answer[0]


def test_query_of_one_object_with_some_surveys_and_a_known_parameter(toy_run, table, capsys):
    options = ["--id-column", "name", "--id", "star-3", "--surveys", "modality_a,modality_b", "--given", "theta_2=0.5"]
    assert main(["query", str(toy_run), str(table), *options, "--draws", "50"]) == 0
    printed = capsys.readouterr().out
    assert "star-3" in printed and "star-4" not in printed and "0.5 [0.5, 0.5]" in printed and "modality_c" not in printed


def test_clusters_of_a_table(toy_run, table, tmp_path, capsys):
    lines = table.read_text().splitlines()
    grouped = [lines[0] + ",cluster", *(f"{line},{'ab'[i % 2]}" for i, line in enumerate(lines[1:]))]
    (tmp_path / "grouped.csv").write_text("\n".join(grouped))
    places = [str(toy_run), str(tmp_path / "grouped.csv"), "--out", str(tmp_path / "c.csv")]
    plain = ["cluster", *places, "--id-column", "name", "--draws", "200"]
    options = ["--group-column", "cluster", "--shared", "theta_1", "--contamination", "0:0.5", "--spread", "theta_1=0.2"]
    assert main([*plain, *options, "--members", str(tmp_path / "m.csv")]) == 0
    assert "2 groups of 12 objects" in capsys.readouterr().out
    header, *rows = (tmp_path / "c.csv").read_text().splitlines()
    assert [row[0] for row in rows] == ["a", "b"]
    for name in ("members", "flag", "ess", "theta_1_q50", "theta_1_mc_error", "contamination_mean"):
        assert name in header.split(",")
    members = (tmp_path / "m.csv").read_text().splitlines()
    assert len(members) == 12 and "membership" in members[0] and "theta_2_q50" in members[0], "all but the object without data"
    assert "column group" in fails(capsys, *plain, "--shared", "theta_1")
    assert "theta_9" in fails(capsys, *plain, *options[:2], "--shared", "theta_9")
    assert "0:0.5" in fails(capsys, *plain, *options[:4], "--contamination", "some")
    assert "NAME=NUMBER" in fails(capsys, *plain, *options[:4], "--spread", "theta_1=big")


def test_query_with_refinement(toy_run, table, tmp_path, capsys):
    options = ["--id-column", "name", "--draws", "100", "--out", str(tmp_path / "a.csv")]
    assert main(["query", str(toy_run), str(table), *options, "--refine", "2"]) == 0
    header = (tmp_path / "a.csv").read_text().splitlines()[0]
    assert ",ess,log_evidence," in header and "12 objects, 1 without data" in capsys.readouterr().out
    assert "cannot be held" in fails(capsys, "query", toy_run, table, *options, "--refine", "--given", "theta_1=0")


def test_units_and_column_names_do_not_change_an_answer(toy_run, table, tmp_path):
    estimator = Estimator.load(toy_run)
    lines = [line.split(",") for line in table.read_text().splitlines()]
    flipped = "\n".join(",".join(reversed(line)) for line in lines)
    (tmp_path / "flipped.csv").write_text(flipped)
    surveys = estimator.layout.surveys
    a = estimator(read_table(table, surveys, id_column="name")).sample(30)
    b = estimator(read_table(tmp_path / "flipped.csv", surveys, id_column="name")).sample(30)
    assert np.allclose(a.to_array(), b.to_array(), rtol=1e-6, atol=1e-6)


def test_bad_names(capsys, tmp_path, toy_run, table):
    assert "did you mean toy" in fails(capsys, "train", "toyy", "--out", tmp_path / "r")
    assert "did you mean 'epochs'" in fails(capsys, "train", "toy", "training.epoch=1", "--out", tmp_path / "r")
    assert "training.epochs" in fails(capsys, "train", "toy", "training.epochs=lots", "--out", tmp_path / "r")
    assert "known are" in fails(capsys, "train", "toy", "surveys=[gaja]", "--out", tmp_path / "r")
    assert not (tmp_path / "r").exists()
    assert "modality_a" in fails(capsys, "query", toy_run, table, "--surveys", "modality_z")
    assert "star-99" in fails(capsys, "query", toy_run, table, "--id-column", "name", "--id", "star-99")
    assert "nosuch" in fails(capsys, "query", toy_run, table, "--id-column", "nosuch")
    assert "NAME=NUMBER" in fails(capsys, "query", toy_run, table, "--given", "theta_1=red")
    assert "theta_9" in fails(capsys, "query", toy_run, table, "--given", "theta_9=1")


def misused(capsys, *argv) -> str:
    with pytest.raises(SystemExit) as stop:
        main(list(map(str, argv)))
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_numbers_out_of_range_and_stray_arguments_are_usage_errors(capsys, tmp_path, toy_run, table):
    for option, value in (("--draws", "0"), ("--draws", "many"), ("--seed", "-1")):
        assert f"argument {option}" in misused(capsys, "query", toy_run, table, option, value)
        assert f"argument {option}" in misused(capsys, "evaluate", toy_run, "x.zarr", "--out", tmp_path / "e", option, value)
    for option, value in (("--n", "0"), ("--seed", "-1")):
        assert f"argument {option}" in misused(capsys, "simulate", "toy", "--out", tmp_path / "x.zarr", option, value)
    assert "unrecognized arguments: stray" in misused(capsys, "simulate", "toy", "--out", tmp_path / "x.zarr", "stray")
    assert "unrecognized" in misused(capsys, "simulate", "toy", "--out", tmp_path / "x.zarr", "--a=1")
    assert "unrecognized" in misused(capsys, "query", toy_run, table, "--draws", "5", "seed=1")


def test_overrides_may_follow_the_options(tmp_path, capsys):
    assert main(["simulate", "toy", "--out", str(tmp_path / "a.zarr"), "--n", "20", "seed=7", "simulator.options.noise=1.0"]) == 0
    assert Records.open(tmp_path / "a.zarr").attrs["seed"] == 7
    assert "training.epochs" in fails(capsys, "train", "toy", "seed=1", "--out", tmp_path / "r", "training.epochs=0")


def test_bad_configs_are_refused_in_one_line(capsys, tmp_path):
    cases = {
        "width (50) must be a multiple of heads (4)": ["network.width=50", "network.heads=4"],
        "channel 'G'": ["surveys=[gaia]"],
        "noise: ": ["simulator.options.noise=-1"],
        "one weight for each law": ["missing={kind: mixed, laws: [], weights: []}"],
    }
    for message, overrides in cases.items():
        assert message in fails(capsys, "simulate", "toy", *overrides, "--n", "5", "--out", tmp_path / "x.zarr")
    assert not (tmp_path / "x.zarr").exists()


def test_places_are_checked_before_any_work(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "unknown table format '.xyz'" in fails(capsys, "query", "nothing", "nothing.csv", "--out", "o.xyz")
    assert "exists already" in fails(capsys, "evaluate", "nothing", "nothing.zarr", "--out", ".")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("keep")
    for place in ("notes", "notes/..", "notes/a.txt", "/"):
        assert "exists already" in fails(capsys, "evaluate", "nothing", "nothing.zarr", "--out", place)


def test_failed_writes_say_what_helps(capsys, tmp_path, monkeypatch):
    def stop(error):
        def command(_):
            raise error

        return command

    for code, words in ((errno.ENOSPC, ": free space or choose another place"), (errno.EACCES, ": choose another place"), (errno.EIO, "")):
        monkeypatch.setattr("sbi_da.commands.train.run", stop(OSError(code, os.strerror(code), "some/file")))
        assert fails(capsys, "train", "toy", "--out", tmp_path) == f"sbi-da: some/file: {os.strerror(code)}{words}\n"
    for name in ("train", "simulate"):
        monkeypatch.setattr(f"sbi_da.commands.{name}.run", stop(KeyboardInterrupt()))
        assert main([name, "toy", "--out", str(tmp_path / "r")]) == 1
        assert ("goes on" if name == "train" else "nothing was written") in capsys.readouterr().err


def test_a_prior_must_hold_laws(capsys, tmp_path, toy_run, table):
    (tmp_path / "prior.yaml").write_text("theta_1: 3\n")
    assert "theta_1: must be a law" in fails(capsys, "query", toy_run, table, "--prior", tmp_path / "prior.yaml")


def test_a_broken_card_is_skipped_in_the_list(capsys, tmp_path, monkeypatch):
    import sbi_da.surveys

    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "card.yaml").write_text("name: [")
    monkeypatch.setattr(sbi_da.surveys, "__path__", [*sbi_da.surveys.__path__, str(tmp_path)])
    assert main(["list", "surveys"]) == 0
    captured = capsys.readouterr()
    assert "  gaia" in captured.out and captured.err.startswith("sbi-da: survey 'broken' is broken") and captured.err.count("\n") == 1


def test_only_the_surveys_asked_for_are_read(toy_run, table, capsys):
    lines = [line.split(",") for line in table.read_text().splitlines()]
    column = lines[0].index("modality_a_0_error")
    for line in lines[1:]:
        line[column] = "-1"
    spoilt = table.with_name("spoilt.csv")
    spoilt.write_text("\n".join(map(",".join, lines)))
    options = ["--draws", "20", "--surveys", "modality_b"]
    assert main(["query", str(toy_run), str(spoilt), *options, "--out", str(table.with_name("b.csv"))]) == 0
    assert main(["query", str(toy_run), str(table), *options, "--out", str(table.with_name("c.csv"))]) == 0
    assert table.with_name("b.csv").read_text() == table.with_name("c.csv").read_text()


def test_records_take_no_options_of_tables(toy_run, tmp_path, capsys):
    from sbi_da.config import load_config
    from sbi_da.runs import build as make
    from sbi_da.simulation import simulate

    simulator, surveys, _ = make(load_config("toy"))
    simulate(simulator, surveys[:2], 5).save(tmp_path / "two.zarr")
    assert "--id-column" in fails(capsys, "query", toy_run, tmp_path / "two.zarr", "--id-column", "name")
    assert "--unit)" in fails(capsys, "query", toy_run, tmp_path / "two.zarr", "--unit", "a=mag")
    assert "modality_c" in fails(capsys, "query", toy_run, tmp_path / "two.zarr", "--surveys", "modality_c")


def test_units_on_the_command_line(toy_run, table, capsys):
    assert "no column 'nosuch'" in fails(capsys, "query", toy_run, table, "--unit", "nosuch=mag")
    assert "COLUMN=UNIT" in fails(capsys, "query", toy_run, table, "--unit", "modality_a_0")
    assert "unknown unit 'quux'" in fails(capsys, "query", toy_run, table, "--unit", "modality_a_0=quux")
    assert main(["query", str(toy_run), str(table), "--unit", "modality_a_0= ", "--draws", "5"]) == 0


def test_results_carry_units(toy_run, toy_records, tmp_path):
    from dataclasses import replace

    estimator = Estimator.load(toy_run)
    for name, unit in (("theta_1", "pc"), ("theta_2", "dex(yr)")):
        estimator.parameters_info[name] = replace(estimator.parameters_info[name], unit=unit)
    units = summary_units(estimator)
    assert units["theta_1_q50"] == "pc" and len(units) == 7
    for suffix in (".fits", ".ecsv", ".vot"):
        path = write_table(tmp_path / f"a{suffix}", query(estimator, toy_records, 10), units)
        source = open_source(path)
        assert source.column("theta_1_mean").unit == "pc" and source.column("theta_2_mean").unit is None


def test_chunks_do_not_change_an_answer(toy_run, toy_records, monkeypatch):
    estimator = Estimator.load(toy_run)
    prior = {"theta_1": {"kind": "normal", "mean": 0.5, "sd": 0.8, "low": -8, "high": 8}}
    whole = query(estimator, toy_records, 200), query(estimator, toy_records, 200, prior=prior)
    monkeypatch.setattr(inference, "CHUNK", 10)
    parts = query(estimator, toy_records, 200), query(estimator, toy_records, 200, prior=prior)
    for a, b in zip(whole, parts, strict=True):
        assert list(a) == list(b)
        for name, values in a.items():
            if values.dtype.kind == "f":
                np.testing.assert_allclose(values, b[name], rtol=1e-4, atol=1e-4)
            else:
                assert (values == b[name]).all()
    assert "ess" not in whole[0] and (whole[1]["ess"] > 0).all()
    summary = estimator(toy_records).summary(200)
    for statistic in summary.data_vars:
        np.testing.assert_allclose(whole[0][f"theta_2_{statistic}"], summary[statistic].sel(parameter="theta_2"), rtol=1e-9)


def test_few_effective_draws_are_flagged(toy_run, toy_records, table, tmp_path, capsys):
    estimator = Estimator.load(toy_run)
    far = {"theta_1": {"kind": "uniform", "low": 7.9, "high": 8.0}}
    with pytest.warns(UserWarning, match="effective sample size") as caught:
        columns = query(estimator, toy_records, 50, prior=far)
    assert len(caught) == 1
    lost = columns["ess"] == 0
    assert lost.any() and np.isnan(columns["theta_2_q50"][lost]).all()
    assert all("outside_prior" in flag and "low_ess" not in flag for flag in columns["flag"][lost])
    assert all(("low_ess" in flag) == (ess < 25) for flag, ess in zip(columns["flag"][~lost], columns["ess"][~lost], strict=True))
    (tmp_path / "far.yaml").write_text("theta_1: {kind: uniform, low: 7.9, high: 8.0}\n")
    options = ["--prior", str(tmp_path / "far.yaml"), "--draws", "50"]
    assert main(["query", str(toy_run), str(table), *options, "--out", str(tmp_path / "a.csv")]) == 0
    assert "few effective draws" in capsys.readouterr().out


def test_the_demo_skips_views_a_table_lacks():
    import importlib.util
    from pathlib import Path

    spec = importlib.util.spec_from_file_location("demo_script", Path(__file__).parents[1] / "examples" / "demo.py")
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    assert list(demo.views(["gaia", "twomass", "wise"])) == ["all surveys", "Gaia + WISE", "Gaia only"]
    assert list(demo.views(["gaia"])) == ["all surveys", "Gaia only"] and list(demo.views(["wise"])) == ["all surveys"]


def test_bad_files(capsys, tmp_path, toy_run, table):
    assert "nowhere.csv" in fails(capsys, "query", toy_run, tmp_path / "nowhere.csv")
    assert "not an estimator" in fails(capsys, "query", tmp_path, table)
    assert "no such records" in fails(capsys, "evaluate", toy_run, tmp_path / "nothing.zarr", "--out", tmp_path / "e")
    (tmp_path / "empty.csv").write_text(table.read_text().splitlines()[0] + "\n")
    assert "empty.csv" in fails(capsys, "query", toy_run, tmp_path / "empty.csv")
    text = table.read_text()
    cases = {
        "twice.csv": (text.replace("star-5", "star-4"), "star-4"),
        "negative.csv": (text.replace(",0.5", ",-0.5", 1), "error"),
        "zero.csv": (text.replace(",0.5", ",0.0", 1), "error"),
        "infinite.csv": (text.replace(",0.5", ",inf", 1), "inf"),
        "text.csv": (text.replace(",0.5", ",bright", 1), "bright"),
        "other.csv": ("a,b\n1,2\n", "modality_a"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_text(content)
        options = ["--id-column", "name"] if name != "other.csv" else []
        printed = fails(capsys, "query", toy_run, tmp_path / name, *options, "--out", tmp_path / "answer.csv")
        assert message in printed and name in printed, (name, printed)
        assert not (tmp_path / "answer.csv").exists()


def test_broken_artefacts(capsys, tmp_path, toy_run, table):
    run = tmp_path / "run"
    shutil.copytree(toy_run, run)
    weights = run / "estimator" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    assert "truncated or altered" in fails(capsys, "query", run, table)
    weights.write_bytes(whole)
    file = run / "estimator" / "estimator.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "schema": 0}))
    assert "schema 0" in fails(capsys, "query", run, table)


def test_what_exists_is_not_overwritten(capsys, tmp_path, toy_run):
    (tmp_path / "records.zarr").mkdir()
    assert "exists already" in fails(capsys, "simulate", "toy", "--out", tmp_path / "records.zarr")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("keep")
    assert main(["simulate", "toy", "--out", str(tmp_path / "small.zarr"), "--n", "60"]) == 0
    capsys.readouterr()
    assert "something else" in fails(capsys, "evaluate", toy_run, tmp_path / "small.zarr", "--out", tmp_path / "notes", "--draws", "20")
    assert (tmp_path / "notes" / "a.txt").read_text() == "keep"


@pytest.mark.parametrize("command", ["simulate", "train", "query", "evaluate"])
def test_a_full_disk_leaves_nothing_half_written(command, tmp_path, toy_run, table):
    """A limit on file size stands for a full disk: every write past it fails."""
    subprocess.run([sys.executable, "-m", "sbi_da.cli", "simulate", "toy", "--n", "80", "--out", tmp_path / "some.zarr"], check=True)
    (tmp_path / "big.csv").write_text(_long(table, 3000))
    argv = {
        "simulate": ["simulate", "toy", "--n", "20000", "--out", "new"],
        "train": ["train", "toy", *TINY, "--out", "new", "--quiet"],
        "query": ["query", str(toy_run), "big.csv", "--draws", "5", "--out", "new.csv"],
        "evaluate": ["evaluate", str(toy_run), "some.zarr", "--draws", "20", "--out", "new"],
    }[command]
    before = set(os.listdir(tmp_path))
    done = subprocess.run(
        [sys.executable, "-m", "sbi_da.cli", *argv], cwd=tmp_path, capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, 16_000)),
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().count("\n") == 0 and "free space" in done.stderr, done.stderr
    left = set(os.listdir(tmp_path)) - before
    if command == "train":  # the run can go on; it holds no artefact and no half-written checkpoint
        assert not (tmp_path / "new" / "estimator").exists() and not list(tmp_path.glob("new/checkpoints/*"))
    else:
        assert not left, left


def _long(table, rows: int) -> str:
    header, first = table.read_text().splitlines()[:2]
    return "\n".join([header, *(first.replace("star-0", f"s{i}") for i in range(rows))])
