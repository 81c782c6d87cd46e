"""Galaxies laid over each other, and detectors that learn to tell them from single ones."""

import copy
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from small_galaxies import config, records

from sbi_da.alignment_config import AlignmentConfig
from sbi_da.blending import Blending, blended
from sbi_da.class_alignment_config import OutlierExposure
from sbi_da.class_alignment_run import align_classes
from sbi_da.encoders.morphometry import NAMES, measure
from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.inference import query
from sbi_da.normality import Normality
from sbi_da.outlier_exposure import expose
from sbi_da.records import ABSENT, OBSERVED, Images, Records
from sbi_da.restaging import Restaging, restage
from sbi_da.runs import train
from sbi_da.turned import turned_log_probabilities
from sbi_da.views import alone, blendedness, whole

SIZE = 48


def spots(n, rng, width=2.0):
    """Round galaxies of different fluxes and colours in the middle of their images."""
    line = torch.arange(SIZE) - (SIZE - 1) / 2
    light = torch.exp(-(line[:, None] ** 2 + line[None] ** 2) / (2 * width**2))
    bands = torch.from_numpy(rng.uniform(0.5, 2.0, (n, 3))).float() * torch.from_numpy(rng.uniform(1, 100, (n, 1))).float()
    return bands[:, :, None, None] * light


def moments(flux):
    """Total light of the mean over bands, and its centre in pixels from the middle."""
    line = torch.arange(SIZE) - (SIZE - 1) / 2
    total = flux.sum((1, 2, 3))
    return total, (flux.sum((1, 2)) * line).sum(1) / total, (flux.sum((1, 3)) * line).sum(1) / total


def test_light_is_added_and_its_centre_stays_in_the_middle(rng):
    alone = spots(300, rng)
    how = Blending(flux_ratio=(0.2, 1.0), separation=(1.0, 2.5), bend=0)
    both = blended(alone, how, np.random.default_rng(1))
    before, after = moments(alone), moments(both)
    ratio = (after[0] / before[0] - 1).numpy()
    assert 0.19 < ratio.min() < 0.25 and 0.9 < ratio.max() < 1.01
    assert np.quantile(np.log(ratio), 0.5) == pytest.approx(0.5 * np.log(0.2), abs=0.15)
    assert torch.allclose(after[1], torch.zeros(300), atol=0.02) and torch.allclose(after[2], torch.zeros(300), atol=0.02)
    assert torch.equal(both, blended(alone, how, np.random.default_rng(1)))
    assert torch.isfinite(blended(torch.zeros(3, 3, SIZE, SIZE), how, rng)).all()


def test_two_of_one_size_stand_as_far_apart_as_drawn(rng):
    alone = spots(40, rng, 1.5)
    both = blended(alone, Blending(flux_ratio=(1.0, 1.0), separation=(6.0, 6.0), zoom=(1.0, 1.0), bend=0), rng)
    line = torch.arange(SIZE) - (SIZE - 1) / 2
    image = both.mean(1) / both.mean(1).sum((1, 2), keepdim=True)
    spread = (image * (line[:, None] ** 2 + line[None] ** 2)).sum((1, 2)) - 2 * 1.5**2
    radius = 10 ** measure(alone)[:, NAMES.index("log_radius")]
    assert torch.allclose(2 * spread.sqrt(), 6 * radius, rtol=0.02)


def test_bending_keeps_the_light_and_changes_the_shape(rng):
    alone, how = spots(60, rng), {"flux_ratio": (1.0, 1.0), "separation": (2.0, 2.0), "zoom": (1.0, 1.0)}
    straight, bent = (blended(alone, Blending(**how, bend=bend), np.random.default_rng(3)) for bend in (0.0, 1.0))
    assert torch.allclose(moments(straight)[0], moments(bent)[0], rtol=0.02)
    whole = [x.sum(1) / moments(x)[0][:, None, None] for x in (straight, bent)]
    lopsided = [(x - x.flip((1, 2))).abs().sum((1, 2)).median() for x in whole]
    assert lopsided[0] < 0.02 < 0.1 < lopsided[1]


def test_nobody_is_laid_over_itself_and_nonsense_is_refused(rng):
    colours = torch.zeros(30, 30, SIZE, SIZE)
    for k in range(30):
        colours[k, k] = spots(1, rng)[0, 0]
    both = blended(colours, Blending(), rng)
    assert ((both.sum((2, 3)) > 1e-3).sum(1) == 2).all()
    with pytest.raises(SbiDaError, match="two galaxies"):
        blended(spots(1, rng), Blending(), rng)
    for wrong in ({"zoom": (2.0, 1.0)}, {"flux_ratio": (0.0, 1.0)}):
        with pytest.raises(ValueError, match="range of positive numbers"):
            Blending(**wrong)


