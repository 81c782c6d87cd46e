"""What labelled objects teach: parameters drawn for them, pairs, populations, a shift of the simulator."""

import copy

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from shifted_toy import real_objects

from sbi_da import alignment_run
from sbi_da.alignment.discrepancy import Discrepancy
from sbi_da.alignment_config import AlignmentConfig, PairSpec, Weighting
from sbi_da.alignment_run import align
from sbi_da.config import Config
from sbi_da.corrected import CorrectedSimulator, Inputs
from sbi_da.errors import SbiDaError
from sbi_da.labels import draw_parameters, labels_of
from sbi_da.layout import Layout
from sbi_da.learned_shift import LearnedShift
from sbi_da.lessons import ask_again, learn_from_labels, learn_without_labels
from sbi_da.plots import shift_figure
from sbi_da.real_population import population_of_posteriors, population_of_table
from sbi_da.records import Records
from sbi_da.records.tables import write_table
from sbi_da.runs import build
from sbi_da.simulation import simulate
from sbi_da.simulators import get_simulator


def test_twins_and_taught_parameters_follow_the_labels(base):
    simulator = get_simulator("linear_gaussian")
    real = real_objects(40, 1)
    known = real.parameters
    exact = Records.build({n: real.survey(n) for n in real.surveys}, parameters={k: known[k] for k in simulator.prior.names},
                          attrs={"domain": "real"})
    config = AlignmentConfig(correction=False, pairs=[PairSpec(kind="pair")])
    paired = learn_from_labels(base, simulator, exact, config).paired
    z = base.prior.to_normal({k: known[k] for k in base.parameter_names})
    assert np.allclose(paired.z, z[:, None]) and len(paired.twin) == 40 * paired.twins
    noisy = exact.with_parameters({"theta_1_error": np.full(40, 0.3)})
    found = learn_from_labels(base, simulator, noisy, config).paired.z
    index = base.parameter_names.index("theta_1")
    spread = found[:, :, index].std(1)
    assert 0.1 < np.median(spread) < 0.4, "errors of labels are passed on"


def test_what_labels_leave_open_is_asked_of_an_estimator_that_has_learned(calibrated):
    """Every channel is shifted by 1.5: the base takes that for other parameters, an estimator that reads channels less 1.5 does not."""
    simulator = get_simulator("linear_gaussian")
    plain = real_objects(60, 1, shift=1.5)
    known = {k: plain.parameters[k] for k in simulator.prior.names}
    real = Records.build({n: plain.survey(n) for n in plain.surveys}, parameters=known, attrs={"domain": "real"})
    real = real.with_parameters({f"{k}_error": np.full(60, 1.0) for k in simulator.prior.names})
    learned = copy.deepcopy(calibrated)
    read = learned.layout.read

    class Shifted:
        def __getattr__(self, name):
            return getattr(calibrated.layout, name)

        def read(self, records):
            found = read(records)
            return type(found)(found.value - 1.5, found.error, found.state)

    learned.layout = Shifted()
    config = AlignmentConfig(correction=False, pairs=[PairSpec(kind="pair")])
    first = learn_from_labels(calibrated, simulator, real, config)
    second = ask_again(first, calibrated, simulator, real, learned)
    truth = calibrated.prior.to_normal(known)
    lean = [np.abs((lesson.paired.z.mean(1) - truth[: len(lesson.paired)]).mean(0)).max() for lesson in (first, second)]
    assert first.open and len(first.paired) == len(second.paired) == 60
    assert lean[1] < 0.5 * lean[0]


@pytest.mark.filterwarnings("ignore:alignment is not used")
@pytest.mark.parametrize(("error", "rounds"), [(0.0, []), (0.3, [60, 60, 120])])
def test_parameters_are_drawn_again_only_where_labels_leave_them_open(base, monkeypatch, error, rounds):
    asked = []

    def again(lesson, first, simulator, labelled, candidate, seed):
        assert candidate is not first
        asked.append(len(labelled))
        return lesson

    monkeypatch.setattr(alignment_run, "ask_again", again)
    plain = real_objects(120, 1)
    known = {k: plain.parameters[k] for k in base.parameter_names}
    known |= {f"{k}_error": np.full(120, error) for k in base.parameter_names}
    real = Records.build({n: plain.survey(n) for n in plain.surveys}, parameters=known, attrs={"domain": "real"})
    config = AlignmentConfig(epochs=1, steps_per_epoch=2, batch=32, correction=False, adapter=["residual"], labelled=Weighting())
    align(base, real, config=config, threads=1)
    assert asked == rounds


def test_exact_labels_of_some_parameters_are_met(calibrated):
    real = real_objects(40, 1, shift=0.0)
    known = {k: real.parameters[k] for k in ("theta_1", "theta_2")}
    some = Records.build({n: real.survey(n) for n in real.surveys}, parameters=known, attrs={"domain": "real"})
    drawn = draw_parameters(calibrated, get_simulator("linear_gaussian"), some, draws=8)
    assert drawn.used.mean() > 0.8
    assert np.array_equal(drawn.theta["theta_1"][:, 3], known["theta_1"])
    assert (drawn.theta["theta_3"][drawn.used].std(1) > 0).mean() > 0.9


