"""What is measured of images with known shapes; restaging; and refinement where the answer is known."""

import numpy as np
import pytest
import torch
from small_galaxies import SIZE, camera, pictures
from small_images import survey

from sbi_da.alignment.class_refinement import Refined, physical_features, refine
from sbi_da.encoders.morphometry import NAMES, measure, summary_count
from sbi_da.errors import SbiDaError
from sbi_da.records import ABSENT, OBSERVED, Images
from sbi_da.restaging import Restaging, linear, restage
from sbi_da.surveys import get_survey


def ellipse(q=0.5, sigma=6.0, flux=100.0, bands=(1.0, 1.0, 1.0), angle=0.4, size=64, noise=0.0, sky=0.0):
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    u, v = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    light = np.exp(-0.5 * (u**2 * q + v**2 / q) / sigma**2)
    image = flux * light / light.sum() * np.array(bands)[:, None, None]
    made = image + sky + noise * np.random.default_rng(0).standard_normal(image.shape)
    return torch.from_numpy(made[None]).float()


def summaries(**how):
    found = measure(ellipse(**how))[0]
    return dict(zip(NAMES, found.tolist(), strict=False)), found[len(NAMES) :]


def test_a_gaussian_ellipse_measures_as_it_is():
    found, colours = summaries(q=0.5, bands=(2.0, 1.0, 0.5))
    assert 10 ** found["log_flux"] == pytest.approx(100 * 3.5 / 3, rel=0.03)
    assert 10 ** found["log_radius"] == pytest.approx(6 * np.sqrt(2 * np.log(2)), rel=0.05)
    assert found["axis_ratio"] == pytest.approx(0.5, abs=0.04) and found["asymmetry"] < 0.01
    # of a Gaussian, r80 / r20 = sqrt(log 5 / log 1.25)
    assert found["concentration"] == pytest.approx(np.log10(np.sqrt(np.log(5) / np.log(1.25))), abs=0.03)
    assert colours.tolist() == pytest.approx([np.log(2), np.log(0.5)], abs=0.03)


def test_noise_and_sky_are_found_and_turns_change_nothing():
    image = ellipse(noise=0.02, sky=0.5, flux=300.0)
    found = measure(torch.cat([image, image.rot90(1, (2, 3)), image.flip(3)]))
    assert torch.allclose(found[1:], found[:1].expand(2, -1), atol=2e-3)
    per_pixel = 10 ** found[0, NAMES.index("log_flux")] / (found[0, NAMES.index("area")] * 64**2)
    sigma = 10 ** found[0, NAMES.index("noise")] * per_pixel
    assert float(sigma) == pytest.approx(0.02 / np.sqrt(3), rel=0.25)
    assert float(torch.sinh(found[0, NAMES.index("sky")]) * 10 * sigma) == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("image", [torch.zeros(1, 3, 64, 64), torch.full((1, 1, 16, 16), 7.0), -torch.ones(1, 2, 33, 20)])
def test_whatever_the_image_the_summaries_are_finite(image):
    found = measure(image)
    assert found.shape == (1, summary_count(image.shape[1])) and torch.isfinite(found).all()


def images(n, seed, **how):
    rng = np.random.default_rng(seed)
    codes = rng.choice(2, n)
    pixels = pictures(codes, rng, **how)
    return Images(("r", "g", "b"), pixels, np.full((n, 3), np.nan), np.ones((n, 3), np.uint8)), codes


def test_restaged_images_take_on_the_target_and_keep_the_class(tmp_path):
    shown = get_survey(str(camera(tmp_path))).image
    source, codes = images(200, 0, noise=0.0)
    target, _ = images(200, 1, noise=0.03, gain=0.5)
    how = Restaging(copies=2, tilt=False, seeing=1.0, neighbours=0.0)
    made, rows = restage(source, codes, target, shown, how, np.random.default_rng(0))
    assert made.pixels.shape == (400, 3, SIZE, SIZE) and made.pixels.dtype == np.uint8 and np.array_equal(np.bincount(rows), [2] * 200)
    before, wanted, after = (measure(linear(each, shown)).median(0).values for each in (source, target, made))
    for name in ("log_flux", "noise"):
        k = NAMES.index(name)
        assert abs(after[k] - wanted[k]) < 0.35 * abs(before[k] - wanted[k]), name
    ratio = measure(linear(made, shown))[:, NAMES.index("axis_ratio")].numpy()
    assert ratio[codes[rows] == 0].mean() > ratio[codes[rows] == 1].mean() + 0.1
    again, _ = restage(source, codes, target, shown, how, np.random.default_rng(0))
    assert np.array_equal(made.pixels, again.pixels)


def test_what_could_not_be_read_stays_so_when_restaged(tmp_path):
    shown = get_survey(str(camera(tmp_path))).image
    source, codes = images(20, 3, noise=0.0)
    target, _ = images(20, 4, noise=0.03)
    state = source.state.copy()
    state[2], state[5, 1] = ABSENT, ABSENT
    source = Images(source.bands, np.where((state == OBSERVED)[..., None, None], source.pixels, 0), source.error, state)
    made, rows = restage(source, codes, target, shown, Restaging(copies=2, seeing=1.0), np.random.default_rng(0))
    assert np.array_equal(made.state, np.concatenate([state, state])) and np.array_equal(rows % 20, rows)


