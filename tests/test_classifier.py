"""A classifier of images from records to answers: training, adaptation, evaluation, queries; and what is refused."""

import copy
import json

import numpy as np
import pytest
import torch
from small_galaxies import CLASSES, camera, config, pictures, records

from sbi_da import class_evaluation
from sbi_da.alignment_config import AlignmentConfig
from sbi_da.class_alignment_run import align_classes, anew
from sbi_da.class_evaluation import open_labels
from sbi_da.cli import main
from sbi_da.epoch_keeping import EpochKeeper
from sbi_da.errors import ConfigError, SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.evaluation import evaluate
from sbi_da.inference import NO_DATA, UNREADABLE, query
from sbi_da.posteriors.class_losses import initial_logit_scale
from sbi_da.records import ABSENT, CoverageMissing, Images, Records
from sbi_da.restaged import restaged
from sbi_da.runs import sources, train, untrained
from sbi_da.sources import Examples, StoredSource


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("galaxies")


@pytest.fixture(scope="module")
def run(place):
    train(config(place), place / "run", progress=False)
    return place / "run"


@pytest.fixture(scope="module")
def estimator(run):
    return Estimator.load(run)


def accuracy(estimator, objects):
    codes = open_labels(objects, "shape", CLASSES)
    return float((estimator(objects).probabilities().values.argmax(1) == codes).mean())


def test_it_learns_and_is_the_same_after_loading(place, run, estimator):
    fresh = records(200, seed=5)
    assert accuracy(estimator, fresh) > 0.95
    again = Estimator.load(run)
    assert np.array_equal(again(fresh).log_probabilities, estimator(fresh).log_probabilities)
    assert again.classes == CLASSES and np.array_equal(again.normality.quantiles, estimator.normality.quantiles)


def test_a_finished_run_is_loaded_and_another_config_refused(place, run, estimator):
    assert train(config(place), run, progress=False).classes == CLASSES
    with pytest.raises(ConfigError, match="another config"):
        train(config(place, learning_rate=0.01), run, progress=False)


@pytest.mark.parametrize("garbage", [0, 255])
def test_pixels_of_absent_bands_have_no_influence(estimator, garbage):
    objects = records(20, seed=6)
    image = objects.images("toy_camera")
    state = image.state.copy()
    state[::2, 1] = ABSENT
    state[3] = ABSENT
    pixels = np.where((state == ABSENT)[..., None, None], garbage, image.pixels).astype(np.uint8)
    shown = Records.build({}, objects.ids, images={"toy_camera": Images(image.bands, pixels, image.error, state)})
    other = np.where((state == ABSENT)[..., None, None], 77, image.pixels).astype(np.uint8)
    again = Records.build({}, objects.ids, images={"toy_camera": Images(image.bands, other, image.error, state)})
    assert torch.equal(estimator.encode(estimator.layout.read(shown)), estimator.encode(estimator.layout.read(again)))


def test_an_object_without_images_is_answered_and_flagged(estimator):
    objects = records(5, seed=7)
    image = objects.images("toy_camera")
    state = image.state.copy()
    state[2] = ABSENT
    flags = np.array(["", "", "picture 2: truncated", "", ""])
    lost = Images(image.bands, image.pixels, image.error, state)
    shown = Records.build({}, objects.ids, columns={"image_flag": flags}, images={"toy_camera": lost})
    columns = query(estimator, shown)
    assert columns["flag"].tolist() == ["", "", f"{NO_DATA}+{UNREADABLE}", "", ""]
    assert np.isfinite(columns["shape_probability"]).all() and np.isnan(columns["anomaly"][2])
    assert np.allclose(sum(columns[f"shape_p_{c}"] for c in CLASSES), 1)


