"""Objects like none of the simulations: rejected by a share of these, as a column of a query."""

import numpy as np
import pytest
from small_galaxies import config, records

from sbi_da.alignment.anomalies import entropy_score
from sbi_da.cli import main
from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.inference import query
from sbi_da.normality import Normality
from sbi_da.records import ABSENT, Images, Records
from sbi_da.rejection import rejected, statuses
from sbi_da.runs import train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("rejection")
    train(config(place), place / "run", progress=False)
    return place / "run"


@pytest.fixture(scope="module")
def estimator(run):
    return Estimator.load(run)


def noise(n):
    pixels = np.random.default_rng(0).integers(0, 255, (n, 3, 16, 16)).astype(np.uint8)
    return Records.build({}, images={"toy_camera": Images(("r", "g", "b"), pixels, np.ones((n, 3)), np.ones((n, 3), np.uint8))})


def normal(rng, probabilities=None):
    """Of two round clouds in three dimensions, 10 apart."""
    labels = rng.integers(0, 2, 5000)
    features = rng.standard_normal((5000, 3)) + 10 * labels[:, None] * np.array([1.0, 0, 0])
    held = rng.standard_normal((5000, 3)) + 10 * rng.integers(0, 2, (5000, 1)) * np.array([1.0, 0, 0])
    return Normality.fit({"context": features}, {"context": held}, probabilities)


def test_a_share_of_known_objects_and_all_strange_ones_are_rejected(rng):
    what = normal(rng)
    fresh, strange = rng.standard_normal((5000, 3)), rng.standard_normal((50, 3)) + np.array([5.0, 5.0, 0])
    scores, other = what({"context": fresh}), what({"context": strange})
    for share in (0.3, 0.1, 0.02):
        assert rejected(what, share, scores).mean() == pytest.approx(share, abs=4 * np.sqrt(share / 5000))
    assert rejected(what, 0.02, other).mean() > 0.9  # between the clouds and to their side
    assert rejected(what, 0.0, what({"context": strange + np.array([0, 9.0, 0])})).all() and rejected(what, 0.0, scores).mean() < 0.001
    assert not rejected(what, 0.5, np.array([np.nan]))[0]


def test_views_are_averaged_where_they_exist_and_scaled_by_real_objects(rng):
    a, b = rng.standard_normal((2000, 2)), rng.standard_normal((2000, 3))
    what = Normality.fit({"context": a[:1000], "image": b[:1000]}, {"context": a[1000:], "image": b[1000:]})
    lost = np.array([[0.0, 0, 0], [np.nan] * 3, [8.0, 0, 0], [np.nan] * 3])
    found = what({"context": np.array([[0.0, 0], [0, 0], [0, 0], [8, 0]]), "image": lost})
    assert found[1] < 0.1 < 0.9 < found[3] and found[2] > found[0] + 0.4
    wide = Normality.fit({"context": a[:1000]}, {"context": a[1000:]}, scaled_by={"context": a * np.array([1.0, 50.0])})
    far = {"context": np.array([[8.0, 0.0], [0.0, 8.0]])}
    assert wide(far)[0] > 1 > wide(far)[1]
    again = Normality.from_arrays(what.arrays())
    assert np.array_equal(again({"context": a, "image": b}), what({"context": a, "image": b}))
    with pytest.raises(SbiDaError, match="more than 10 simulated objects"):
        Normality.fit({"context": a[:10]}, {"context": a})


def test_a_view_that_is_not_there_and_one_that_hardly_varies_make_nothing_strange(rng):
    wide, narrow = rng.standard_normal((3000, 40)), rng.standard_normal((3000, 5))
    what = Normality.fit({"context": wide[:1000], "image": narrow[:1000]}, {"context": wide[1000:2000], "image": narrow[1000:2000]})
    lost = what({"context": wide[2000:], "image": np.full((1000, 5), np.nan)})
    assert np.median(lost) == pytest.approx(0.5, abs=0.1)
    real = narrow[2000:].copy()
    real[:700, 0] = 0.0
    what = Normality.fit({"image": narrow[:1000]}, {"image": narrow[1000:2000]}, scaled_by={"image": real})
    assert (what({"image": real}) > 0.95).mean() < 0.1
    with pytest.raises(KeyError):
        Normality.from_arrays({"means": np.zeros(3), "quantiles": np.zeros(3)})