@pytest.mark.parametrize("garbage", [0, 255])
def test_pixels_that_could_not_be_read_change_no_other_galaxy(tmp_path, garbage):
    shown = get_survey(str(camera(tmp_path))).image
    source, codes = images(40, 3, noise=0.0)
    target, _ = images(20, 4, noise=0.03)
    state = source.state.copy()
    state[::4] = ABSENT
    made = []
    for filling in (77, garbage):
        pixels = np.where((state == ABSENT)[..., None, None], filling, source.pixels).astype(np.uint8)
        given = Images(source.bands, pixels, source.error, state)
        made.append(restage(given, codes, target, shown, Restaging(copies=1), np.random.default_rng(0))[0])
    assert np.array_equal(*(each.pixels for each in made))


def test_pixels_that_are_not_finite_are_as_if_not_there():
    shown = survey(display=False, size=24).image
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:24, :24] - 11.5
    light = np.exp(-(x**2 + y**2) / 18) * rng.uniform(1, 3, (30, 3, 1, 1)) + 0.02 * rng.standard_normal((30, 3, 24, 24))
    def taken(pixels):
        return Images(shown.band_names, pixels.astype(np.float32), np.full((30, 3), np.nan), np.full((30, 3), OBSERVED, np.uint8))

    holes = light.copy()
    holes[4, 1, 3, 3], holes[7, 0] = np.nan, np.inf
    made, _ = restage(taken(holes), np.zeros(30, int), taken(holes), shown, Restaging(copies=1), np.random.default_rng(0))
    assert np.isfinite(made.pixels).all()
    assert np.argwhere(made.state == ABSENT).tolist() == [[4, 1], [7, 0]]


def test_targets_without_whole_images_are_refused(tmp_path):
    shown = get_survey(str(camera(tmp_path))).image
    source, codes = images(20, 3, noise=0.0)
    some = source.where(np.arange(3) != 1 + np.zeros((20, 1), int))
    with pytest.raises(SbiDaError, match="images in all bands, and there are none"):
        restage(source, codes, some, shown, Restaging(seeing=1.0), np.random.default_rng(0))
    made, _ = restage(source, codes, source.where(np.arange(20)[:, None] < [20, 20, 3]), shown, Restaging(), np.random.default_rng(0))
    assert len(made) == 80


def test_tilted_galaxies_are_flatter(tmp_path):
    shown = get_survey(str(camera(tmp_path))).image
    source, _ = images(150, 2, noise=0.0)
    ratios = [
        measure(linear(restage(source, np.zeros(150, int), source, shown, Restaging(copies=1, tilt=tilt, thickness=0.2, neighbours=0.0),
                               np.random.default_rng(0))[0], shown))[:, NAMES.index("axis_ratio")].mean()
        for tilt in (False, True)
    ]
    assert ratios[1] < ratios[0] - 0.03


def test_refinement_mends_a_biased_classifier():
    """Two Gaussian classes, 80 to 20, and a classifier that leans to the second and sees one of two features only."""
    rng = np.random.default_rng(0)
    codes = (rng.random(3000) < 0.2).astype(int)
    x = rng.standard_normal((3000, 2)) + 3.0 * codes[:, None]
    logit = 0.8 * (x[:, 0] - 1.5) + 0.5 + 0.5 * rng.standard_normal(3000)
    log_p = np.stack([-np.logaddexp(0, logit), -np.logaddexp(0, -logit)], 1)
    found = refine(physical_features(x, log_p, (0, 1)), np.exp(log_p), share=0.3)
    before, after = ((p.argmax(1) == codes).mean() for p in (np.exp(log_p), found.probabilities))
    assert before < 0.82 and after > 0.9
    assert 0.15 < found.fractions[1] < 0.4  # too many of the rarer class: see the module
    assert np.allclose(found.probabilities.sum(1), 1) and found.lessons.sum(0) == pytest.approx([1500, 1500])


def test_classes_taken_as_equal_at_first_do_not_depend_on_the_classifiers_threshold():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((1000, 2))
    x[:300] += 3.0
    logit = x.sum(1) - 3.0
    found = []
    for lean in (-2.0, 2.0):
        log_p = np.stack([-np.logaddexp(0, logit + lean), -np.logaddexp(0, -logit - lean)], 1).clip(-4, 0)
        found.append([refine(x, np.exp(log_p), even=even).fractions[1] for even in (1.0, 0.0)])
    (even_low, told_low), (even_high, told_high) = found
    assert abs(even_high - even_low) < 0.02 < told_high - told_low


def test_objects_that_were_not_measured_teach_nothing():
    found = Refined(np.array([[0.9, 0.1], [0.2, 0.8]]), np.full((2, 2), 0.5), np.array([0.25, 0.75]), np.ones(2))
    seen = np.array([True, False, True])
    more = found.among(seen, np.array([[0.5, 0.5], [0.5, 0.5], [0.1, 0.9]]))
    assert np.array_equal(more.probabilities[seen], found.probabilities) and more.probabilities[1] == pytest.approx([0.25, 0.75])
    assert not more.lessons[1].any() and more.lessons.sum(0) == pytest.approx([1.5, 1.5])


def test_a_class_that_nothing_is_surely_of_is_named():
    rng = np.random.default_rng(0)
    p = np.tile([0.9, 0.1], (300, 1)) + 0.01 * rng.standard_normal((300, 1)) * [1, -1]
    with pytest.raises(SbiDaError, match="surely of class number 1: raise refine.even"):
        refine(rng.standard_normal((300, 2)), p, even=0.0)


def test_refinement_of_too_few_is_refused():
    with pytest.raises(SbiDaError, match="needs more than 12 real objects"):
        refine(np.zeros((12, 2)), np.full((12, 2), 0.5))
