"""The grids the stars simulator ships: complete, finite, and calibrated."""

import numpy as np
import pytest
from sbi_da.simulators.stars import checks

ATMOSPHERES = ("mist_bc", "bt_settl", "phoenix", "kurucz", "ck04")
ISOCHRONES = ("mist", "parsec", "bhac15")


@pytest.mark.parametrize("name", ATMOSPHERES)
def test_atmosphere_passes_its_checks(name):
    grid = checks.read_grid(f"atmosphere_{name}")
    measured = checks.check_atmosphere(grid, name)
    assert 4.66 <= measured["M_G"] <= 4.69
    assert str(grid["citation"])


@pytest.mark.parametrize("name", ISOCHRONES)
def test_isochrones_pass_their_checks(name):
    checks.check_isochrones(checks.read_grid(f"isochrones_{name}"), name)


def test_axes_and_bands_are_common():
    first = checks.read_grid("atmosphere_mist_bc")
    for name in ATMOSPHERES[1:]:
        other = checks.read_grid(f"atmosphere_{name}")
        for key in ("feh", "logg", "log_teff", "bands", "system", "wavelength"):
            np.testing.assert_array_equal(first[key], other[key])


def test_systems_are_known_and_zero_points_fit():
    grid = checks.read_grid("atmosphere_ck04")
    zero = dict(zip(grid["bands"].tolist(), grid["zero_point_jy"], strict=True))
    system = dict(zip(grid["bands"].tolist(), grid["system"], strict=True))
    assert system["PS1_g"] == system["SDSS_u"] == "AB" and system["Gaia_G"] == system["WISE_W4"] == "Vega"
    # Published flux densities of magnitude zero, Jy
    for band, jansky in {
        "Bessell_V": 3636, "2MASS_J": 1594, "2MASS_Ks": 666.8, "WISE_W1": 309.5, "IRAC_36": 280.9, "PS1_g": 3631,
    }.items():
        assert zero[band] == pytest.approx(jansky, rel=0.03), band


@pytest.mark.parametrize("name", ATMOSPHERES)
def test_atmospheres_agree_on_warm_dwarfs(name):
    reference, grid = checks.read_grid("atmosphere_mist_bc"), checks.read_grid(f"atmosphere_{name}")
    for band in ("Gaia_G", "Gaia_BP", "Gaia_RP", "2MASS_J", "2MASS_Ks", "WISE_W1", "WISE_W3", "WISE_W4", "PS1_r"):
        for teff in (6000, 7500, 9500):
            difference = checks.correction(grid, band, teff, 4.3, 0.0) - checks.correction(reference, band, teff, 4.3, 0.0)
            assert abs(difference) < 0.06, (band, teff)


def test_checks_refuse_bad_grids():
    good = checks.read_grid("atmosphere_kurucz")
    code = good["bc_code"].copy()
    code[list(good["bands"]).index("WISE_W3"), 0] += 0.8
    with pytest.raises(checks.GridError, match="WISE_W3"):
        checks.check_atmosphere({**good, "bc_code": code}, "kurucz")
    code = good["bc_code"].copy()
    code[list(good["bands"]).index("Gaia_G"), 0] -= 0.1
    with pytest.raises(checks.GridError, match="M_G"):
        checks.check_atmosphere({**good, "bc_code": code}, "kurucz")
    with pytest.raises(checks.GridError, match="no flux"):
        checks.check_rows(np.array([[1.0, 2.0], [0.0, 0.0]]), "ck04")
    iso = checks.read_grid("isochrones_bhac15")
    deficit = iso["deficit"].copy()
    deficit[0, 0, 5] = deficit[0, 0, 4]
    with pytest.raises(checks.GridError, match="mass must rise"):
        checks.check_isochrones({**iso, "deficit": deficit}, "bhac15")


def test_effective_wavelengths_move_redwards():
    grid = checks.read_grid("extinction")
    k = grid["bands"].tolist().index("Gaia_G")
    table = grid["wavelength"][k]
    assert np.all(np.diff(table[:, 0]) < 0.02) and table[0, 0] > table[-1, 0] + 0.1  # hotter stars: bluer
    assert np.all(np.diff(table, axis=1) > 0)  # more dust: redder


def test_grids_are_small_and_hold_no_objects():
    files = sorted(checks.GRIDS.glob("*.npz"))
    assert len(files) == len(ATMOSPHERES) + len(ISOCHRONES) + 1
    assert sum(f.stat().st_size for f in files) < 25e6
    for file in files:
        assert all(array.dtype != object for array in checks.read_grid(file.stem).values())