def test_labels_with_errors_are_met_by_the_draws(base):
    real = real_objects(40, 1)
    held = real.parameters
    known = {"theta_1": held["theta_1"], "theta_1_error": np.full(40, 0.05)}
    some = Records.build({n: real.survey(n) for n in real.surveys}, parameters=known, attrs={"domain": "real"})
    drawn = draw_parameters(base, get_simulator("linear_gaussian"), some, draws=4)
    miss = np.abs(drawn.theta["theta_1"] - held["theta_1"][:, None])[drawn.used]
    assert drawn.used.mean() > 0.9 and np.median(miss) < 0.1


def test_derived_labels_are_met_from_the_prior():
    config = Config.model_validate({
        "simulator": {"name": "stars"}, "surveys": ["gaia"], "parameters": ["feh", "distance", "av", "teff", "logg"],
        "network": {"width": 8, "layers": 1, "heads": 2, "summary": 8, "blocks": 0, "context": 8, "transforms": 1, "hidden": [8]},
    })
    simulator, surveys, estimator = build(config)
    records = simulate(simulator, surveys, 30, 3)
    drawn = draw_parameters(estimator, simulator, records, draws=2)
    found = simulator.derive({k: v[:, 0] for k, v in drawn.theta.items()})
    assert drawn.used.mean() > 0.6
    assert np.abs(found["teff"] / records.parameters["teff"] - 1)[drawn.used].max() < 0.02
    assert np.array_equal(drawn.theta["av"][:, 0], records.parameters["av"]) or drawn.theta["av"].shape == (30, 2)
    assert Layout(tuple(surveys)).channels


def test_labels_must_be_there(base):
    bare = Records.build({"modality_a": real_objects(5, 0).survey("modality_a")})
    with pytest.raises(SbiDaError, match="carry none of"):
        labels_of(base, bare)


def test_a_population_comes_from_posteriors_or_a_catalogue(calibrated, tmp_path):
    simulator = get_simulator("linear_gaussian")
    rng = np.random.default_rng(0)
    moved = {k: 0.5 * rng.standard_normal(600) + 0.7 for k in simulator.prior.names}
    real = simulate(simulator, simulator.surveys(), 600, 3, theta=moved)
    found = population_of_posteriors(calibrated, real).population
    assert found.means[0] == pytest.approx(0.7, abs=0.25)
    path = write_table(tmp_path / "catalogue.parquet", {**moved, "other": np.zeros(600)})
    found = population_of_table(calibrated, path).population
    assert found.fractions @ found.means == pytest.approx([0.7] * 3, abs=0.1)
    with pytest.raises(SbiDaError, match="has no column theta_3"):
        population_of_table(calibrated, write_table(tmp_path / "short.parquet", {k: moved[k] for k in ("theta_1", "theta_2")}))
    with pytest.raises(SbiDaError, match="at least 100"):
        population_of_table(calibrated, write_table(tmp_path / "few.parquet", {k: v[:9] for k, v in moved.items()}))


def test_a_learned_shift_is_told_channel_by_channel(base):
    simulator = get_simulator("linear_gaussian")
    lesson = learn_from_labels(base, simulator, real_objects(80, 1, shift=0.8), AlignmentConfig())
    found = LearnedShift.of(lesson.simulator, base.layout)
    told = found.to_dict()
    assert list(told) == [f"{s.name}.{c.name}" for s in base.layout.surveys for c in s.channels]
    assert all(each["shift"] == pytest.approx(0.8, abs=0.15) for each in told.values())
    assert all(each["q16"] <= each["shift"] <= each["q84"] and 0.02 < each["unknown"] < 0.15 for each in told.values())
    nothing = CorrectedSimulator(simulator, Discrepancy(None, np.eye(8), np.eye(8) * 0.1), Inputs(simulator), base.layout.channels)
    none = LearnedShift.of(nothing, base.layout)
    assert not none.shift.any() and not none.unknown.any() and none.scatter == pytest.approx(np.full(8, 0.1))


def test_without_labels_more_is_unknown_than_is_seen(calibrated):
    real = real_objects(300, 2, shift=1.0)
    lesson, _ = learn_without_labels(calibrated, get_simulator("linear_gaussian"), real)
    found = LearnedShift.of(lesson.simulator, calibrated.layout)
    assert (found.scatter >= 2 * np.sqrt(np.mean(found.shift**2, axis=0))).all()


def test_a_shift_is_drawn_in_a_panel_for_every_unit():
    shift = np.random.default_rng(0).normal(0.1, 0.02, (30, 3))
    fig = shift_figure(["gaia.G", "gaia.parallax", "wise.W1"], ["mag", "mas", "mag"], shift, 0 * shift + 0.01, np.full(3, 0.02))
    FigureCanvasAgg(fig).draw()
    assert [ax.get_ylabel() for ax in fig.axes] == ["real \u2212 simulated [mag]", "real \u2212 simulated [mas]"]
    assert [tick.get_text() for tick in fig.axes[0].get_xticklabels()] == ["gaia.G", "wise.W1"]
    with pytest.raises(SbiDaError, match="3 channels need"):
        shift_figure(["a", "b", "c"], ["mag"] * 3, shift[:, :2], shift[:, :2], np.ones(3))
