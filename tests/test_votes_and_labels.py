"""Votes on several questions and labels of which an object may have many, from training to the commands."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from small_votes import ANSWERS, RATES, SHARES, STRENGTH, camera, target_config, voted, world

from sbi_da.cli import main
from sbi_da.config import Config
from sbi_da.errors import ConfigError, SbiDaError, TableError
from sbi_da.estimator import Estimator
from sbi_da.evaluation import evaluate
from sbi_da.inference import query
from sbi_da.records import Records
from sbi_da.records.image_sets import read_galaxy_zoo
from sbi_da.runs import train, untrained
from sbi_da.surveys import get_survey


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("votes")


@pytest.fixture(scope="module")
def votes_run(place):
    train(target_config(place, "votes", ["shape", "bar"], epochs=12), place / "votes", progress=False)
    return place / "votes"


@pytest.fixture(scope="module")
def labels_run(place):
    train(target_config(place, "labels", list(RATES)), place / "labels", progress=False)
    return place / "labels"


def test_an_estimator_of_votes_recovers_true_fractions(votes_run):
    estimator = Estimator.load(votes_run)
    assert estimator.target == "votes" and estimator.parameter("shape").classes == ANSWERS["shape"] and not estimator.classes
    fresh = voted(1000, seed=5)
    posterior = estimator(fresh)
    kind = fresh.columns["kind"]
    for k in (0, 1):
        assert posterior.fractions("shape").values[kind == k].mean(0) == pytest.approx(SHARES["shape"][k], abs=0.05)
        assert 0.6 < np.median(posterior.concentrations["shape"][kind == k].sum(1)) / STRENGTH < 1.6
    assert posterior.fractions("bar").values[kind == 1].mean(0) == pytest.approx(SHARES["bar"][1], abs=0.05)
    metrics, figures = evaluate(estimator, fresh.sealed())
    assert metrics["overall"]["gain"]["low"] > 0.5 and set(figures) == {f"{k}_{q}" for k in ("fractions", "coverage") for q in SHARES}
    assert metrics["questions"]["shape"]["coverage"]["error"]["value"] < 0.04
    blind = estimator.prior.log_prob(fresh.parameters)
    assert metrics["overall"]["baseline_nll"]["value"] == pytest.approx(-blind.mean())


def test_an_estimator_of_labels_recovers_true_rates(labels_run):
    estimator = Estimator.load(labels_run)
    fresh = voted(1000, seed=5)
    p = estimator(fresh).probabilities()
    for k in (0, 1):
        mean = p.values[fresh.columns["kind"] == k].mean(0)
        assert mean == pytest.approx([rates[k] for rates in RATES.values()], abs=0.12)
    metrics, figures = evaluate(estimator, fresh)
    assert metrics["labels"]["ring"]["per_class"]["yes"]["roc_auc"]["value"] > 0.8 and "reliability_dim" in figures
    lacking = fresh.parameters
    some = Records.build({}, fresh.ids, {"ring": lacking["ring"]}, None, fresh.attrs, {"toy_camera": fresh.images("toy_camera")})
    assert evaluate(estimator, some)[0]["labels"]["bar"] is None


def test_they_are_the_same_after_loading_and_know_what_is_normal(votes_run, labels_run):
    fresh = voted(20, seed=6)
    for run in (votes_run, labels_run):
        a, b = Estimator.load(run), Estimator.load(run)
        assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())
        found = query(a, fresh, reject=0.0)
        assert set(found["status"]) <= {"known", "rejected"} and np.isfinite(found["anomaly"]).all()
        with pytest.raises(SbiDaError, match="nothing can be given"):
            query(a, fresh, given={"shape": 1.0})
        with pytest.raises(SbiDaError, match="no prior put in place"):
            query(a, fresh, prior={"shape": {"smooth": 1.0}})
        with pytest.raises(SbiDaError, match="reject by anomaly"):
            query(a, fresh, reject=0.1, reject_by="entropy")
        with pytest.raises(SbiDaError, match="it has no density"):
            _ = a.density


def test_an_object_nobody_saw_is_answered_by_the_base_rates(votes_run):
    estimator = Estimator.load(votes_run)
    found = query(estimator, Records.build({}, np.arange(2)), reject=0.1)
    assert found["flag"].tolist() == ["no_data", "no_data"] == found["status"].tolist()
    assert 0 < found["shape_smooth_mean"][0] < 1


def test_evaluation_says_what_is_missing(votes_run):
    estimator, fresh = Estimator.load(votes_run), voted(30, seed=8)
    with pytest.raises(SbiDaError, match="hold no votes .*shape_votes_smooth"):
        evaluate(estimator, Records.build({}, np.arange(2), {"x": np.ones(2)}))
    known = fresh.parameters
    del known["shape_votes_disc"]
    part = Records.build({}, fresh.ids, known, None, fresh.attrs, {"toy_camera": fresh.images("toy_camera")})
    with pytest.raises(SbiDaError, match="shape: the records hold no votes for disc"):
        evaluate(estimator, part)
    nobody = fresh.with_parameters({k: np.zeros(30) for k in fresh.parameters if "_votes_" in k})
    with pytest.raises(SbiDaError, match="none of the records has votes of shape, bar"):
        evaluate(estimator, nobody)


@pytest.mark.parametrize(
    ("target", "parameters", "how", "message"),
    [("votes", ["shape"], {"records": None}, "votes are learned from records"),
     ("votes", ["size"], {}, "no votes on 'size' .known: bar, shape"),
     ("labels", ["merger"], {}, "no label 'merger'"), ("votes", ["bar", "bar"], {}, "each once"),
     ("labels", ["shape_votes_star"], {}, "a label is 0, 1 or empty")],
)
def test_what_records_lack_is_said(place, target, parameters, how, message):
    with pytest.raises(SbiDaError, match=message):
        untrained(target_config(place, target, parameters, **how))


def test_sealed_votes_and_losses_of_classes_are_refused(place):
    voted(30, seed=9, sealed=True, domain="real").save(place / "sealed.zarr")
    for target, parameters in (("votes", ["shape"]), ("labels", ["ring"])):
        with pytest.raises(ConfigError, match="sealed: false"):
            untrained(target_config(place, target, parameters, records=str(place / "sealed.zarr")))
    with pytest.raises(ValueError, match="weights is of target class"):
        Config.model_validate({"parameters": ["x"], "network": {"classifier": {"target": "votes", "weights": "inverse"}}})


# commands


def galaxy_zoo(folder, n=120):
    """A table of votes and labels beside a folder of pictures, as Galaxy Zoo gives them."""
    from PIL import Image

    _, pixels, known = world(n, seed=11)
    (folder / "pictures").mkdir()
    for i, planes in enumerate(pixels):
        Image.fromarray(planes.transpose(1, 2, 0)).save(folder / "pictures" / f"g{i}.png")
    total = sum(known[f"shape_votes_{a}"] for a in ANSWERS["shape"])
    rows = {"name": [f"g{i}" for i in range(n)], "total": total}
    rows |= {f"f_{a}": known[f"shape_votes_{a}"] / total for a in ANSWERS["shape"]}
    rows |= {f"n_{a}": known[f"bar_votes_{a}"] for a in ANSWERS["bar"]} | {"has_ring": known["ring"], "is_dim": known["dim"]}
    lines = [",".join(rows), *(",".join("" if v != v else str(v) for v in row) for row in zip(*rows.values(), strict=True))]
    (folder / "zoo.csv").write_text("\n".join(lines))
    (folder / "zoo.yaml").write_text(f"""
