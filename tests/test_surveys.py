import sys
from dataclasses import dataclass

import numpy as np
import pytest

from sbi_da.errors import ConfigError, SbiDaError, UnknownNameError
from sbi_da.records import ABSENT, LIMIT, OBSERVED
from sbi_da.simulation import observe
from sbi_da.surveys import Channel, Survey, get_survey, list_surveys
from sbi_da.surveys import __path__ as survey_path

CARD = """
name: skymapper
title: SkyMapper DR4
reference: Onken et al. 2024, PASA 41, e061
id_columns: [object_id]
channels:
  - name: v
    column: v_psf
    error_column: e_v_psf
    system: AB
    wavelength: 0.3836
    noise: {points: [[9.0, 0.01], [16.0, 0.02], [19.0, 0.2]], floor: 0.02}
    depth: 19.5
    saturation: 8.5
"""
BUILT_IN = ["gaia", "panstarrs", "sdss", "spitzer", "twomass", "wise"]
BANDS = [
    "Gaia_G", "Gaia_BP", "Gaia_RP", "2MASS_J", "2MASS_H", "2MASS_Ks", "WISE_W1", "WISE_W2", "WISE_W3", "WISE_W4",
    "PS1_g", "PS1_r", "PS1_i", "PS1_z", "PS1_y", "SDSS_u", "SDSS_g", "SDSS_r", "SDSS_i", "SDSS_z", "IRAC_36", "IRAC_45",
]  # fmt: skip
SURVEYS = list_surveys()


@dataclass
class FlatSky:
    """The same magnitude (or parallax) in every channel."""

    magnitude: float
    n: int = 4000
    parallax: float = 3.0

    def signal(self, channel: Channel) -> np.ndarray:
        return np.full(self.n, self.magnitude if channel.kind == "magnitude" else self.parallax)


def folder_of(name):
    from pathlib import Path

    return next(Path(p) / name for p in survey_path if (Path(p) / name / "card.yaml").is_file())


def magnitudes(survey):
    return [c for c in survey.channels if c.kind == "magnitude"]


def test_built_in_surveys_are_listed():
    assert set(BUILT_IN) <= set(SURVEYS)
    keys = [c.band for name in BUILT_IN for c in magnitudes(get_survey(name))]
    assert sorted(keys) == sorted(BANDS)


@pytest.mark.parametrize("name", SURVEYS)
def test_card_is_sound(name):
    from astropy import units as u

    survey = get_survey(name)
    assert survey.name == name
    assert survey.id_columns
    for channel in survey.channels:
        u.Unit(channel.unit)
        assert channel.noise.floor > 0
        law = channel.noise
        bright = channel.saturation if channel.saturation is not None else 5.0
        faint = channel.depth if channel.depth is not None else 21.0
        assert bright < faint
        grid = law.sigma(np.linspace(bright - 5, faint + 3, 200))
        assert (grid > 0).all() and (np.diff(grid) >= 0).all()
        if isinstance(law.points, tuple):
            assert law.sigma(np.array(faint)) > 2 * law.sigma(np.array(bright))
            assert law.points[0][0] < faint
        if channel.kind == "magnitude":
            assert channel.unit == "mag"
            assert 0.02 < law.sigma(np.array(faint)) < 0.6 or name == "gaia"
            assert channel.valid is not None and channel.valid[0] < bright and channel.valid[1] > faint


@pytest.mark.parametrize("name", SURVEYS)
def test_readme_says_where_the_numbers_come_from(name):
    text = (folder_of(name) / "README.md").read_text()
    assert any(str(year) in text for year in range(1990, 2027))
    assert "source" in text and "µm" in text
    for channel in get_survey(name).channels:
        if channel.depth is not None:
            assert f"{channel.depth:.1f}" in text


def test_no_column_could_belong_to_two_channels():
    owner, folded = {}, {}
    for name in SURVEYS:
        for channel in get_survey(name).channels:
            by_card = [channel.column, channel.error_column, *channel.aliases, *channel.error_aliases]
            for spelling in by_card:
                assert owner.setdefault(spelling, (name, channel.name)) == (name, channel.name)
            for spelling in (channel.column, channel.error_column, f"{channel.column}_error"):
                assert folded.setdefault(spelling.lower(), (name, channel.name)) == (name, channel.name)


