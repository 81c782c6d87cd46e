"""The galaxies simulator: known answers, what surveys must agree on, bad input."""

import dataclasses
import importlib

import numpy as np
import pytest

from sbi_da.errors import ConfigError, SbiDaError, UnknownNameError
from sbi_da.simulators import get_simulator
from sbi_da.surveys import Channel, Noise, Survey

galsim = pytest.importorskip("galsim")

BANDS = (("g", 0.4686), ("r", 0.6166), ("i", 0.748))
ALL = ("elliptical", "irregular", "spiral", "merger")
PLAIN = {"clumpiness": 0.0, "arm_contrast": 0.0, "bar_fraction": 0.0, "dust": 0.0}
THETA = {"magnitude": 16.0, "half_light_radius": 2.0, "bulge_to_total": 0.0, "sersic_n": 2.0, "inclination": 0.0}


def survey(pixel=0.4, size=64, fwhm=1.2, scatter=0.0, zero_point=22.5, psf="moffat", bands=BANDS):
    rows = [
        {"name": b, "wavelength": w, "psf_fwhm": fwhm, "psf_scatter": scatter, "noise": 0.01, "zero_point": zero_point}
        for b, w in bands
    ]
    image = {"pixel_scale": pixel, "size": size, "psf": psf, "bands": rows}
    return Survey.from_card({"name": "camera", "title": "Camera", "reference": "none", "image": image})


def galaxies(**options):
    wide = {"half_light_radius": {"kind": "log_uniform", "low": 0.02, "high": 10}, **options.pop("prior", {})}
    return get_simulator("galaxies", **{"neighbours": 0.0, "classes": ALL, "prior": wide, **options})


def sky(simulator, morphology, n=1, seed=0, **theta):
    full = {"morphology": simulator.classes.index(morphology), **THETA, **theta}
    return simulator.at({k: np.broadcast_to(np.asarray(v, float), n) for k, v in full.items()}, np.random.default_rng(seed))


def picture(one, camera, seed=1):
    return one.image(camera, np.random.default_rng(seed))


def moments(image, pixel):
    """Second moments (minor, major) of one band, arcsec squared."""
    at = (np.arange(image.shape[-1]) - 0.5 * (image.shape[-1] - 1)) * pixel
    total = image.sum(dtype=float)
    x, y = image.sum(0, dtype=float) @ at / total, image.sum(1, dtype=float) @ at / total
    xx, yy = image.sum(0) @ (at - x) ** 2 / total, image.sum(1) @ (at - y) ** 2 / total
    xy = (image * np.outer(at - y, at - x)).sum() / total
    return np.linalg.eigvalsh([[xx, xy], [xy, yy]])


@pytest.mark.parametrize("morphology", ALL)
def test_the_pixels_add_up_to_the_magnitude(morphology):
    bulge = 0.8 if morphology == "elliptical" else 0.1
    n = 6
    one = sky(galaxies(), morphology, n, half_light_radius=1.0, bulge_to_total=bulge, inclination=np.linspace(0, 90, n))
    image = picture(one, survey(size=96, psf="gaussian"))
    assert image.shape == (n, 3, 96, 96) and image.dtype == np.float32 and image.min() >= 0
    flux = image.sum((2, 3))
    tolerance = 0.05 if morphology == "merger" else 0.02
    assert flux[:, 1] / 10 ** (0.4 * (22.5 - 16)) == pytest.approx(1, abs=tolerance)
    magnitude = [
        one.signal(Channel(name=b, column=b, error_column="e", system="AB", wavelength=w, depth=30, noise=Noise(points=0.1)))
        for b, w in BANDS
    ]
    assert 22.5 - 2.5 * np.log10(flux) == pytest.approx(np.stack(magnitude, 1), abs=1.2 * tolerance)


