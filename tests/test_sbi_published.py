"""What is published about working with sbi runs: the page of the docs, and the example."""

import importlib.util
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch

from sbi_da.estimator import Estimator

pytest.importorskip("sbi")
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:effective sample size:UserWarning"),
]

ROOT = Path(__file__).resolve().parents[1]


def test_the_page_of_the_docs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "sbi.md").read_text()
    first, few, refined, second = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    tiny = first.replace("TrainingConfig(epochs=10)", "TrainingConfig(epochs=1, steps_per_epoch=2, batch=32)")
    fewer = few.replace("4000", "100").replace("(validation=400)", "(epochs=1, steps_per_epoch=2, batch=32, validation=40)")
    fewer = fewer.replace("400", "40")
    assert tiny != first and "steps_per_epoch" in fewer
    torch.manual_seed(0)
    exec(compile(tiny + fewer + refined.replace("2000", "200") + second.replace("(500,)", "(100,)"), "docs/sbi.md", "exec"), {})
    assert "ks_pvals" in capsys.readouterr().out and Estimator.load("runs/with-sbi").surveys == ["camera", "meter"]
    plt.close("all")


def test_the_example(tmp_path, capsys):
    spec = importlib.util.spec_from_file_location("with_sbi", ROOT / "examples" / "with_sbi.py")
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    example.main(tmp_path / "picture.png", steps=2)
    assert capsys.readouterr().out.count("TARP area") == 2 and (tmp_path / "picture.png").is_file()
    plt.close("all")
