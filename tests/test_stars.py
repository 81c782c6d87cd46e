"""The stars simulator: physics it must reproduce, invariances, bad input."""

from pathlib import Path

import numpy as np
import pytest

from sbi_da.config import load_config, read_mapping
from sbi_da.distributions import distribution_from_dict
from sbi_da.errors import ConfigError, SbiDaError, UnknownNameError
from sbi_da.simulation import simulate
from sbi_da.simulators import get_simulator
from sbi_da.surveys import Channel, Noise, get_survey

SUN = {"log_age": 9.66, "feh": 0.0, "mass": 1.0, "av": 0.0, "distance": 10.0}
PLAIN = {"companion_fraction": 0.0, "disc": False, "zero_point_jitter": 0.0}


def channel(band, system="Vega", wavelength=0.6, name="x", **more):
    return Channel(
        name=name, column="c", error_column="e", system=system, band=band, wavelength=wavelength, depth=20,
        noise=Noise(points=0.01), **more,
    )


def column(value, n=1):
    return {k: np.full(n, float(v)) for k, v in value.items()}


def magnitude(stars, theta, band, seed=0, **more):
    return stars.at(theta, np.random.default_rng(seed)).signal(channel(band, **more))


@pytest.fixture(scope="module")
def stars():
    return get_simulator("stars", **PLAIN)


@pytest.fixture(scope="module")
def full():
    return get_simulator("stars")


# [Fe/H] is that at birth; the Sun was born 0.05 to 0.07 dex richer than its surface is, so models of [Fe/H] = 0 are hotter.
@pytest.mark.parametrize("name, tolerance", [("mist", 80), ("parsec", 130)])
def test_the_sun(name, tolerance):
    stars = get_simulator("stars", isochrones=name, **PLAIN)
    sun = stars.derive(column(SUN))
    assert abs(sun["teff"][0] - 5772) < tolerance
    assert abs(sun["logg"][0] - 4.438) < 0.05
    assert abs(sun["radius"][0] - 1) < 0.05
    assert abs(magnitude(stars, column(SUN), "Gaia_G")[0] - 4.67) < 0.15


@pytest.mark.parametrize("name", ["mist", "parsec", "bhac15"])
def test_interpolation_reproduces_nodes(name, rng):
    isochrones = get_simulator("stars", isochrones=name).isochrones
    from sbi_da.simulators.stars.checks import read_grid

    grid = read_grid(f"isochrones_{name}")
    f, a = rng.integers(len(isochrones.feh), size=400), rng.integers(len(isochrones.log_age), size=400)
    e = (grid["first"][f, a] + rng.random(400) * (grid["last"][f, a] - grid["first"][f, a])).astype(int)
    mass = np.exp(grid["ln_m_hi"][f, a] - grid["deficit"][f, a, e].astype(float))
    found = isochrones.interpolate(isochrones.log_age[a], mass, isochrones.feh[f])
    for key, values in zip(("log_teff", "log_g", "log_l"), found, strict=True):
        offset, scale, _, _ = grid[f"{key}_code"]
        error = np.abs(values - (grid[key][f, a, e] * scale + offset))
        assert np.quantile(error, 0.9) < 2e-4, key
        assert error.max() < 0.02, key  # float64 masses within 1e-9 of the tip


def test_interpolation_is_continuous(stars):
    age = np.linspace(8.0, 10.0, 4001)
    derived = stars.derive({**column(SUN, len(age)), "log_age": age, "mass": np.full(len(age), 0.9)})
    assert np.abs(np.diff(np.log10(derived["teff"]))).max() < 1e-3


def test_mass_limits_are_the_isochrones(stars, rng):
    theta = stars.prior.sample(2000, rng)
    low, high = stars.isochrones.limits()(theta)
    assert np.all(low < high)
    for mass in (np.maximum(low, 0.1), np.minimum(high, 50.0)):
        assert np.all(np.isfinite(stars.derive({**theta, "mass": mass})["teff"]))
    with pytest.raises(SbiDaError, match="mass: .* outside the prior's support"):
        stars.derive({**theta, "mass": high * 1.01})


