"""Catalogues that are wrong in any way: never a traceback, never a row lost. ``--malformed N`` says how many are tried."""

import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from malformed_tables import tables, texts

from sbi_da.catalog import Question, infer
from sbi_da.config import load_config
from sbi_da.errors import SbiDaError
from sbi_da.runs import build, sources_of
from sbi_da.trust import TrustTraining, learn_reference

QUESTIONS = [
    {}, {}, {"id_column": "source_id"}, {"surveys": ("gaia",)}, {"keep": ("source_id",)}, {"keep": ("ra",)}, {"keep": ("",)},
    {"refine": 1}, {"refine": 3}, {"bf16": True},
]
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Untrained, with a reference for the trust columns and a likelihood to refine by."""
    changes = ["surveys=[gaia,twomass,wise]", "derived=[]", "network.head=mixture", "network.hidden=[16]", "network.blocks=1"]
    estimator = build(load_config("demo", changes))[2].eval()
    run = estimator.save(tmp_path_factory.mktemp("malformed") / "run")
    how = TrustTraining(steps=2, batch=64, objects=4000, width=16, fault_width=16)
    learn_reference(estimator, sources_of(estimator), how).save(run, run)
    return run


def tried(path, run, out, **question):
    """The manifest, or None where it was refused in one line and nothing was left."""
    shutil.rmtree(out, ignore_errors=True)
    try:
        return infer(run, path, out, Question(draws=10, **question), 1)
    except SbiDaError as error:
        assert "\n" not in str(error) and str(error) and not out.exists()
        return None


def test_malformed_tables(run, tmp_path, pytestconfig):
    path, out = tmp_path / "a.parquet", tmp_path / "out"
    answered = 0

    @settings(max_examples=pytestconfig.getoption("malformed"), deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(tables(), st.sampled_from(QUESTIONS))
    def check(table, question):
        nonlocal answered
        pq.write_table(table, path)
        manifest = tried(path, run, out, **question)
        if manifest is None:
            return
        answered += 1
        found, aside = pq.read_table(out / "objects"), pq.read_table(out / "rejected.parquet")
        assert manifest["counts"] == {"rows": len(table), "answered": len(found), "rejected": len(aside)}
        assert len(found) + len(aside) == len(table)
        assert all(aside["reason"].to_pylist()) and set(aside["row"].to_pylist()) <= set(range(len(table)))
        for name in found.column_names:
            if name in question.get("keep", ()):
                index = np.delete(np.arange(len(table)), aside["row"].to_numpy())
                kept = table[name].cast(found[name].type).to_pylist()
                assert repr(found[name].to_pylist()) == repr([kept[i] for i in index])
            elif pa.types.is_floating(found.schema.field(name).type) and not name.startswith("p_"):
                lost = found["ess"].to_numpy() == 0 if question.get("refine") else np.zeros(len(found), bool)
                if name == "edge" and question.get("refine"):  # of draws that are all alike nothing can be said
                    lost |= np.any([found[n].to_numpy() == 0 for n in found.column_names if n.endswith("_sd")], axis=0)
                assert np.isfinite(found[name].to_numpy()[~lost]).all(), name

    check()
    assert answered > 5


def test_malformed_texts(run, tmp_path, pytestconfig):
    path, out = tmp_path / "a.csv", tmp_path / "out"

    @settings(max_examples=pytestconfig.getoption("malformed"), deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(texts())
    def check(content):
        path.write_bytes(content)
        manifest = tried(path, run, out)
        if manifest is not None:
            found, aside = pq.read_table(out / "objects"), pq.read_table(out / "rejected.parquet")
            lines = [line for line in content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")[1:] if line]
            assert manifest["counts"]["rows"] == len(found) + len(aside) <= len(lines) + 1

    check()


@settings(max_examples=20, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([".parquet", ".csv", ".fits", ".ecsv", ".vot", ".fits.gz"]))
def test_no_tables_at_all(run, tmp_path_factory, content, suffix):
    folder = tmp_path_factory.mktemp("junk")
    path = folder / f"a{suffix}"
    path.write_bytes(content)
    assert tried(path, run, folder / "out") is None