@pytest.mark.parametrize("name", SURVEYS)
def test_observe_bright_faint_and_saturated(name):
    survey = get_survey(name)
    for i, channel in enumerate(survey.channels):
        if channel.kind != "magnitude" or channel.noise.reference is not None:
            continue
        usual = observe(survey, FlatSky(channel.depth - 2.5), np.random.default_rng(1), extra_error=False)
        assert (usual.state[:, i] == OBSERVED).all()
        quoted = np.median(usual.error[:, i])
        assert quoted == pytest.approx(float(channel.noise.sigma(np.array(channel.depth - 2.5))), rel=0.02)
        deviation = np.std(usual.value[:, i])
        mean_square = np.mean(usual.error[:, i] ** 2) + channel.noise.floor**2
        assert deviation == pytest.approx(np.sqrt(mean_square), rel=0.1)
        at_depth = observe(survey, FlatSky(channel.depth), np.random.default_rng(2))
        assert 0.4 < (at_depth.state[:, i] == LIMIT).mean() < 0.6
        beyond = observe(survey, FlatSky(channel.depth + 4), np.random.default_rng(3))
        limits = beyond.state[:, i] == LIMIT
        assert limits.mean() > 0.95
        assert np.median(beyond.value[limits, i]) == pytest.approx(channel.depth, abs=0.02)
        assert np.std(beyond.value[limits, i]) == pytest.approx(channel.depth_scatter, rel=0.1)
        if channel.saturation is not None:
            burnt = observe(survey, FlatSky(channel.saturation - 0.5), np.random.default_rng(4))
            assert (burnt.state[:, i] == ABSENT).all()


def test_a_parallax_needs_its_reference():
    survey = get_survey("gaia")
    i = survey.channel_names.index("parallax")
    near, far = (observe(survey, FlatSky(m), np.random.default_rng(0)) for m in (14.0, 24.0))
    assert (near.state[:, i] == OBSERVED).all()
    assert (far.state[:, i] == ABSENT).all()
    assert (observe(survey, FlatSky(14.0, parallax=-0.2), np.random.default_rng(0)).value[:, i] < 0).any()


def test_a_card_is_all_a_new_survey_needs(tmp_path):
    (tmp_path / "skymapper").mkdir()
    (tmp_path / "skymapper" / "card.yaml").write_text(CARD)
    survey = get_survey(str(tmp_path / "skymapper"))
    assert survey.channels[0].band is None and survey.channels[0].wavelength == pytest.approx(0.3836)
    seen = observe(survey, FlatSky(15.0), np.random.default_rng(0))
    assert (seen.state == OBSERVED).all()
    assert "skymapper" not in list_surveys()


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A third-party package with an entry point, as pip would leave it; returns a function that installs one."""

    def install(package, entry, card=CARD, code="", module=None):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(code)
        if card:
            (tmp_path / package / "card.yaml").write_text(card)
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[sbi_da.surveys]\n{entry} = {module or package}\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, package, raising=False)

    yield install
    for name in ("some_sky", "broken_sky"):
        sys.modules.pop(name, None)


def test_entry_point(installed):
    installed("some_sky", "skymapper")
    assert "skymapper" in list_surveys()
    assert get_survey("skymapper").channel_names == ["v"]


def test_an_entry_point_is_not_imported(installed):
    installed("broken_sky", "skymapper", code="raise RuntimeError('no sky today')")
    assert "skymapper" in list_surveys()
    assert get_survey("skymapper").channel_names == ["v"] and "broken_sky" not in sys.modules


def test_broken_entry_point_warns_and_is_skipped(installed):
    installed("broken_sky", "broken", code="raise RuntimeError('no sky today')", module="broken_sky.card")
    with pytest.warns(UserWarning, match="broken.*skipped.*no sky today"):
        names = list_surveys()
    assert "broken" not in names and "gaia" in names
    with pytest.raises(SbiDaError, match="no sky today"):
        get_survey("broken")


def test_entry_point_without_a_card_warns_and_is_skipped(installed):
    installed("some_sky", "empty", card=None)
    with pytest.warns(UserWarning, match="card.yaml"):
        assert "empty" not in list_surveys()
    with pytest.raises(SbiDaError, match="card.yaml"):
        get_survey("empty")


def test_unknown_survey_lists_the_known():
    with pytest.raises(UnknownNameError, match="gaai.*known are.*gaia.*wise.*card.yaml"):
        get_survey("gaai")


@pytest.mark.parametrize(
    "old, new, message",
    [
        ("column: v_psf", "colum: v_psf", "channels.0"),
        ("system: AB", "system: ST", "AB"),
        ("wavelength: 0.3836", "wavelength: -1", "greater than 0"),
        ("[9.0, 0.01], [16.0, 0.02]", "[16.0, 0.01], [9.0, 0.02]", "rising"),
        ("depth: 19.5", "zero_point: 0.1", "needs depth"),
        ("name: skymapper", "name: [", "not valid YAML"),
        ("floor: 0.02", "floor: 0.02, reference: q", "no channel"),
    ],
)
def test_bad_cards_are_refused_in_one_line(tmp_path, old, new, message):
    assert old in CARD
    (tmp_path / "card.yaml").write_text(CARD.replace(old, new, 1))
    with pytest.raises(ConfigError, match=message) as caught:
        get_survey(str(tmp_path))
    assert "\n" not in str(caught.value) and "card.yaml" in str(caught.value)


def test_a_list_is_no_card():
    with pytest.raises(ConfigError, match="mapping"):
        Survey.from_card([1, 2])
