"""Inference over catalogues that is killed, interrupted, or runs out of disk, and goes on."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
from catalogue_tables import QUESTION, contents, folder_of

from sbi_da.catalog import Question, infer


def test_several_workers_killed_and_resumed(tmp_path, toy_run, table):
    path = folder_of(table, tmp_path / "catalogue", 20)
    infer(toy_run, path, tmp_path / "whole", QUESTION, 1)
    command = [
        sys.executable, "-m", "sbi_da.cli", "infer", str(toy_run), str(path), "--out", str(tmp_path / "out"), "--workers", "2",
        "--draws", "20", "--keep-draws", "4", "--correlations", "--id-column", "source_id", "--quiet",
    ]
    process = subprocess.Popen(command)
    while not list((tmp_path / "out").rglob("done/*.json")) and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out" / "manifest.json").exists()
    (tmp_path / "out" / "objects" / f".{os.getpid()}.partial.left.parquet").write_bytes(b"half")
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0 and "300 objects in 15 files" in said.stdout, said.stderr
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_interrupted_by_hand(tmp_path, toy_run, table):
    path = folder_of(table, tmp_path / "catalogue", 5)
    command = [
        sys.executable, "-m", "sbi_da.cli", "infer", str(toy_run), str(path), "--out", str(tmp_path / "out"), "--workers", "2",
        "--draws", "20", "--keep-draws", "4", "--correlations", "--id-column", "source_id",
    ]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # jobs in the background are born deaf to it
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, **pipes, text=True, start_new_session=True, preexec_fn=heard)
    while not list((tmp_path / "out").rglob("done/*.json")) and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1 and said == "sbi-da: interrupted; the same command goes on from the last finished partition\n"
    infer(toy_run, path, tmp_path / "whole", QUESTION, 1)
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.skipif(not os.path.exists("/proc/self/task"), reason="finds workers by /proc")
def test_a_worker_that_is_killed(tmp_path, toy_run, table):
    path = folder_of(table, tmp_path / "catalogue", 2)
    command = [sys.executable, "-m", "sbi_da.cli", "infer", str(toy_run), str(path), "--out", str(tmp_path / "out"), "--workers", "2"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not list((tmp_path / "out").rglob("done/*.json")) and process.poll() is None:
        time.sleep(0.01)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    workers = [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(workers[0], signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 2 and said.count("\n") == 1 and "a worker was ended from outside" in said, said
    assert infer(toy_run, path, tmp_path / "out", Question(), 1)["counts"]["answered"] == 300


def test_a_script_without_a_guard(tmp_path, toy_run, table):
    path = folder_of(table, tmp_path / "catalogue", 150)
    script = tmp_path / "script.py"
    script.write_text(
        "from sbi_da.catalog import Question, infer\n"
        f"print(infer({str(toy_run)!r}, {str(path)!r}, {str(tmp_path / 'out')!r}, Question(draws=10), 2)['counts']['answered'])\n"
    )
    said = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert (said.returncode, said.stdout) == (0, "300\n"), said.stderr


def test_a_full_disk(tmp_path, toy_run, table):
    path = folder_of(table, tmp_path / "catalogue", 100)
    infer(toy_run, path, tmp_path / "whole", Question(draws=100, kept_draws=100, id_column="source_id"), 1)
    command = [
        sys.executable, "-m", "sbi_da.cli", "infer", str(toy_run), str(path), "--out", str(tmp_path / "out"), "--workers", "1",
        "--keep-draws", "100", "--id-column", "source_id", "--quiet",
    ]
    limited = ["bash", "-c", 'ulimit -f 40; exec "$@"', "limited", *command]  # no file may be larger than 40 KiB
    said = subprocess.run(limited, capture_output=True, text=True, check=False)
    assert said.returncode == 2 and said.stderr.count("\n") == 1, said.stderr
    assert "cannot be written" in said.stderr and "free space" in said.stderr
    assert not list(tmp_path.glob("out/**/*partial*"))
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")