@pytest.mark.parametrize("index", [0.8, 2.3, 4.0, 5.7])
def test_an_elliptical_is_the_sersic_profile_galsim_draws(index):
    classes = {"sersic_n": {"kind": "uniform", "low": 0.5, "high": 6}}
    one = sky(galaxies(prior=classes), "elliptical", bulge_to_total=1.0, sersic_n=index, inclination=50)
    smooth = one.anatomy.smooth
    profile = galsim.Sersic(index, half_light_radius=1.0, trunc=12 if index > 1.7 else 0)
    (a, b), (c, d) = smooth.matrix[0]
    profile = galsim.Transform(profile, jac=[a, b, c, d], flux_ratio=1 / abs(a * d - b * c)).shift(*smooth.centre[0])
    expected = galsim.Convolve(profile, galsim.Moffat(3, fwhm=1.2)).drawImage(nx=48, ny=48, scale=0.4).array
    image = picture(one, survey(size=48, bands=BANDS[1:2]))[0, 0] / 10 ** (0.4 * (22.5 - 16))
    assert np.abs(image - expected).max() < 0.004 * expected.max()
    assert image.sum() == pytest.approx(expected.sum(), rel=0.004)


@pytest.mark.parametrize("inclination", [0, 40, 80, 90])
def test_a_thick_disc_is_the_one_galsim_draws(inclination):
    one = sky(galaxies(population=PLAIN), "spiral", half_light_radius=3.0, inclination=inclination)
    smooth = one.anatomy.smooth
    assert len(smooth.object) == 1 and not len(one.anatomy.structure.object)
    radius, thick = 3.0 / 1.67835, np.hypot(*smooth.vertical[0]) / max(np.sin(np.radians(inclination)), 1e-9)
    disc = galsim.InclinedExponential(inclination * galsim.degrees, scale_radius=radius, scale_height=max(thick, 1e-3))
    turn = np.arctan2(smooth.matrix[0][1, 0], smooth.matrix[0][0, 0]) * galsim.radians
    disc = disc.rotate(turn).shift(*smooth.centre[0])
    expected = galsim.Convolve(disc, galsim.Moffat(3, fwhm=1.2)).drawImage(nx=64, ny=64, scale=0.4).array
    image = picture(one, survey(bands=BANDS[1:2]))[0, 0] / 10 ** (0.4 * (22.5 - 16))
    assert np.abs(image - expected).max() < 0.006 * expected.max()


@pytest.mark.parametrize("bulge", [0.0, 0.4])
def test_half_of_the_light_of_a_face_on_galaxy_lies_within_its_radius(bulge):
    one = sky(galaxies(population=PLAIN), "spiral", half_light_radius=3.0, bulge_to_total=bulge)
    pixel = 0.2
    image = picture(one, survey(pixel, 192, fwhm=0.2, psf="gaussian", bands=BANDS[1:2]))[0, 0]
    at = (np.arange(192) - 95.5) * pixel
    centre = one.anatomy.smooth.centre[0]
    radius = np.hypot(at - centre[0], (at - centre[1])[:, None]).ravel()
    order = np.argsort(radius)
    growth = np.cumsum(image.ravel()[order]) / 10 ** (0.4 * (22.5 - 16))
    assert np.interp(0.5, growth, radius[order]) == pytest.approx(3.0, rel=0.015)


@pytest.mark.parametrize(("psf", "profile"), [("moffat", galsim.Moffat(3, fwhm=1.3)), ("gaussian", galsim.Gaussian(fwhm=1.3))])
def test_a_point_has_the_shape_of_the_psf(psf, profile):
    one = sky(galaxies(population=PLAIN), "spiral", half_light_radius=0.02)
    expected = profile.shift(*one.anatomy.smooth.centre[0]).drawImage(nx=32, ny=32, scale=0.4).array
    image = picture(one, survey(size=32, fwhm=1.3, psf=psf, bands=BANDS[1:2]))[0, 0] / 10 ** (0.4 * (22.5 - 16))
    assert np.abs(image - expected).max() < 0.005 * expected.max()