def test_bands_are_found_by_name(estimator):
    objects = records(10, seed=8)
    image = objects.images("toy_camera")
    flipped = Images(image.bands[::-1], np.ascontiguousarray(image.pixels[:, ::-1]), image.error, image.state)
    turned = Records.build({}, objects.ids, images={"toy_camera": flipped})
    assert np.array_equal(estimator(turned).log_probabilities, estimator(objects).log_probabilities)


def test_images_of_another_size_are_refused(estimator):
    image = Images(("r", "g", "b"), np.zeros((2, 3, 20, 20), np.uint8), np.ones((2, 3)), np.ones((2, 3), np.uint8))
    with pytest.raises(SbiDaError, match="20 x 20 pixels, and the estimator reads 16 x 16"):
        estimator(Records.build({}, images={"toy_camera": image}))


def test_other_fractions(estimator):
    objects = records(50, seed=9)
    plain = query(estimator, objects)
    moved = query(estimator, objects, prior={"shape": {"round": 0.01, "streak": 0.99}})
    assert (moved["shape_p_streak"] >= plain["shape_p_streak"]).all()
    with pytest.raises(SbiDaError, match="only the class shape"):
        query(estimator, objects, given={"shape": 1.0})


def test_an_unlike_object_is_an_anomaly(estimator):
    rng = np.random.default_rng(0)
    plain = records(200, seed=10)
    noise = rng.integers(0, 255, (50, 3, 16, 16)).astype(np.uint8)
    strange = Records.build({}, images={"toy_camera": Images(("r", "g", "b"), noise, np.ones((50, 3)), np.ones((50, 3), np.uint8))})
    usual, unusual = (query(estimator, r)["anomaly"] for r in (plain, strange))
    assert 0.3 < np.median(usual) < 0.7 and np.median(unusual) > 1


def test_evaluation_opens_sealed_labels_and_sees_unknown_classes(estimator):
    objects = records(120, seed=11, sealed=True)
    assert not objects.parameters
    metrics, figures = evaluate(estimator, objects)
    assert metrics["overall"]["macro_f1"]["value"] > 0.9 and "confusion" in figures and "latent_tsne" in figures
    known = objects.opened()
    known.tree.attrs["classes_shape"] = ["round", "ring"]
    codes = open_labels(known, "shape", CLASSES)
    assert set(codes) == {0.0, -1.0}
    with pytest.raises(SbiDaError, match="hold no 'shape'"):
        evaluate(estimator, Records.build({}, images={"toy_camera": objects.images("toy_camera")}))


TERMS = {"terms": [{"kind": "mmd", "weight": {"kind": "fixed", "value": 0.1}}]}
CLASS_TERMS = {"classes": {"terms": [{"kind": k, "weight": {"kind": "fixed", "value": 0.01}} for k in
                                     ("fisher", "entropy", "adaptive_clustering", "entropy_separation")]}}


@pytest.mark.parametrize(
    "how", [TERMS, CLASS_TERMS, {"classes": {"teacher": 0.5}}, {**TERMS, "classes": {"reweight": True, "select": "dev"}},
            {"classes": {"restage": {"copies": 1, "thickness": [0.9, 0.3]}}}, {"classes": {"refine": {"epochs": 1}}},
            {"classes": {"averaged": True, "momentum": 0.9, "refine": {"rounds": 1, "epochs": 8}}},
            {**TERMS, "learned": True, "classes": {"fractions": "bbse"}}, {"adapter": ["film", "residual"]}],
    ids=["mmd", "class terms", "teacher", "reweight and dev", "restage", "refine", "co-training", "learned and bbse", "adapter"],
)
def test_every_way_of_adapting_runs_and_leaves_the_original_alone(estimator, how, recwarn):
    real = records(150, seed=12, fractions=(0.8, 0.2), domain="real", sealed=True, noise=0.05)
    before = {k: v.clone() for k, v in estimator.state_dict().items()}
    setting = AlignmentConfig.model_validate({"correction": False, "epochs": 2, "steps_per_epoch": 4, "batch": 32, **how})
    found = align_classes(estimator, real, None, setting)
    assert all(torch.equal(v, before[k]) for k, v in estimator.state_dict().items())
    assert abs(found.fractions.fractions.sum() - 1) < 1e-6 and accuracy(found.candidate, real) > 0.6
    if how.get("adapter") is None:
        moved = found.candidate.state_dict()
        assert any(not torch.equal(moved[k], before[k]) for k in before)