def test_the_score_that_is_farthest_out_counts(rng):
    features, score = rng.standard_normal((3000, 2)), 5 + 3 * rng.standard_normal(3000)
    simulated = [{"context": features[rows], "blended": score[rows]} for rows in (slice(0, 1000), slice(1000, 2000))]
    what = Normality.fit(*simulated)
    middle, odd = np.zeros((1, 2)), np.full((1, 2), 20.0)
    found = {(a, b): what({"context": place, "blended": np.array([value])})[0]
             for a, place in (("in", middle), ("out", odd)) for b, value in (("in", 5.0), ("out", 40.0), ("none", np.nan))}
    assert found["in", "in"] < 0.5 and found["in", "none"] < 0.5
    assert min(v for k, v in found.items() if "out" in k) > 1
    assert what.distances({"context": middle, "blended": np.array([-30.0])}) < 1  # to be less strange than usual is not strange
    assert what.distances({"context": middle, "blended": np.array([17.0])}) == pytest.approx(4, abs=0.4)  # spreads
    assert np.median(what({"context": features[2000:], "blended": score[2000:]})) == pytest.approx(0.5, abs=0.06)
    again = Normality.from_arrays(what.arrays())
    assert np.array_equal(again(simulated[0]), what(simulated[0]))
    real = Normality.fit(*simulated, scaled_by={"context": features[2000:], "blended": 2 * score[2000:] + 100})
    assert real.unit["blended"] == pytest.approx([110, 6], rel=0.1)
    assert np.isnan(what._neighbourhood({"context": np.full((1, 2), np.nan)}))[0]


@pytest.fixture(scope="module")
def estimator(tmp_path_factory):
    place = tmp_path_factory.mktemp("outliers")
    return train(config(place), place / "run", progress=False)


@pytest.fixture(scope="module")
def real():
    return records(200, seed=31, domain="real", sealed=True, noise=0.03)


OUTLIERS = {"simulations": 300, "epochs": 25, "steps_per_epoch": 15, "batch": 32, "learning_rate": 0.002,
            "blending": {"flux_ratio": [0.9, 1.0], "separation": [4.0, 5.0], "bend": 0.0}}


def aligned(estimator, real, outliers=OUTLIERS, **how):
    setting = AlignmentConfig.model_validate({"correction": False, "epochs": 1, "steps_per_epoch": 3, "batch": 32,
                                              "classes": {"outliers": outliers}, **how})
    return align_classes(estimator, real, None, setting).candidate


def pairs(estimator, real, n):
    """Pairs in images like those of the real objects."""
    some = records(n, seed=40, noise=0.03).images("toy_camera")
    mixed = partial(blended, how=Blending(**OUTLIERS["blending"]), rng=np.random.default_rng(0))
    camera = estimator.layout.cameras["toy_camera"]
    how = Restaging(copies=1, tilt=False)
    image, _ = restage(some, np.zeros(n, int), real.images("toy_camera"), camera, how, np.random.default_rng(1), mixed)
    return Records.build({}, np.arange(n), attrs={"domain": "real"}, images={"toy_camera": image})


def test_a_detector_finds_pairs_and_changes_no_answer(estimator, real, tmp_path):
    plain, found = aligned(estimator, real, None), aligned(estimator, real)
    objects = records(100, seed=33, domain="real", noise=0.03)
    assert np.array_equal(plain(objects).log_probabilities, found(objects).log_probabilities)
    assert found.metadata["alignment"]["outliers"]["toy_camera"]["auroc_held_out"] > 0.8 and not len(plain.detectors)
    detector = found.detector("toy_camera")
    twos = pairs(found, real, 100)
    single, double = (blendedness(detector, r.images("toy_camera")) for r in (objects, twos))
    assert np.median(double) > np.quantile(single, 0.75)
    assert np.median(query(found, twos)["anomaly"]) > np.median(query(found, objects)["anomaly"])
    again = Estimator.load(found.save(tmp_path / "artefact"))
    assert np.array_equal(query(again, objects)["anomaly"], query(found, objects)["anomaly"])
    assert not len(aligned(again, real, None).detectors)  # adapted anew without them, they are gone


def test_without_all_bands_a_detector_is_silent(estimator, real):
    found = aligned(estimator, real)
    image = records(20, seed=35).images("toy_camera")
    state = image.state.copy()
    state[::2, 1] = ABSENT
    score = blendedness(found.detector("toy_camera"), Images(image.bands, image.pixels, image.error, state))
    assert np.isnan(score[::2]).all() and np.isfinite(score[1::2]).all()
    lost = Records.build({}, images={"toy_camera": Images(image.bands, image.pixels, image.error, state)})
    assert np.isfinite(query(found, lost)["anomaly"]).all()