@pytest.mark.parametrize("name", ["mist", "parsec", "bhac15"])
def test_prior_round_trip(name):
    prior = get_simulator("stars", isochrones=name).prior
    theta = prior.sample(10_000, np.random.default_rng(1))
    z = prior.to_normal(theta)
    assert np.all(np.isfinite(z))
    back = prior.from_normal(z)
    for key in theta:
        np.testing.assert_allclose(back[key], theta[key], rtol=1e-6, atol=1e-7, err_msg=key)


def test_distance_and_extinction(stars, rng):
    theta = stars.prior.sample(500, rng)
    near = {**theta, "distance": np.full(500, 100.0)}
    far = {**theta, "distance": np.full(500, 1000.0)}
    np.testing.assert_allclose(magnitude(stars, far, "Gaia_G") - magnitude(stars, near, "Gaia_G"), 5.0, atol=1e-4)
    clear, dusty = ({**theta, "av": np.full(500, av)} for av in (0.0, 1.0))
    dim = {b: magnitude(stars, dusty, b) - magnitude(stars, clear, b) for b in ("Bessell_V", "Gaia_BP", "Gaia_RP", "WISE_W1")}
    assert np.all(np.abs(dim["Bessell_V"] - 1) < 0.05)
    assert np.all(dim["Gaia_BP"] > dim["Gaia_RP"])
    assert np.all((dim["WISE_W1"] > 0.02) & (dim["WISE_W1"] < 0.1))


@pytest.mark.parametrize("law", ["CCM89", "F04", "F19", "F99", "G23", "M14", "O94"])
def test_laws(law):
    stars = get_simulator("stars", extinction_law=law, **PLAIN)
    dusty, clear = ({**column(SUN), "av": np.array([av])} for av in (1.0, 0.0))
    dim = {b: (magnitude(stars, dusty, b) - magnitude(stars, clear, b))[0] for b in stars.atmosphere.bands if b[:2] != "PS" and
           stars.atmosphere.system[b] == "Vega"}
    assert abs(dim["Bessell_V"] - 1) < 0.05
    assert dim["Gaia_BP"] > dim["Gaia_G"] > dim["2MASS_J"] > dim["2MASS_H"] > dim["2MASS_Ks"] > dim["WISE_W1"] > dim["WISE_W2"] > 0


def test_extinction_of_ccm89_is_that_of_the_mist_tables():
    stars = get_simulator("stars", extinction_law="CCM89", **PLAIN)
    dusty, clear = ({**column(SUN), "av": np.array([av])} for av in (1.0, 0.0))
    # A_b / A_V of Gaia EDR3 for a G2 V star (e.g. Casagrande & VandenBerg 2018: 0.83, 1.02, 0.62)
    for band, ratio in {"Gaia_G": 0.83, "Gaia_BP": 1.03, "Gaia_RP": 0.62}.items():
        assert magnitude(stars, dusty, band)[0] - magnitude(stars, clear, band)[0] == pytest.approx(ratio, abs=0.04)


def test_seed_decides_and_channels_share(full):
    theta = full.prior.sample(3000, np.random.default_rng(5))
    survey = get_survey("twomass")

    def all_of(seed, channels):
        sky = full.at(theta, np.random.default_rng(seed))
        return {c.name: sky.signal(c) for c in channels}

    first, again = all_of(1, survey.channels), all_of(1, survey.channels[::-1])
    for name in first:
        np.testing.assert_array_equal(first[name], again[name])
    assert np.any(first["J"] != all_of(2, survey.channels)["J"])


def test_results_do_not_depend_on_neighbours(stars):
    theta = stars.prior.sample(40_000, np.random.default_rng(5))
    one = {k: v[39_000:39_010] for k, v in theta.items()}
    np.testing.assert_array_equal(magnitude(stars, theta, "Gaia_G")[39_000:39_010], magnitude(stars, one, "Gaia_G"))


