"""Aligning an estimator: the way from real objects to a judged artefact."""

import copy

import numpy as np
import pytest
import torch
from shifted_toy import real_objects

from sbi_da import alignment_run
from sbi_da.aligning import AlignmentModule, ThreeStreams
from sbi_da.alignment.features import Features
from sbi_da.alignment_config import AlignmentConfig, PairSpec, TermSpec, Weighting
from sbi_da.alignment_run import align
from sbi_da.config import Config, TrainingConfig
from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.labels import label_log_score, label_noise
from sbi_da.lessons import Lesson
from sbi_da.proposal import Proposal
from sbi_da.records import Records
from sbi_da.runs import build
from sbi_da.simulation import simulate
from sbi_da.simulators import get_simulator
from sbi_da.sources import SimulatorSource

TINY = {"epochs": 1, "steps_per_epoch": 3, "batch": 32}


@pytest.mark.filterwarnings("ignore:alignment is not used")
@pytest.mark.parametrize("config", [
    AlignmentConfig(**TINY),
    AlignmentConfig(**TINY, correction=False, adapter=["instrument", "film", "residual"], train="adapter",
                    pairs=[PairSpec(kind="pair")], labelled=Weighting(kind="fixed")),
    AlignmentConfig(**TINY, correction=False, adapter=["film"], terms=[TermSpec(kind="sinkhorn", on="both")], population="labels"),
    AlignmentConfig(**TINY, correction=False, adapter=["residual"], pairs=[PairSpec(kind="pair_mean")],
                    terms=[TermSpec(kind="keypoints", strata="none", weight=Weighting(kind="fixed"))]),
    AlignmentConfig(**TINY, correction=False, adapter=["residual"], learned=True, pairs=[PairSpec(kind="pair")],
                    labelled=Weighting(kind="fixed")),
], ids=["correction", "pairs", "terms", "keypoints", "learned"])
def test_every_way_runs_and_leaves_an_artefact(base, config, tmp_path):
    before = {k: v.clone() for k, v in base.state_dict().items()}
    found = align(base, real_objects(60, 1), real_objects(80, 2), config, tmp_path / "run", threads=1)
    loaded = Estimator.load(tmp_path / "run")
    assert (tmp_path / "run" / "alignment.json").is_file() and (tmp_path / "run" / "contexts.png").is_file()
    assert loaded.metadata["alignment"]["verdict"]["kept"] == found.verdict.kept
    assert all(torch.equal(before[k], v) for k, v in base.state_dict().items())
    trained = {k: v for k, v in found.candidate.state_dict().items() if k.startswith("adapter.") or config.train == "all"}
    fresh = copy.deepcopy(base)
    fresh.adapt(config.adapter)
    assert any(not torch.equal(v, fresh.state_dict()[k]) for k, v in trained.items() if k in before or not v.eq(0).all())
    assert np.isfinite(label_log_score(loaded, real_objects(10, 3))).all()


@pytest.mark.filterwarnings("ignore:alignment is not used")
def test_nothing_is_judged_by_objects_it_has_learned_from(base, monkeypatch):
    """Few labels: every object judges once, an alignment learned from the other half. Many: a share judges. Then all are learned from."""
    events = []

    def learn(base, simulator, labelled, *_):
        events.append(("learn", labelled.ids))
        return Lesson(simulator)

    def score(_, judges):
        events.append(("judge", judges.ids))
        return np.arange(len(judges))

    monkeypatch.setattr(alignment_run, "learn_from_labels", learn)
    monkeypatch.setattr(alignment_run, "label_log_score", score)
    monkeypatch.setattr(alignment_run, "_train", lambda *_: copy.deepcopy(base))

    def held_out(n):
        events.clear()
        found = align(base, real_objects(n, 1), config=AlignmentConfig(held_out=0.2))
        learned = set()
        for what, ids in events:
            assert what == "learn" or not learned & set(ids)
            learned = set(ids) if what == "learn" else learned
        assert len(learned) == n, "in the end all are learned from"
        return found.verdict.figures["held_out"]

    assert held_out(30) == 30
    assert held_out(250) == 50


