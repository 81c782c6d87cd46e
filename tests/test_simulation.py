"""Contracts every simulator gets tested against by existing, and the way from parameters to records."""

import numpy as np
import pytest

from sbi_da.errors import SbiDaError, UnknownNameError
from sbi_da.inference_prior import inference_prior
from sbi_da.proposal import Proposal, Widening
from sbi_da.records import ABSENT, UniformMissing
from sbi_da.simulation import lose, simulate
from sbi_da.simulators import get_simulator, list_simulators
from sbi_da.surveys import get_survey, list_surveys


def surveys_of(simulator):
    """Those it brings; else all it can send something to: images and optical magnitudes of galaxies, photometry and parallaxes of stars."""
    if type(simulator).__name__ == "Galaxies":
        pytest.importorskip("galsim")
        return [get_survey(name) for name in ("panstarrs", "sdss_images")]
    every = [get_survey(name) for name in list_surveys()]
    return list(simulator.surveys()) or [survey for survey in every if survey.image is None]


@pytest.mark.parametrize("name", list_simulators())
class TestEverySimulator:
    def test_prior_round_trip_and_bounds(self, name, rng):
        simulator = get_simulator(name)
        assert [p.name for p in simulator.parameters] == simulator.prior.names
        theta = simulator.prior.sample(5000, rng)
        for parameter in simulator.parameters:
            assert parameter.description
            value = theta[parameter.name]
            assert value.min() >= parameter.bounds[0] and value.max() <= parameter.bounds[1]
        assert np.isfinite(simulator.prior.log_prob(theta)).all()
        again = simulator.prior.from_normal(simulator.prior.to_normal(theta))
        for key, value in theta.items():
            assert np.allclose(again[key], value, rtol=1e-7)

    def test_signals_are_finite_and_of_the_right_shape(self, name, rng):
        simulator = get_simulator(name)
        sky = simulator.at(simulator.prior.sample(300, rng), rng)
        for survey in surveys_of(simulator):
            for channel in survey.channels:
                signal = sky.signal(channel)
                assert signal.shape == (300,) and np.isfinite(signal).all(), channel.name

    def test_derived_quantities_lie_within_their_bounds(self, name, rng):
        simulator = get_simulator(name)
        derived = simulator.derive(simulator.prior.sample(2000, rng))
        assert set(derived) == {p.name for p in simulator.derived}
        for parameter in simulator.derived:
            value = derived[parameter.name]
            assert value.min() >= parameter.bounds[0] and value.max() <= parameter.bounds[1]

    def test_the_same_seed_gives_the_same_records(self, name):
        simulator = get_simulator(name)
        surveys = surveys_of(simulator)
        a, b, c = (simulate(simulator, surveys, 100, seed, UniformMissing()) for seed in (1, 1, 2))
        assert a.tree.identical(b.tree) and not a.tree.identical(c.tree)

    def test_every_parameter_and_derived_quantity_can_be_inferred(self, name):
        simulator = get_simulator(name)
        for parameter in (*simulator.parameters, *simulator.derived):
            prior = inference_prior(simulator, [parameter.name])
            drawn = prior.sample(1000, np.random.default_rng(0))[parameter.name]
            assert parameter.bounds[0] <= drawn.min() and drawn.max() <= parameter.bounds[1]

    def test_all_parameters_together_keep_their_exact_laws(self, name):
        simulator = get_simulator(name)
        assert inference_prior(simulator, simulator.prior.names[::-1]).to_dict() == simulator.prior.to_dict()

    def test_an_unknown_option_is_refused(self, name):
        with pytest.raises(SbiDaError, match="no_such_option"):
            get_simulator(name, no_such_option=1)


def test_theta_gives_twins_with_fresh_noise():
    simulator = get_simulator("linear_gaussian")
    theta = simulator.prior.sample(50, np.random.default_rng(0))
    a, b = (simulate(simulator, simulator.surveys(), 0, seed, theta=theta) for seed in (1, 2))
    assert np.array_equal(a.parameters["theta_1"], b.parameters["theta_1"])
    difference = a.survey("modality_a").value - b.survey("modality_a").value
    assert difference.std() == pytest.approx(0.5 * np.sqrt(2), rel=0.25)


def test_an_unknown_parameter_in_a_proposal_is_refused():
    simulator = get_simulator("linear_gaussian")
    with pytest.raises(UnknownNameError, match="theta_1"):
        simulate(simulator, simulator.surveys(), 5, 0, proposal=Proposal(parameters={"age": Widening()}))


def test_a_simulator_from_a_folder_of_ones_own(tmp_path):
    folder = tmp_path / "coin"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from sbi_da.distributions import Uniform\n"
        "from sbi_da.prior import Prior\n"
        "from sbi_da.simulators import Parameter, Simulator\n"
        "class Coin(Simulator):\n"
        "    parameters = (Parameter('p', '', 'chance of heads', (0.0, 1.0)),)\n"
        "    def __init__(self, tosses: int = 3) -> None:\n"
        "        self.tosses = tosses\n"
        "    @property\n"
        "    def prior(self):\n"
        "        return Prior({'p': Uniform(low=0, high=1)})\n"
        "    def at(self, theta, rng):\n"
        "        raise NotImplementedError\n"
        "SIMULATOR = Coin\n"
    )
    assert get_simulator(str(folder), tosses=5).tosses == 5
    with pytest.raises(SbiDaError, match="tosses"):
        get_simulator(str(folder), tosses="many")
    (folder / "__init__.py").write_text("SIMULATOR = 3\n")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "__init__.py").write_text("SIMULATOR = 3\n")
    with pytest.raises(SbiDaError, match="must set SIMULATOR"):
        get_simulator(str(broken))
    with pytest.raises(UnknownNameError, match="linear_gaussian"):
        get_simulator(str(tmp_path / "nothing"))


def test_what_is_too_bright_for_all_that_looked_is_marked(rng):
    """An object left with nothing because everything kept was saturated is told apart from one nobody looked at."""
    simulator = get_simulator("stars")
    theta = {"log_age": [9.5, 9.5], "feh": [0.0, 0.0], "mass": [1.0, 1.0], "av": [0.0, 0.0], "distance": [15.0, 1000.0]}
    records = simulate(simulator, [get_survey("panstarrs")], 0, 1, theta=theta)
    assert records.columns["emptied"].tolist() == [True, False]
    assert records.pattern().tolist() == ["none", "panstarrs"]
    left, _, saturated = lose({"panstarrs": records.survey("panstarrs")}, _Nothing(), rng)
    assert (left["panstarrs"].state == ABSENT).all() and not saturated.any()


class _Nothing(UniformMissing):
    def keep(self, state, survey, rng):
        return np.zeros(state.shape, bool)