def test_too_few_images_are_said(estimator, real):
    image = real.images("toy_camera")
    state = image.state.copy()
    state[20:, 0] = ABSENT
    shown = Images(image.bands, image.pixels, image.error, state)
    few = Records.build({}, real.ids, attrs={"domain": "real"}, images={"toy_camera": shown})
    with pytest.warns(UserWarning, match="no outlier detector for toy_camera: 300 simulated and 20 real objects"):
        found = aligned(estimator, few)
    assert not len(found.detectors) and np.isfinite(query(found, few)["anomaly"]).all()


def test_pixels_that_are_not_finite_are_as_if_not_there():
    pixels = np.random.default_rng(0).standard_normal((600, 2, 8, 8)).astype(np.float32)
    pixels[3, 1, 2, 2], pixels[500] = np.nan, np.inf
    state = np.full((600, 2), OBSERVED, np.uint8)
    state[7, 0] = ABSENT
    found = whole(Images(("a", "b"), pixels, np.full((600, 2), np.nan), state))
    assert sorted(set(range(600)) - set(found.tolist())) == [3, 7, 500]
    assert not len(whole(Images(("a", "b"), pixels[:0], np.zeros((0, 2)), state[:0])))


def test_an_adapter_keeps_the_detectors_and_their_scores(estimator, real):
    first = aligned(estimator, real)
    setting = AlignmentConfig.model_validate({"correction": False, "epochs": 1, "steps_per_epoch": 2, "batch": 32, "adapter": ["film"],
                                              "train": "adapter"})
    second = align_classes(first, real, None, setting).candidate
    objects = records(30, seed=36)
    assert np.array_equal(query(second, objects)["anomaly"], query(first, objects)["anomaly"])


def test_an_object_without_any_other_score_has_no_handicap(rng):
    features, score = rng.standard_normal((2000, 2)), rng.standard_normal(2000)
    what = Normality.fit(*({"context": features[rows], "blended": score[rows]} for rows in (slice(0, 1000), slice(1000, 2000))))
    odd = {"context": np.full((2, 2), 9.0), "blended": np.array([np.nan, -9.0])}
    assert np.subtract(*what.distances(odd)) == pytest.approx(1.0)


def test_without_images_there_is_nothing_to_detect(toy_estimator):
    with pytest.raises(SbiDaError, match="no survey of this estimator has any"):
        expose(toy_estimator, None, None, None, OutlierExposure(), Restaging(), 0)


def test_an_adapter_alone_has_no_detector():
    with pytest.raises(ValueError, match="keeps anomaly scores as they are"):
        AlignmentConfig.model_validate({"adapter": ["film"], "train": "adapter", "classes": {"outliers": {}}})


def test_answers_of_turned_images_are_averaged(estimator):
    observed, turned = (estimator.layout.read(records(12, seed=16)) for _ in range(2))
    picture = turned.images["toy_camera"]
    turned.images["toy_camera"] = replace(picture, pixels=np.rot90(picture.pixels[:], 1, (2, 3)).copy())
    found = [turned_log_probabilities(estimator, each) for each in (observed, turned)]
    assert np.allclose(*found, atol=1e-5) and np.allclose(np.exp(found[0]).sum(1), 1)


def test_the_odds_of_a_detector_are_those_of_its_turned_images(estimator, real):
    found = aligned(estimator, real)
    detector, images = found.detector("toy_camera"), records(300, seed=37).images("toy_camera")
    posterior = [
        detector.classify(detector.encode(alone(detector, "toy_camera", replace(
            images, pixels=np.rot90(images.pixels[:], turn, (2, 3)).copy()))), np.arange(300)).log_probabilities for turn in range(4)
    ]
    odds = np.mean([log_p[:, 1] - log_p[:, 0] for log_p in posterior], 0)
    assert np.allclose(blendedness(detector, images), odds, atol=1e-5)
    some = blendedness(detector, images.take(np.arange(3, 10)))
    assert np.allclose(some, odds[3:10], atol=1e-5)  # whatever shares the batch


def test_seeds_decide(estimator, real):
    before = torch.get_rng_state()
    a, b = (aligned(copy.deepcopy(estimator), real).detectors.state_dict() for _ in range(2))
    assert all(torch.equal(v, b[k]) for k, v in a.items()) and torch.equal(before, torch.get_rng_state())