@pytest.mark.filterwarnings("ignore:alignment is not used")
def test_a_run_that_is_stopped_leaves_what_was_there(base, tmp_path, monkeypatch):
    config = AlignmentConfig(**TINY, correction=False, adapter=["residual"], labelled=Weighting())
    out = tmp_path / "run"

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(alignment_run, "_pictures", stop)
    with pytest.raises(KeyboardInterrupt):
        align(base, real_objects(30, 1), config=config, out=out, threads=1)
    assert not list(tmp_path.iterdir())
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(SbiDaError, match="something else"):
        align(base, real_objects(30, 1), config=config, out=out, threads=1)
    assert (out / "thesis.txt").read_text() == "mine"


def test_shares_are_shares_and_break_no_group():
    real = real_objects(11, 1)
    assert alignment_run._share(real, 0.5, 0).sum() in (5, 6)
    assert not np.array_equal(alignment_run._share(real, 0.5, 0), alignment_run._share(real, 0.5, 1))

    def grouped(names):
        return Records.build({n: real.survey(n) for n in real.surveys}, columns={"group": np.array(list(names))})

    first = alignment_run._share(grouped("aaabbbcccdd"), 0.5, 0)
    assert [len(set(first[k : k + 3])) for k in (0, 3, 6, 9)] == [1] * 4 and 5 <= first.sum() <= 6
    assert alignment_run._share(real_objects(200, 1), 0.2, 0).sum() == 40
    with pytest.raises(SbiDaError, match="one group"):
        alignment_run._share(grouped("a" * 11), 0.5, 0)


@pytest.mark.filterwarnings("ignore:alignment is not used")
def test_training_the_adapter_alone_leaves_every_simulated_posterior_as_it_was(base):
    config = AlignmentConfig(**TINY, correction=False, adapter=["instrument", "residual"], train="adapter",
                             labelled=Weighting(kind="fixed", value=1.0))
    found = align(base, real_objects(60, 1), config=config, threads=1)
    simulator = get_simulator("linear_gaussian")
    simulated = simulate(simulator, simulator.surveys(), 20, 5)
    assert np.array_equal(label_log_score(base, simulated), label_log_score(found.candidate, simulated))
    real = real_objects(20, 5)
    assert not np.array_equal(label_log_score(base, real), label_log_score(found.candidate, real))


def test_labelled_objects_and_their_twins_are_the_matches_of_a_term(base):
    config = AlignmentConfig(**TINY, correction=False, terms=[TermSpec(kind="keypoints", strata="none", weight=Weighting(kind="fixed"))])
    module = AlignmentModule(base, TrainingConfig(), False, config)
    asked = {}
    module.placed[0].context.forward = lambda s, r, **known: (asked.update(known, s=s, r=r), 0 * s.sum())[1]

    def side(n, start):
        context = torch.arange(start, start + n).float()[:, None].expand(-1, 16)
        return Features(context, torch.zeros(n, 4, 8), torch.ones(n, 4, dtype=torch.bool))

    of = {"simulated": side(5, 0), "real": side(7, 100), "paired": side(3, 200), "twin": side(6, 300)}
    module._distribution(module.placed[0], of, torch.ones(5))
    simulated, real = asked["matches"].T
    assert asked["s"][simulated, 0].tolist() == [300, 302, 304], "the first twin of each"
    assert asked["r"][real, 0].tolist() == [200, 201, 202]
    assert asked["weight"].shape == (8,)


def test_a_fresh_adapter_changes_no_bit(base):
    real = real_objects(20, 4)
    adapted = build(Config.model_validate(base.metadata["config"]))[2].eval()
    adapted.load_state_dict(base.state_dict())
    adapted.adapt(["instrument", "film", "residual"])
    observed = base.layout.read(real)
    assert torch.equal(base.encode(observed), adapted.encode(observed, real=True))