def variant(plain, images=None, classifier=None):
    """A config with other settings of its image encoder or its classifier."""
    network = plain.network
    network = network.model_copy(update={
        "images": network.images.model_copy(update=images or {}), "classifier": network.classifier.model_copy(update=classifier or {}),
    })
    return plain.model_copy(update={"network": network})


RESTAGED = {"classes": {"restage": {"copies": 1}}}


@pytest.mark.parametrize(
    "how", [TERMS, {**TERMS, "classes": {"teacher": 0.5}}, {**TERMS, "adapter": ["film"], "train": "adapter"}, RESTAGED],
    ids=["mmd", "teacher", "adapter", "restaged anew"],
)
def test_layers_that_a_config_freezes_stay_so_when_adapted(place, how):
    base = untrained(variant(config(place), images={"frozen": ["stem"]}))
    frozen = "images.encoders.toy_camera.stem."
    setting = AlignmentConfig.model_validate({"correction": False, "epochs": 1, "steps_per_epoch": 3, "batch": 32, **how})
    real = records(60, seed=21, domain="real", sealed=True)
    found = align_classes(base, real, None, setting).candidate
    fixed = {name for name, parameter in found.named_parameters() if not parameter.requires_grad}
    assert fixed == {name for name, _ in base.named_parameters() if name.startswith(frozen)} and fixed
    before, after = base.state_dict(), found.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before if name.startswith(frozen))
    assert any(not torch.equal(after[name], before[name]) for name in before) or how.get("train") == "adapter"


def test_domains_are_compared_after_restaging_where_that_was_learned_from(estimator, monkeypatch):
    plan = {"classes": {"restage": {"copies": 2}}}
    adapted = copy.deepcopy(estimator)
    adapted.metadata["alignment"] = {"config": AlignmentConfig.model_validate(plan).model_dump(mode="json"), "verdict": {"kept": True}}
    refused = copy.deepcopy(adapted)
    refused.metadata["alignment"]["verdict"]["kept"] = False
    seen = []
    monkeypatch.setattr(class_evaluation, "restaged", lambda *args: seen.append(args) or restaged(*args))
    real, simulated = records(60, seed=25, domain="real", sealed=True, noise=0.05), records(60, seed=26)
    for each, objects in ((refused, real), (estimator, real), (adapted, simulated), (adapted, real)):
        evaluate(each, objects)
    assert len(seen) == 1 and len(seen[0][2]) == 60 and seen[0][3].copies == 1


def test_labels_that_judge_are_read_by_the_names_of_their_classes(estimator):
    setting = AlignmentConfig.model_validate({"correction": False, "epochs": 1, "steps_per_epoch": 2, "batch": 32})
    real, judging = records(60, seed=27, domain="real", sealed=True), records(80, seed=28, domain="real")
    turned = judging.with_parameters({"shape": 1 - judging.parameters["shape"]})
    turned.tree.attrs["classes_shape"] = list(CLASSES[::-1])
    first, second = (align_classes(estimator, real, each, setting).verdict for each in (judging, turned))
    assert first.figures == second.figures
    with pytest.raises(SbiDaError, match="hold no 'shape'"):
        align_classes(estimator, real, Records.build({}, images={"toy_camera": judging.images("toy_camera")}), setting)