def test_by_entropy_the_threshold_is_the_quantile_of_simulated_entropies(rng):
    p = rng.uniform(0.5, 1, 4000)
    what = normal(rng, np.stack([p, 1 - p], 1))
    limit = np.quantile(entropy_score(np.stack([p, 1 - p], 1)), 0.9)
    q = np.linspace(0.5, 1, 200)
    found = rejected(what, 0.1, np.zeros(200), np.stack([q, 1 - q], 1), "entropy")
    assert np.array_equal(found, entropy_score(np.stack([q, 1 - q], 1)) > what.entropies[450])
    assert what.entropies[450] == pytest.approx(limit, abs=1e-3)
    assert not rejected(what, 0.0, np.zeros(4000), np.stack([p, 1 - p], 1), "entropy").any()
    again = Normality.from_arrays(what.arrays())
    assert np.array_equal(again.entropies, what.entropies) and np.array_equal(again.quantiles, what.quantiles)
    assert Normality.from_arrays(normal(rng).arrays()).entropies is None


@pytest.mark.parametrize(
    ("share", "by", "message"), [(1.0, "anomaly", "between 0 and 1"), (-0.1, "anomaly", "between 0 and 1"), (0.1, "size", "unknown score"),
                                 (0.1, "entropy", "knows no entropies")],
)
def test_what_cannot_be_rejected_is_said(rng, share, by, message):
    with pytest.raises(SbiDaError, match=message):
        rejected(normal(rng), share, np.zeros(1), by=by)
    with pytest.raises(SbiDaError, match="has not learned what is normal"):
        rejected(None, 0.1, np.zeros(1))


def test_a_query_says_which_objects_are_known(estimator):
    plain, strange = records(400, seed=20), noise(40)
    assert "status" not in query(estimator, plain)
    found, other = query(estimator, plain, reject=0.05), query(estimator, strange, reject=0.05)
    assert 0.01 < (found["status"] == "rejected").mean() < 0.12 and (other["status"] == "rejected").mean() > 0.95
    assert np.array_equal(found["status"] == "rejected", found["anomaly"] > 0.95)
    assert statuses(np.array([True, False, True]), np.array([True, True, False])).tolist() == ["rejected", "known", "no_data"]
    image = plain.images("toy_camera")
    state = image.state.copy()
    state[:3] = ABSENT
    lost = Records.build({}, plain.ids, images={"toy_camera": Images(image.bands, image.pixels, image.error, state)})
    assert query(estimator, lost, reject=0.05)["status"][:4].tolist() == ["no_data"] * 3 + [found["status"][3]]


def test_by_entropy_other_fractions_move_no_threshold(estimator):
    unsure = records(300, seed=21, noise=0.8)
    a = query(estimator, unsure, reject=0.05, reject_by="entropy")
    b = query(estimator, unsure, reject=0.05, reject_by="entropy", prior={"shape": {"round": 0.02, "streak": 0.98}})
    assert np.array_equal(a["status"], b["status"]) and (a["status"] == "rejected").mean() > 0.2


def test_densities_reject_nothing(toy_estimator, toy_records):
    with pytest.raises(SbiDaError, match="reject is of classes, votes and labels"):
        query(toy_estimator, toy_records, reject=0.1)


def test_command(run, tmp_path, capsys):
    noise(12).save(tmp_path / "noise.zarr")
    out = tmp_path / "answers.csv"
    assert main(["query", str(run), str(tmp_path / "noise.zarr"), "--reject", "0.01", "--out", str(out)]) == 0
    text = out.read_text()
    assert "12 rejected (see status)" in capsys.readouterr().out and text.splitlines()[0].endswith("anomaly,status")
    assert main(["query", str(run), str(tmp_path / "noise.zarr"), "--reject", "0.05", "--reject-by", "entropy"]) == 0
    assert "status" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        main(["query", str(run), str(tmp_path / "noise.zarr"), "--reject", "5%"])
    assert stop.value.code == 2 and "must be a share" in capsys.readouterr().err