def test_what_is_absent_is_not_read_by_the_adapter(base):
    torch.manual_seed(0)
    adapted = build(Config.model_validate(base.metadata["config"]))[2].eval()
    adapted.adapt(["instrument", "film", "residual"])
    for parameter in adapted.adapter.parameters():
        torch.nn.init.normal_(parameter)
    value, error = torch.randn(6, 8), torch.full((6, 8), 0.5)
    state = (torch.rand(6, 8) < 0.5).to(torch.uint8)
    real = torch.tensor([True, False] * 3)
    wild = torch.where(state == 0, torch.nan, value)
    assert torch.equal(adapted.context(value, error, state, real), adapted.context(wild, error, state, real))


def test_an_adapted_artefact_comes_back(base, tmp_path):
    torch.manual_seed(0)
    adapted = build(Config.model_validate(base.metadata["config"]))[2].eval()
    adapted.adapt(["residual"])
    torch.nn.init.normal_(adapted.adapter.residual[2].weight)
    loaded = Estimator.load(adapted.save(tmp_path / "a"))
    observed = base.layout.read(real_objects(5, 0))
    assert torch.equal(loaded.encode(observed, real=True), adapted.encode(observed, real=True))


def test_recalibration_is_of_real_objects_only_and_comes_back(base, tmp_path):
    narrow = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    assert alignment_run._recalibration(narrow)[0] is None, "an exact posterior is left alone"
    narrow[3] = torch.nan
    found, gain = alignment_run._recalibration(3 * narrow)
    assert found.inflation == pytest.approx(3.0, rel=0.1) and gain[3] == 0 and gain.mean() > 5
    wide = copy.deepcopy(base)
    wide.recalibration = found
    loaded = Estimator.load(wide.save(tmp_path / "a"))
    real = real_objects(20, 5)
    spread = [e(real).sample(500)["theta_1"].values.std() for e in (base, wide, loaded)]
    assert spread[1] > 1.2 * spread[0] and spread[2] == pytest.approx(spread[1])
    simulator = get_simulator("linear_gaussian")
    simulated = simulate(simulator, simulator.surveys(), 20, 5)
    assert np.array_equal(label_log_score(base, simulated), label_log_score(wide, simulated))
    noise = label_noise(base, real)
    assert torch.allclose(label_noise(wide, real), noise), "of the head itself"
    part = Records.build({n: real.survey(n) for n in real.surveys}, parameters={"theta_1": real.parameters["theta_1"]})
    assert label_noise(base, part) is None


def test_terms_see_the_prior_not_the_proposal(base):
    simulator = get_simulator("linear_gaussian")
    settings = TrainingConfig(epochs=1, steps_per_epoch=2, batch=2000)
    proposal = Proposal.model_validate({"prior_fraction": 0.5, "parameters": {"theta_1": {"shift": 1.5, "scale": 1.0}}})
    source = SimulatorSource(simulator, simulator.surveys(), base.prior, proposal=proposal)

    def mean(weights):
        batch = next(ThreeStreams(source, source, settings, weights=weights).batches(0))["simulated"]
        return float((batch["population"] * batch["z"][:, 0]).sum() / batch["population"].sum()), float(batch["z"][:, 0].mean())

    weighted, plain = mean(None)
    assert plain > 0.6 and abs(weighted) < 0.15
    assert mean(lambda z: np.exp(-0.5 * (z[:, 0] - 1) ** 2 + 0.5 * z[:, 0] ** 2))[0] == pytest.approx(1.0, abs=0.15)


def test_without_labels_an_offset_is_seen_and_a_shifted_population_is_not(calibrated):
    config = AlignmentConfig(**TINY)
    simulator = get_simulator("linear_gaussian")
    seen = align(calibrated, None, real_objects(800, 2, shift=1.0), config, threads=1)
    assert seen.verdict.kept and "visible" in seen.verdict.reason
    rng = np.random.default_rng(0)
    moved = {k: 0.5 * rng.standard_normal(800) + 0.7 for k in simulator.prior.names}
    population = simulate(simulator, simulator.surveys(), 800, 3, theta=moved)
    population.tree.attrs["domain"] = "real"
    with pytest.warns(UserWarning, match="no shift to be seen"):
        unseen = align(calibrated, None, population, config, threads=1)
    assert not unseen.verdict.kept