def test_an_adapter_follows_the_seed(estimator):
    setting = AlignmentConfig.model_validate({"correction": False, "epochs": 1, "steps_per_epoch": 2, "batch": 32,
                                              "adapter": ["film", "residual"]})
    real = records(60, seed=29, domain="real", sealed=True)
    states = [align_classes(estimator, real, None, setting, seed=seed).candidate.state_dict() for seed in (0, 0, 1)]
    same, other = (all(torch.equal(a, b) for a, b in zip(states[0].values(), s.values(), strict=True)) for s in states[1:])
    assert same and not other


@pytest.mark.parametrize(
    ("how", "message"),
    [({"adapter": ["film"], "train": "adapter", **RESTAGED}, "start a new one"),
     ({"adapter": ["film"], "train": "adapter", "classes": {"refine": {"rounds": 1}}}, "start a new one"),
     ({"classes": {"averaged": True, "select": "dev"}}, "belongs to no epoch")],
)
def test_settings_that_contradict_each_other(how, message):
    with pytest.raises(ValueError, match=message):
        AlignmentConfig.model_validate(how)


def test_a_missing_data_law_outlives_restaging(estimator):
    objects = records(50, seed=30)
    held = Examples(estimator.layout.read(objects), np.zeros((50, 1)), np.zeros(50))
    law = CoverageMissing(surveys=[0.5], channels=0.0)
    some = StoredSource(held, 0, estimator.layout, law).examples(50, 0)
    assert 0.3 < (some.observed.states == ABSENT).all(1).mean() < 0.7
    assert not (StoredSource(held).examples(50, 0).observed.states == ABSENT).any()


def test_a_network_that_starts_anew_starts_from_the_logit_scale(place):
    base = untrained(variant(config(place), classifier={"logit_scale": True}))
    source = sources(variant(config(place)), base)[0]
    with torch.no_grad():
        base.head.scale.fill_(7.0)
    fresh = anew(base, source, 1)
    assert np.allclose(fresh.head.scale.detach(), initial_logit_scale(base.class_counts))


def test_an_adapter_alone_leaves_answers_to_simulated_objects_as_they_are(estimator):
    setting = AlignmentConfig.model_validate({"correction": False, "epochs": 1, "steps_per_epoch": 3, "batch": 32, **TERMS,
                                              "adapter": ["film"], "train": "adapter"})
    real, simulated = records(60, seed=22, domain="real", sealed=True), records(40, seed=23)
    found = align_classes(estimator, real, None, setting).candidate
    assert np.array_equal(found(simulated).log_probabilities, estimator(simulated).log_probabilities)
    assert not np.array_equal(found(real).log_probabilities, estimator(real).log_probabilities)


def test_epochs_are_judged_by_probabilities_whose_class_weights_are_undone(place):
    base = untrained(variant(config(place), classifier={"weights": "inverse"}))
    observed = base.layout.read(records(40, seed=24))
    held = Examples(observed, np.zeros((40, 1)), np.zeros(40))
    keeper = EpochKeeper(base, held, observed)
    keeper.on_train_epoch_end()
    weights = base.network.classifier.class_weights(base.class_counts)
    with torch.no_grad():
        tilted = base.head.logits(base.encode(observed, real=True)).softmax(-1).double().numpy() / weights
    assert np.allclose(keeper.candidates["0"].probabilities, tilted / tilted.sum(1, keepdims=True), atol=1e-6)
    assert not base.head.log_prior_correction.any()


def test_labels_of_real_objects_have_no_way_in(estimator):
    """The same objects with other labels, sealed or not, give the same adapted network to the last bit."""
    setting = AlignmentConfig.model_validate({"correction": False, "epochs": 1, "steps_per_epoch": 8, "batch": 32, **TERMS,
                                              "classes": {"refine": {"rounds": 1, "epochs": 6}, "reweight": True}})
    real = records(100, seed=13, domain="real")
    wrong = real.with_parameters({"shape": 1 - real.parameters["shape"]})
    states = [align_classes(estimator, r, None, setting).candidate.state_dict() for r in (real, wrong, wrong.sealed())]
    assert all(torch.equal(a, b) and torch.equal(a, c) for a, b, c in zip(*(s.values() for s in states), strict=True))