def test_companions_brighten_by_at_most_a_factor_two(stars):
    paired = get_simulator("stars", **{**PLAIN, "companion_fraction": 1.0})
    theta = column({**SUN, "log_age": 9.0}, 4000)
    for band in ("Gaia_G", "WISE_W1"):
        gain = magnitude(stars, theta, band) - magnitude(paired, theta, band)
        assert gain.min() > -1e-4 and gain.max() < 0.7526 + 1e-3
        assert gain.max() > 0.6
    # a companion below the smallest mass of the isochrones adds nothing
    light = {**theta, "mass": np.full(4000, 0.105)}
    gain = magnitude(stars, light, "Gaia_G") - magnitude(paired, light, "Gaia_G")
    assert np.mean(np.abs(gain) < 1e-4) > 0.9


def test_discs_redden_the_young_only(stars):
    dusty = get_simulator("stars", **{**PLAIN, "disc": True})
    for log_age, share in ((6.1, 0.8 * np.exp(-(10**0.1) / 2.5)), (9.0, 0.0)):
        theta = column({**SUN, "log_age": log_age}, 20_000)
        excess = {
            b: magnitude(stars, theta, b) - magnitude(dusty, theta, b)
            for b in ("Gaia_RP", "2MASS_J", "2MASS_Ks", "WISE_W1", "WISE_W4")
        }
        assert np.all(excess["Gaia_RP"] == 0)
        assert np.all(excess["WISE_W4"] >= excess["WISE_W1"] - 1e-5)
        assert np.all(excess["WISE_W1"] >= excess["2MASS_Ks"] - 1e-5)
        assert np.mean(excess["WISE_W1"] > 1e-3) == pytest.approx(share, abs=0.015)


def test_jitter_is_per_object_and_band(stars):
    shaken = get_simulator("stars", **{**PLAIN, "zero_point_jitter": 0.03})
    theta = column(SUN, 5000)
    offset = {b: magnitude(shaken, theta, b) - magnitude(stars, theta, b) for b in ("Gaia_G", "Gaia_BP")}
    assert np.std(offset["Gaia_G"]) == pytest.approx(0.03, rel=0.05)
    assert abs(np.corrcoef(offset["Gaia_G"], offset["Gaia_BP"])[0, 1]) < 0.05


@pytest.mark.parametrize("isochrones", ["mist", "parsec", "bhac15"])
@pytest.mark.parametrize("atmosphere", ["mist_bc", "bt_settl", "phoenix", "kurucz", "ck04"])
def test_every_combination_runs(isochrones, atmosphere):
    stars = get_simulator("stars", isochrones=isochrones, atmosphere=atmosphere)
    surveys = [get_survey(n) for n in ("gaia", "panstarrs", "sdss", "twomass", "wise", "spitzer")]
    records = simulate(stars, surveys, 300, seed=2)
    assert set(records.parameters) >= {"log_age", "teff", "radius"}
    for parameter in (*stars.parameters, *stars.derived):
        values = records.parameters[parameter.name]
        low, high = parameter.bounds
        assert np.all((values >= low * (1 - np.sign(low) * 1e-4)) & (values <= high * (1 + np.sign(high) * 1e-4))), parameter


def test_unknown_passband_is_read_off_the_spectrum(stars):
    theta = column(SUN)
    for band, system, wavelength in (("PS1_i", "AB", 0.7535), ("2MASS_H", "Vega", 1.6458), ("WISE_W2", "Vega", 4.6028)):
        known = magnitude(stars, theta, band, system=system)
        guess = magnitude(stars, theta, None, system=system, wavelength=wavelength)
        assert abs(known - guess)[0] < 0.1, band
    offset = magnitude(stars, theta, None, wavelength=2.2, system="AB") - magnitude(stars, theta, None, wavelength=2.2)
    assert offset[0] == pytest.approx(1.87, abs=0.08)  # K band, AB - Vega
    with pytest.raises(SbiDaError, match="outside"):
        magnitude(stars, theta, None, wavelength=100.0)
    with pytest.raises(SbiDaError, match="Vega magnitudes"):
        magnitude(stars, theta, "Gaia_G", system="AB")