def test_learned_weights_learn(base):
    config = AlignmentConfig(adapter=["residual"], learned=True, pairs=[PairSpec(kind="pair", weight=Weighting(kind="fixed"))])
    module = AlignmentModule(copy.deepcopy(base), TrainingConfig(), False, config)
    scheduler = module.scheduler
    assert scheduler.learned.names == ("posterior", "pair_0")
    scheduler({"posterior": torch.tensor(3.0), "pair_0": torch.tensor(0.5)}, 1.0).backward()
    assert (scheduler.learned.log_eta.grad != 0).all()
    assert any(p is scheduler.learned.log_eta for p in module.parameters())
    with pytest.raises(ValueError, match="no weight to learn"):
        AlignmentConfig(learned=True)


@pytest.mark.filterwarnings("ignore:alignment is not used")
def test_terms_without_labels_are_judged_by_alarms(calibrated):
    term = [TermSpec(kind="energy", weight=Weighting(kind="fixed"))]
    config = {**TINY, "correction": False, "adapter": ["residual"], "train": "adapter", "terms": term}
    plain = align(calibrated, None, real_objects(300, 2), AlignmentConfig(**config), threads=1).verdict
    assert not plain.kept and "no population weights" in plain.reason
    assert plain.figures["source_nll"][0] == plain.figures["source_nll"][1], "an adapter alone leaves the simulated ones alone"
    told = align(calibrated, None, real_objects(300, 2), AlignmentConfig(**config, population="posteriors"), threads=1).verdict
    before, after = told.figures["domain_auc_reweighted"]
    assert before > 0.6 and after != before, "an offset of one standard deviation shows"
    assert told.figures["contraction"][0] != told.figures["contraction"][1]


def test_recalibration_of_a_head_that_has_no_noise_is_refused_before_training(base):
    config = base.metadata["config"]
    mixture = build(Config.model_validate({**config, "network": {**config["network"], "head": "mixture"}}))[2]
    with pytest.raises(SbiDaError, match="not mixture: train with network.head=spline or flow_matching, or set recalibrate to false"):
        align(mixture, real_objects(30, 0), config=AlignmentConfig(recalibrate=True, epochs=10**6))


def test_what_is_missing_is_said(base):
    with pytest.raises(SbiDaError, match="needs labelled real objects"):
        align(base, None)
    with pytest.raises(SbiDaError, match="need unlabelled real objects"):
        align(base, real_objects(30, 0), config=AlignmentConfig(terms=[TermSpec(kind="energy")]))
    with pytest.raises(SbiDaError, match="only 9 labelled objects: at least 10"):
        align(base, real_objects(9, 0))
    with pytest.raises(SbiDaError, match="needs labelled real objects"):
        align(base, None, real_objects(30, 0), AlignmentConfig(terms=[TermSpec(kind="keypoints")]))
    with pytest.raises(ValueError, match="joint"):
        TermSpec(kind="transport", options={"joint": 1.0})
    with pytest.raises(ValueError, match="sinkhorn"):
        TermSpec(kind="sinkhron")
    with pytest.raises(ValueError, match="options are blur"):
        TermSpec(kind="sinkhorn", options={"blurr": 1})
    with pytest.raises(ValueError, match="warmup <= full"):
        Weighting(warmup=0.5)
    with pytest.raises(SbiDaError, match="only 30 unlabelled real objects: at least 50"):
        align(base, None, real_objects(30, 0))
    simulator = get_simulator("linear_gaussian")
    with pytest.raises(SbiDaError, match="marked as simulated"):
        align(base, simulate(simulator, simulator.surveys(), 30, 0))