reader: galaxy_zoo
table: zoo.csv
folder: pictures
survey: {camera(folder)}
image_column: name
id_column: name
questions:
  shape: {{smooth: f_smooth, disc: f_disc, star: f_star}}
  bar: {{no: n_no, yes: n_yes}}
totals: {{shape: total}}
labels: {{ring: has_ring, dim: is_dim}}
sealed: false
""")
    return known


def test_commands(tmp_path, capsys):
    known = galaxy_zoo(tmp_path)
    assert main(["pack", str(tmp_path / "zoo.yaml"), "--out", str(tmp_path / "zoo.zarr")]) == 0
    packed = Records.open(tmp_path / "zoo.zarr")
    assert all(np.array_equal(packed.parameters[k], known[k], equal_nan=True) for k in packed.parameters) and len(packed.parameters) == 7
    assert main(["pack", str(tmp_path / "zoo.yaml"), "sealed=true", "--out", str(tmp_path / "sealed.zarr")]) == 0
    for target, parameters in (("votes", ["shape", "bar"]), ("labels", ["ring", "dim"])):
        content = target_config(tmp_path, target, parameters, epochs=1, steps_per_epoch=4, records=str(tmp_path / "zoo.zarr"))
        file = tmp_path / f"{target}.yaml"
        file.write_text(json.dumps(content.model_dump(mode="json")))
        run, report = str(tmp_path / target), tmp_path / f"{target}_report"
        assert main(["train", str(file), "--out", run, "--quiet"]) == 0
        assert main(["train", str(file), f"training.records={tmp_path / 'sealed.zarr'}", "--out", f"{run}_sealed", "--quiet"]) == 2
        assert "sealed: false" in capsys.readouterr().err
        assert main(["evaluate", run, str(tmp_path / "sealed.zarr"), "--out", str(report)]) == 0
        assert "of the base rates" in capsys.readouterr().out
        assert {"votes": "rank correlation", "labels": "ROC AUC"}[target] in (report / "report.html").read_text()
        metrics = json.loads((report / "metrics.json").read_text())
        asked = 120 if target == "votes" else int(np.isfinite([known["ring"], known["dim"]]).any(0).sum())
        assert metrics["target"] == target and metrics["overall"]["n"] == asked
        assert main(["query", run, str(tmp_path / "zoo.zarr"), "--out", str(tmp_path / f"{target}.parquet"), "--reject", "0.05"]) == 0
        assert "rejected (see status)" in capsys.readouterr().out
        assert main(["query", run, str(tmp_path / "zoo.zarr"), "--id", "g3", "--reject", "0.05"]) == 0
        assert "anomaly" in capsys.readouterr().out
        assert main(["align", run, "--real", str(tmp_path / "sealed.zarr"), "--out", f"{run}_aligned", "--quiet"]) == 2
        assert f"this estimator infers {target}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"questions": {"shape": {"smooth": "nothing"}}}, "no column 'nothing'"),
     ({"totals": {"spin": "total"}}, "totals of 'spin', which is no"), ({"labels": {"ring": "total"}}, "a label is 0, 1 or null"),
     ({"questions": {"shape": {"a": "total"}}, "totals": {"shape": "total"}}, "0 to 1")],
)
def test_tables_that_do_not_fit_are_refused(tmp_path, changed, message):
    galaxy_zoo(tmp_path, 6)
    plain = {"questions": {"shape": {"smooth": "f_smooth", "disc": "f_disc"}}, "totals": {"shape": "total"}}
    with pytest.raises(TableError, match=message):
        read_galaxy_zoo(tmp_path / "zoo.csv", tmp_path / "pictures", get_survey(str(camera(tmp_path))), "name", **{**plain, **changed})


def test_the_plain_table_reader_packs_votes_on_one_question(tmp_path):
    galaxy_zoo(tmp_path, 30)
    (tmp_path / "one.yaml").write_text(
        f"reader: table\ntable: zoo.csv\nfolder: pictures\nsurvey: {camera(tmp_path)}\nimage_column: name\nname: bar\n"
        "votes: {no: n_no, yes: n_yes}\nsealed: false\n"
    )
    assert main(["pack", str(tmp_path / "one.yaml"), "--out", str(tmp_path / "one.zarr")]) == 0
    prior = untrained(target_config(tmp_path, "votes", ["bar"], records=str(tmp_path / "one.zarr"))).prior
    assert prior.questions == {"bar": ("no", "yes")}


def test_the_documented_example_works_as_typed(tmp_path, monkeypatch):
    """What docs/galaxies.md tells to type, on a table of a few galaxies and a training of two steps."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    text = (Path(__file__).resolve().parents[1] / "docs" / "galaxies.md").read_text()
    text = text[text.index("## Votes and labels") :]
    (tmp_path / "zoo-pack.yaml").write_text(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])
    commands = [shlex.split(line) for line in re.search(r"```\n(sbi-da pack.*?)```", text, re.DOTALL)[1].splitlines()]
    rng, n = np.random.default_rng(0), 40
    (tmp_path / "pictures").mkdir()
    size = get_survey("decals_images").image.size
    for i in range(n):
        Image.fromarray(rng.integers(0, 255, (size, size, 3)).astype(np.uint8)).save(tmp_path / "pictures" / f"J{i}.jpg")
    f = rng.random(n)
    columns = {"iauname": [f"J{i}" for i in range(n)], "f_no_bar": 1 - f, "f_bar": f, "n_bar": rng.integers(0, 20, n)}
    columns |= {f"n_{a}": rng.integers(0, 20, n) for a in ("smooth", "featured", "artifact")}
    columns |= {name: rng.integers(0, 2, n) for name in ("has_ring", "is_merger")}
    pq.write_table(pa.table(columns), tmp_path / "gz.parquet")
    monkeypatch.chdir(tmp_path)
    tiny = ["training.epochs=1", "training.steps_per_epoch=2", "training.batch=8", "training.validation=8", "--quiet"]
    for command in commands:
        assert main(command[1:] + (tiny if command[1] == "train" else [])) == 0, command
    assert Estimator.load("runs/votes").prior.questions["bar"] == ("no", "yes") and Estimator.load("runs/labels").target == "labels"