def test_other_channels(stars):
    sky = stars.at({**column(SUN), "distance": np.array([250.0])}, np.random.default_rng(0))
    parallax = Channel(name="p", kind="parallax", unit="mas", column="c", error_column="e", noise=Noise(points=0.1))
    assert sky.signal(parallax)[0] == pytest.approx(4.0)
    with pytest.raises(SbiDaError, match="scalar"):
        sky.signal(parallax.model_copy(update={"kind": "scalar"}))
    shifted = sky.signal(channel("Gaia_G", zero_point=0.25)) - sky.signal(channel("Gaia_G"))
    assert shifted[0] == pytest.approx(0.25)


@pytest.mark.parametrize("bad", [{"mass": np.nan}, {"log_age": 11.0}, {"feh": -4.0}, {"av": -0.1}, {"distance": 1e6}, {"mass": 3.0}])
def test_outside_the_support_is_refused(stars, bad):
    name = next(iter(bad))
    with pytest.raises(SbiDaError, match=f"^{name}: 1 of 1 values"):
        stars.derive(column({**SUN, **bad}))
    with pytest.raises(SbiDaError, match=f"^{name}: 1 of 1 values"):
        stars.at(column({**SUN, **bad}), np.random.default_rng(0))


def test_missing_parameter_is_named(stars):
    with pytest.raises(UnknownNameError, match="'av'"):
        stars.derive({k: v for k, v in column(SUN).items() if k != "av"})


@pytest.mark.parametrize(
    "options, error, match",
    [
        ({"prior": {"ages": {"kind": "uniform", "low": 1, "high": 2}}}, UnknownNameError, "ages"),
        ({"prior": {"av": {"kind": "uniform", "low": 2}}}, ConfigError, "prior.av"),
        ({"prior": {"av": {"kind": "uniform", "low": -1, "high": 2}}}, SbiDaError, "prior.av"),
        ({"prior": {"log_age": {"kind": "uniform", "low": 5, "high": 10}}}, SbiDaError, "prior.log_age"),
        ({"prior": {"feh": {"kind": "uniform", "low": -1, "high": 0.5}}, "isochrones": "bhac15"}, SbiDaError, "prior.feh"),
        ({"prior": {"mass": {"kind": "power_law", "low": 5, "high": 9}}}, SbiDaError, "prior.mass"),
        ({"extinction_law": "SMC"}, UnknownNameError, "known are CCM89"),
        ({"r_v": 9.0}, SbiDaError, "r_v"),
        ({"companion_fraction": 1.5}, SbiDaError, "companion_fraction"),
        ({"zero_point_jitter": -1}, SbiDaError, "zero_point_jitter"),
        ({"isochrones": "geneva"}, ConfigError, "isochrones"),
    ],
)
def test_bad_options(options, error, match):
    with pytest.raises(error, match=match):
        get_simulator("stars", **options)


def test_prior_option_replaces_one_law():
    stars = get_simulator("stars", prior={"av": {"kind": "uniform", "low": 0.0, "high": 0.5}})
    assert stars.parameter("av").bounds == (0.0, 0.5)
    assert stars.parameter("distance").bounds == (10.0, 30000.0)


def test_draws_of_config_field_weigh_at_most_two_under_the_example_prior():
    prior = get_simulator("stars", **load_config("field").simulator.options).prior
    laws = read_mapping(Path(__file__).parents[1] / "examples" / "field_prior.yaml")
    field = prior.replaced({k: distribution_from_dict(law, k) for k, law in laws.items()})
    theta = prior.sample(2000, np.random.default_rng(4))
    ratio = np.exp(field.log_prob(theta) - prior.log_prob(theta))
    assert ratio.max() <= 2.001 and ratio.mean() == pytest.approx(1, abs=0.06)
