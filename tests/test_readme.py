"""What the README tells a newcomer to type works as typed, on a training cut down to a few steps."""

import re
import shlex
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from sbi_da.cli import main

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
TINY = [
    "training.epochs=1", "training.steps_per_epoch=2", "training.batch=64", "training.validation=64",
    "network={width: 8, layers: 1, heads: 2, summary: 16, blocks: 1, context: 16, transforms: 2, bins: 4, hidden: [16]}",
]


@pytest.fixture()
def newcomer(tmp_path, monkeypatch):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    sample = pq.read_table(ROOT / "examples" / "green2020_sample.parquet")
    pq.write_table(sample.slice(0, 50), tmp_path / "labels.parquet")
    (tmp_path / "my-catalogue").mkdir()
    pq.write_table(sample.slice(0, 50), tmp_path / "my-catalogue" / "part.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore:given")
def test_the_lines_of_python(newcomer, capsys):
    code = next(body for language, body in BLOCKS if language == "python")
    assert len(code.strip().splitlines()) <= 11
    assert 'load_config("stars")' in code
    exec(compile(code.replace('load_config("stars")', f'load_config("stars", {TINY!r})'), "README.md", "exec"), {})
    assert "parameter" in capsys.readouterr().out


def test_the_commands(newcomer, capsys):
    block = next(body for _, body in BLOCKS if "sbi-da train" in body)
    commands = [shlex.split(line, comments=True) for line in block.strip().splitlines()]
    assert [c[1] for c in commands] == ["list", "simulate", "train", "evaluate", "query", "infer", "align"]
    for command in commands:
        ours = {"my-table.fits": "examples/green2020_sample.parquet", "my-labels.fits": "labels.parquet"}
        argv = [ours.get(a, a) for a in command[1:]]
        argv = ["300" if a == "10000" else a for a in argv]
        if argv[0] in ("train", "simulate"):
            argv[2:2] = TINY
        if argv[0] == "evaluate":
            argv += ["--draws", "30"]
        if argv[0] in ("query", "infer"):
            argv += ["--draws", "30"]
        if argv[0] == "align":
            argv += ["--quiet", "alignment.epochs=1", "alignment.steps_per_epoch=2", "alignment.batch=32"]
        assert main(argv) == 0, argv
    trusting = next(body for _, body in BLOCKS if "sbi-da trust" in body)
    for line in trusting.strip().splitlines():
        argv = ["my-catalogue/" if a == "gaia-hats/" else "trusted" if a == "answers" else a for a in shlex.split(line)[1:]]
        assert main(argv + (["--steps", "5"] if argv[0] == "trust" else ["--draws", "30"])) == 0, argv
    assert {"p_all", "teff_q50"} <= set(pq.read_schema(newcomer / "trusted" / "objects" / "part.parquet").names)
    assert pq.read_table(newcomer / "answers" / "objects").num_rows == 50
    assert (newcomer / "posteriors.parquet").is_file() and (newcomer / "evaluation" / "report.html").is_file()


def test_files_the_readme_points_to_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert "://" in target or (ROOT / target).exists(), target