def test_seeing_varies_among_objects_and_is_drawn_by_the_observation():
    one = sky(galaxies(population=PLAIN), "spiral", 30, half_light_radius=0.02)
    first, again, other = (picture(one, survey(scatter=0.1), seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    peak = first.max((2, 3)) / first.sum((2, 3))
    # The peak of a PSF falls as the square of its width.
    assert 0.5 * np.std(np.log10(peak[:, 1])) == pytest.approx(0.1, rel=0.5)


@pytest.mark.parametrize("morphology", ALL)
def test_surveys_see_the_same_galaxies(morphology):
    one = sky(galaxies(neighbours=5.0), morphology, 3, bulge_to_total=0.7 if morphology == "elliptical" else 0.1, inclination=40)
    fine, coarse = picture(one, survey(0.2, 128)), picture(one, survey(0.4, 64))
    binned = fine.reshape(3, 3, 64, 2, 64, 2).sum((3, 5))
    assert np.abs(binned - coarse).max() < 0.01 * coarse.max()
    scaled = picture(one, survey(0.4, 64, zero_point=25.0))
    assert np.abs(scaled - 10 * coarse).max() < 1e-5 * scaled.max()


def test_the_seed_decides():
    simulator = galaxies(neighbours=3.0)
    first, again, other = (
        picture(simulator.at(simulator.prior.sample(8, np.random.default_rng(3)), np.random.default_rng(s)), survey()) for s in (5, 5, 6)
    )
    assert np.array_equal(first, again)
    assert np.abs(first - other).max((1, 2, 3)).min() > 0


@pytest.mark.parametrize(
    ("options", "shares"),
    [({}, (0.22, 0.06, 0.72)), ({"fractions": (0.14, 0.08, 0.78)}, (0.14, 0.08, 0.78)),
     ({"classes": ("elliptical", "spiral")}, (0.234, 0.766)), ({"classes": ("spiral",)}, (1.0,))],
)
def test_classes_come_in_their_fractions(options, shares, rng):
    simulator = get_simulator("galaxies", **options)
    theta = simulator.prior.sample(20_000, rng)
    found = np.bincount(theta["morphology"].astype(int)) / 20_000
    assert found == pytest.approx(shares, abs=0.012)
    parameter = simulator.parameter("morphology")
    assert parameter.classes == simulator.classes and len(shares) == len(parameter.classes)
    assert simulator.prior.to_normal(theta).shape == (20_000, 6) and np.isfinite(simulator.prior.to_normal(theta)).all()
    assert picture(simulator.at({k: v[:3] for k, v in theta.items()}, rng), survey(size=32)).sum() > 0


def test_axis_ratio_follows_inclination():
    thin, tilted = (sky(galaxies(population=PLAIN), "spiral", half_light_radius=2.5, inclination=i) for i in (0, 60))
    point = sky(galaxies(population=PLAIN), "spiral", half_light_radius=0.02)
    camera = survey(0.4, 120, fwhm=0.8, psf="gaussian")
    (low, high), own = moments(picture(tilted, camera)[0, 1], 0.4), moments(picture(point, camera)[0, 1], 0.4).mean()
    h2 = (2.5 / 1.67835) ** 2
    height2 = (tilted.anatomy.smooth.vertical[0] ** 2).sum()
    assert high - own == pytest.approx(3 * h2, rel=0.02)
    assert low - own == pytest.approx(3 * h2 * 0.25 + np.pi**2 / 12 * height2, rel=0.02)
    round_low, round_high = moments(picture(thin, camera)[0, 1], 0.4)
    assert round_low == pytest.approx(round_high, rel=0.005)


def test_colours_of_the_classes_and_their_gradients():
    simulator = galaxies()
    g, r = (
        Channel(name=b, column=b, error_column="e", system="AB", wavelength=w, depth=30, noise=Noise(points=0.1)) for b, w in BANDS[:2]
    )
    colour = {}
    for name, bulge in (("elliptical", 0.9), ("spiral", 0.2), ("irregular", 0.05)):
        one = sky(simulator, name, 200, bulge_to_total=bulge, inclination=30)
        assert one.signal(r) == pytest.approx(16.0, abs=1e-6)
        colour[name] = np.median(one.signal(g) - one.signal(r))
    assert colour["elliptical"] > colour["spiral"] + 0.1 > colour["irregular"] + 0.2
    bluer = sky(galaxies(population={"colour_offset": -0.2}), "elliptical", 200, bulge_to_total=0.9, inclination=30)
    assert np.median(bluer.signal(g) - bluer.signal(r)) == pytest.approx(colour["elliptical"] - 0.2, abs=0.02)
    image = picture(sky(simulator, "spiral", 40, half_light_radius=4.0, bulge_to_total=0.3), survey()).sum(0)
    core, rim = image[:, 30:34, 30:34].sum((1, 2)), image[:, 10:14].sum((1, 2))
    assert 2.5 * np.log10(core[1] / core[0]) > 2.5 * np.log10(rim[1] / rim[0]) + 0.1


def test_options_of_the_population_change_what_they_name(rng):
    def lumps(**population):
        image = picture(sky(galaxies(population={**PLAIN, **population}), "spiral", 12, half_light_radius=4.0), survey())[:, 1]
        return np.abs(image - image[:, ::-1, ::-1]).sum() / image.sum()

    assert lumps() < 0.1 < lumps(clumpiness=1.0, arm_contrast=1.0) < lumps(clumpiness=3.0, arm_contrast=1.0)
    barred = sky(galaxies(population={**PLAIN, "bar_fraction": 1.0}), "spiral", 5)
    assert (barred.anatomy.smooth.index == 0.6).sum() == 5
    sizes = [
        np.median(get_simulator("galaxies", population={"size_scale": s}).prior.sample(4000, rng)["half_light_radius"]) for s in (1, 2)
    ]
    assert sizes[1] / sizes[0] == pytest.approx(2, rel=0.05)


def test_patches_are_lognormal_of_the_stated_strength():
    painting = importlib.import_module("sbi_da.simulators.galaxies.painting")
    structure = sky(galaxies(), "irregular", 30).anatomy.structure
    bare = dataclasses.replace(structure, texture=np.zeros(30), wobble=np.zeros(30))
    patchy = dataclasses.replace(structure, texture=np.full(30, 0.7), wobble=np.zeros(30))
    at = np.linspace(-2, 2, 40)
    ratio = np.stack([np.log(painting.paint(patchy, i, at, at) / (painting.paint(bare, i, at, at) + 1e-12) + 1e-9) for i in range(30)])
    seen = np.stack([painting.paint(bare, i, at, at) for i in range(30)]) > 1e-4
    assert np.std(ratio[seen]) == pytest.approx(0.7, rel=0.15)


def test_sizes_keep_to_the_surface_brightness_of_their_class(rng):
    simulator = get_simulator("galaxies")
    theta = simulator.prior.sample(4000, rng)
    brightness = simulator.derive(theta)["surface_brightness"]
    for code, (low, high) in enumerate(((18.5, 21.0), (20.2, 22.8), (19.2, 21.9))):
        own = brightness[theta["morphology"] == code]
        assert own.min() >= low - 1e-6 and own.max() <= high + 1e-6 and np.ptp(own) > 2


def test_vega_magnitudes_differ_from_ab():
    one = sky(galaxies(), "elliptical", bulge_to_total=0.9)
    k = {"name": "k", "column": "k", "error_column": "e", "wavelength": 2.16, "depth": 30, "noise": Noise(points=0.1)}
    ab, vega = (one.signal(Channel(system=s, **k))[0] for s in ("AB", "Vega"))
    assert ab - vega == pytest.approx(1.85, abs=0.01)
    assert 2.3 < 16.0 - vega < 3.5


@pytest.mark.parametrize(
    ("options", "message"),
    [({"clumps": 1}, "clumps"), ({"classes": ("lens",)}, "classes"), ({"classes": ("spiral", "spiral")}, "differ"),
     ({"fractions": (0.5, 0.5)}, "3 positive"), ({"fractions": (0.5, 0.2, 0.2)}, "sum to 1"),
     ({"population": {"clumpiness": -1}}, "clumpiness"), ({"population": {"arms": 1}}, "arms"),
     ({"prior": {"radius": {"kind": "uniform", "low": 1, "high": 2}}}, "radius"),
     ({"prior": {"morphology": {"kind": "uniform", "low": 0, "high": 2}}}, "morphology"),
     ({"prior": {"inclination": {"kind": "uniform", "low": 0, "high": 120}}}, "inclination")],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises((ConfigError, SbiDaError), match=message) as error:
        get_simulator("galaxies", **options)
    assert "\n" not in str(error.value)


def test_bad_parameters_and_surveys_are_refused():
    simulator = galaxies()
    with pytest.raises(SbiDaError, match="inclination"):
        sky(simulator, "spiral", inclination=95)
    with pytest.raises(SbiDaError, match="morphology"):
        simulator.at({"morphology": np.array([0.5]), **{k: np.array([v]) for k, v in THETA.items()}}, np.random.default_rng(0))
    with pytest.raises(UnknownNameError, match="magnitude"):
        simulator.at({"morphology": np.array([0.0])}, np.random.default_rng(0))
    one = sky(simulator, "spiral")
    channel = Channel(name="p", kind="parallax", unit="mas", column="p", error_column="e", noise=Noise(points=0.1))
    with pytest.raises(SbiDaError, match="parallax"):
        one.signal(channel)
    with pytest.raises(SbiDaError, match="takes no images"):
        picture(one, Survey(name="s", title="s", reference="s", channels=(channel,)))
    with pytest.raises(SbiDaError, match="wavelength 22"):
        picture(one, survey(bands=(("w4", 22.0),)))


def test_without_galsim_the_message_names_the_extra(monkeypatch):
    transforms = importlib.import_module("sbi_da.simulators.galaxies.transforms")
    monkeypatch.setitem(__import__("sys").modules, "galsim", None)
    with pytest.raises(SbiDaError, match=r"sbi-da\[galaxies\]"):
        transforms.require_galsim()


def test_images_and_photometry_join_in_one_posterior(tmp_path):
    """A continuous parameter from images and magnitudes, either of them missing for some."""
    from sbi_da.config import Config
    from sbi_da.inference import query
    from sbi_da.runs import build, train
    from sbi_da.simulation import simulate

    settings = Config.model_validate({
        "simulator": {"name": "galaxies"}, "surveys": ["panstarrs", "sdss_images"], "parameters": ["magnitude", "half_light_radius"],
        "missing": {"kind": "uniform", "channels": 0.0},
        "network": {"width": 16, "layers": 1, "heads": 2, "summary": 32, "blocks": 1, "context": 16, "transforms": 2, "bins": 4,
                    "hidden": [16], "images": {"options": {"widths": [8, 16], "blocks": [1, 1]}, "measured": True}},
        "training": {"simulations": 150, "epochs": 2, "steps_per_epoch": 10, "batch": 32, "validation": 60, "warmup": 2,
                     "learning_rate": 0.01},
    })
    simulator, surveys, _ = build(settings)
    estimator = train(settings, tmp_path / "run", progress=False)
    objects = simulate(simulator, surveys, 20, 5)
    both = query(estimator, objects, draws=50)
    images = query(estimator, objects.select(["sdss_images"]), draws=50)
    magnitudes = query(estimator, objects.select(["panstarrs"]), draws=50)
    assert set(both["surveys"]) == {"panstarrs+sdss_images"} and set(images["surveys"]) == {"sdss_images"}
    for columns in (both, images, magnitudes):
        assert np.isfinite(columns["magnitude_mean"]).all() and (columns["flag"] == "").all()
    assert not np.allclose(both["half_light_radius_mean"], magnitudes["half_light_radius_mean"])