def test_what_is_measured_can_be_withheld(estimator):
    estimator = copy.deepcopy(estimator)
    observed = estimator.layout.read(records(12, seed=16))
    seen = estimator.encode(observed)
    estimator.withhold_measured(True)
    blind = estimator.encode(observed)
    assert not torch.allclose(seen, blind)
    scale = estimator.images.get_buffer("summary_scale_toy_camera")
    scale.mul_(100.0)
    assert torch.equal(estimator.encode(observed), blind)


def test_label_shift_is_found_and_used(estimator):
    real = records(600, seed=14, fractions=(0.85, 0.15), domain="real", sealed=True)
    setting = AlignmentConfig.model_validate({"correction": False, "epochs": 1, "steps_per_epoch": 2, "batch": 32})
    found = align_classes(estimator, real, None, setting)
    assert found.fractions.fractions[0] == pytest.approx(0.85, abs=0.04)
    assert np.allclose(found.candidate(real).fractions, found.fractions.fractions)
    simulated = records(10, seed=15)
    assert np.allclose(found.candidate(simulated).fractions, estimator.prior.fractions)


def test_harm_is_seen_with_labels_and_without(estimator):
    real = records(100, seed=16, domain="real", sealed=True)
    flattened = {"kind": "mmd", "weight": {"kind": "fixed", "value": 300.0}, "options": {"scales": [0.1]}}
    wild = AlignmentConfig.model_validate({"correction": False, "epochs": 3, "steps_per_epoch": 10, "batch": 32, "learning_rate": 0.3,
                                           "optimiser": "sgd", "terms": [flattened], "classes": {"fractions": "source"}})
    with pytest.warns(UserWarning, match="alignment is not used"):
        found = align_classes(estimator, real, records(60, seed=17, domain="real", sealed=True), wild)
    assert not found.verdict.kept and accuracy(found.estimator, real) > 0.9


def test_real_objects_marked_as_simulated_or_too_few_are_refused(estimator):
    with pytest.raises(SbiDaError, match="marked as simulated"):
        align_classes(estimator, records(50))
    with pytest.raises(SbiDaError, match="only 5 real objects"):
        align_classes(estimator, records(5, domain="real"))


def test_a_class_without_training_objects_is_refused(place):
    lacking = records(40, seed=18, fractions=(1.0, 0.0))
    lacking.save(place / "lacking.zarr")
    with pytest.raises(SbiDaError, match="no training object of class 'streak'"):
        untrained(config(place, records=str(place / "lacking.zarr")))


@pytest.mark.parametrize("correct", [True, False])
def test_probabilities_say_which_fractions_they_assume(place, tmp_path, correct):
    """Inverse weights make classes equally common; effective numbers those of sums of 0.99^k, k from 0 to n - 1."""
    training = records(200, seed=22, fractions=(0.8, 0.2))
    training.save(tmp_path / "skewed.zarr")
    counts = np.bincount(training.parameters["shape"].astype(int))
    effective = counts / [sum(0.99**k for k in range(n)) for n in counts]
    for weights, expected in (("none", counts), ("inverse", np.ones(2)), ("effective", effective)):
        settings = {"weights": weights, "beta": 0.99, "correct": correct}
        found = untrained(variant(config(place, records=str(tmp_path / "skewed.zarr")), classifier=settings))
        assert found.assumed_fractions(corrected=False) == pytest.approx(expected / expected.sum())
        assert found.assumed_fractions(corrected=True) == pytest.approx(counts / counts.sum())
        answers = found(records(5, seed=23))
        assert answers.fractions == pytest.approx(counts / counts.sum() if correct else expected / expected.sum())


