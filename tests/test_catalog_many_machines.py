"""HATS catalogues, and Dask workers of which one is killed."""

import os
import shutil
import signal
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from catalogue_tables import QUESTION, contents, folder_of

from sbi_da.catalog import answer_frame, infer
from sbi_da.errors import SbiDaError
from sbi_da.records import write_table

lsdb = pytest.importorskip("lsdb")
distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def sky(table, tmp_path_factory):
    import pandas as pd

    rng = np.random.default_rng(0)
    frame = pd.DataFrame({**table, "ra": rng.uniform(0, 360, 300), "dec": np.degrees(np.arcsin(rng.uniform(-1, 1, 300)))})
    catalogue = lsdb.from_dataframe(frame, ra_column="ra", dec_column="dec", catalog_name="sky", partition_rows=40)
    place = tmp_path_factory.mktemp("hats") / "sky"
    catalogue.write_catalog(place)
    return place


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        yield cluster


def test_hats_in_hats_out(tmp_path, toy_run, sky, table):
    manifest = infer(toy_run, sky, tmp_path / "out", QUESTION, 1)
    assert manifest["counts"] == {"rows": 300, "answered": 300, "rejected": 0} and len(manifest["partitions"]) >= 12
    asked, found = lsdb.open_catalog(sky), lsdb.open_catalog(tmp_path / "out" / "objects")
    assert asked.get_healpix_pixels() == found.get_healpix_pixels() and len(found) == 300
    rows = found.compute()
    assert set(rows["id"]) == set(table["source_id"]) and np.isfinite(rows["theta_1_mean"]).all()
    both = asked.crossmatch(found, n_neighbors=1, radius_arcsec=0.1, suffixes=("", "_found"), suffix_method="all_columns").compute()
    assert len(both) == 300 and (both["source_id"] == both["id_found"]).all()


def test_hats_files_of_other_types_are_refused(tmp_path, toy_run, sky):
    place = shutil.copytree(sky, tmp_path / "sky")
    victim = sorted(place.rglob("Npix=*.parquet"))[3]
    held = pq.ParquetFile(victim).read()
    index = held.schema.get_field_index("source_id")
    pq.write_table(held.set_column(index, "source_id", held["source_id"].cast(pa.string())), victim)
    with pytest.raises(SbiDaError, match=f"{victim.name}: column 'source_id' is text, in .* int64: a HATS catalogue has one type"):
        infer(toy_run, place, tmp_path / "out", QUESTION, 1)
    assert not (tmp_path / "out").exists()


def test_dask_gives_the_same_bytes(tmp_path, toy_run, table, cluster):
    path = folder_of(table, tmp_path / "catalogue", 20)
    infer(toy_run, path, tmp_path / "whole", QUESTION, 1)
    infer(toy_run, path, tmp_path / "out", QUESTION, dask=cluster.scheduler_address)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_dask_worker_that_is_killed(tmp_path, toy_run, table, cluster):
    path = folder_of(table, tmp_path / "catalogue", 10)
    infer(toy_run, path, tmp_path / "whole", QUESTION, 1)
    victim = next(iter(cluster.workers.values())).pid

    def kill():
        while not list((tmp_path / "out").rglob("done/*.json")):
            time.sleep(0.01)
        os.kill(victim, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    infer(toy_run, path, tmp_path / "out", QUESTION, dask=cluster.scheduler_address)
    thread.join()
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_a_scheduler_that_is_lost(tmp_path, toy_run, table, monkeypatch):
    path = folder_of(table, tmp_path / "catalogue", 20)
    infer(toy_run, path, tmp_path / "whole", QUESTION, 1)
    monkeypatch.setattr("sbi_da.catalog.dask_workers.TIMEOUT", "2s")
    with distributed.LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        address = cluster.scheduler_address
        with pytest.raises(SbiDaError, match="the scheduler at .* was lost: start it again, and the same command goes on"):
            infer(toy_run, path, tmp_path / "out", QUESTION, dask=address, told=lambda done, total: cluster.close() if done else None)
    infer(toy_run, path, tmp_path / "out", QUESTION, 1)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def test_nobody_answers(tmp_path, toy_run, table, monkeypatch):
    path = folder_of(table, tmp_path / "catalogue", 150)
    monkeypatch.setattr("sbi_da.catalog.dask_workers.TIMEOUT", "1s")
    with pytest.raises(SbiDaError, match="no scheduler answers there"):
        infer(toy_run, path, tmp_path / "out", QUESTION, dask="tcp://127.0.0.1:9")
    assert not (tmp_path / "out").exists()
    assert pq.read_table(path).num_rows == 300


def test_a_cross_match_whose_unmatched_sides_are_absent(tmp_path, toy_run, table):
    import pandas as pd

    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 90, 60), rng.uniform(-30, 30, 60)
    near = {name: values[:60] for name, values in table.items() if name.startswith(("source_id", "modality_a", "modality_b"))}
    far = {name: values[:40] for name, values in table.items() if name.startswith(("modality_c", "modality_d"))}
    one = lsdb.from_dataframe(pd.DataFrame({**near, "ra": ra, "dec": dec}), ra_column="ra", dec_column="dec", catalog_name="one")
    two = lsdb.from_dataframe(pd.DataFrame({**far, "ra": ra[:40], "dec": dec[:40]}), ra_column="ra", dec_column="dec", catalog_name="two")
    sky = one.crossmatch(two, n_neighbors=1, radius_arcsec=1, how="left", suffix_method="overlapping_columns")
    found = sky.map_partitions(answer_frame, run=str(toy_run), question=QUESTION).compute().sort_values("id")
    whole = {name: values[:60].copy() for name, values in table.items()}
    for name in far:
        whole[name][40:] = np.nan
    asked = infer(toy_run, write_table(tmp_path / "a.parquet", whole), tmp_path / "out", QUESTION, 1)
    assert asked["counts"]["answered"] == len(found) == 60
    known = pq.read_table(tmp_path / "out" / "objects").sort_by("id")
    for name in ("theta_1_mean", "theta_2_q05", "flags"):
        assert np.array_equal(found[name].to_numpy(), known[name].to_numpy())
    assert found["surveys"].tolist() == known["surveys"].to_pylist()


def test_frames_keep_their_rows(toy_run, table):
    import pandas as pd

    frame = pd.DataFrame({name: values[:5] for name, values in table.items()})
    frame["source_id"] = frame["source_id"].astype(float)
    frame.loc[2, "source_id"] = np.nan
    frame.index = [9, 8, 7, 6, 5]
    found = answer_frame(frame, toy_run, QUESTION)
    assert found.index.tolist() == [9, 8, 7, 6, 5] and found["flags"].tolist()[2] == 64
    assert np.isnan(found["theta_1_mean"].iloc[2]) and found["theta_1_mean"].notna().sum() == 4
    assert answer_frame(frame.iloc[:0], toy_run, QUESTION).columns.tolist() == found.columns.tolist()
    with pytest.raises(SbiDaError, match="no row numbers"):
        answer_frame(frame, toy_run, QUESTION.model_copy(update={"id_column": None}))