def test_logit_scales_start_from_the_counts(place, tmp_path):
    training = records(200, seed=22, fractions=(0.8, 0.2))
    training.save(tmp_path / "skewed.zarr")
    common, rare = np.bincount(training.parameters["shape"].astype(int))
    found = untrained(variant(config(place, records=str(tmp_path / "skewed.zarr")), classifier={"logit_scale": True}))
    assert found.head.scale.tolist() == pytest.approx([1.0, (1 + np.sqrt(common / rare)) / 2])
    assert untrained(config(place)).head.scale is None


def test_a_thickness_for_every_class_or_for_none(estimator):
    real = records(60, seed=24, domain="real", sealed=True)
    setting = AlignmentConfig.model_validate({"correction": False, "classes": {"restage": {"thickness": [0.9, 0.3, 0.2]}}})
    with pytest.raises(SbiDaError, match="thickness needs one number for each of round, streak, or a single one"):
        align_classes(estimator, real, None, setting)


def test_class_weights_do_not_distort_the_posterior(place, tmp_path):
    """Trained with inverse weights and a focal loss on nine to one, the mean probability on such objects is nine to one."""
    records(600, seed=19, fractions=(0.9, 0.1), noise=0.6).save(tmp_path / "skewed.zarr")
    skewed = config(place, records=str(tmp_path / "skewed.zarr"), epochs=6)
    found = train(variant(skewed, classifier={"weights": "inverse", "focal": 1.0}), tmp_path / "run", progress=False)
    judged = records(800, seed=20, fractions=(0.9, 0.1), noise=0.6)
    mean = found(judged).probabilities().values.mean(0)
    raw = found.head.logits(found.encode(found.layout.read(judged))).softmax(-1).mean(0).detach()
    assert mean[1] == pytest.approx(0.1, abs=0.06) and float(raw[1]) > mean[1] + 0.03


def test_commands(place, run, tmp_path, capsys):
    """simulate aside, the commands of stars: pack, train, align, evaluate, query."""
    rng = np.random.default_rng(3)
    codes = rng.choice(2, 150)
    np.savez(tmp_path / "real.npz", images=pictures(codes, rng).transpose(0, 2, 3, 1), label=codes, label_names=np.array(CLASSES))
    (tmp_path / "real.yaml").write_text(
        f"reader: stack\npath: real.npz\nsurvey: {camera(place)}\nlabels: label\nname: shape\norder: band last\n"
    )
    assert main(["pack", str(tmp_path / "real.yaml"), "--out", str(tmp_path / "real.zarr")]) == 0
    assert main(["pack", str(tmp_path / "real.yaml"), "reader=stak", "--out", str(tmp_path / "x.zarr")]) == 2
    assert "unknown reader 'stak'" in capsys.readouterr().err
    outliers = "alignment.classes.outliers={simulations: 120, epochs: 1, steps_per_epoch: 2, batch: 16}"
    small = ["alignment.epochs=1", "alignment.steps_per_epoch=2", "alignment.batch=32", outliers]
    assert main(["align", str(run), "--real", str(tmp_path / "real.zarr"), "--out", str(tmp_path / "aligned"), "--quiet", *small]) == 0
    printed = capsys.readouterr().out
    assert "class fractions of the real objects" in printed and "outlier detector of toy_camera: ROC AUC 0." in printed
    assert main(["evaluate", str(tmp_path / "aligned"), str(tmp_path / "real.zarr"), "--out", str(tmp_path / "report")]) == 0
    assert "majority class" in capsys.readouterr().out
    assert json.loads((tmp_path / "report" / "metrics.json").read_text())["overall"]["n"] == 150
    assert main(["query", str(tmp_path / "aligned"), str(tmp_path / "real.zarr"), "--out", str(tmp_path / "answers.parquet")]) == 0
    assert main(["query", str(run), str(tmp_path / "real.zarr"), "--id", "3"]) == 0
    assert main(["align", str(run), "--out", str(tmp_path / "none"), "--quiet"]) == 2
    assert "give them by --real" in capsys.readouterr().err
