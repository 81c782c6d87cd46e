"""Scores of classes against scikit-learn and known answers, and what must not crash."""

import json
import time

import numpy as np
import pytest
from scipy.stats import t as student
from sklearn import metrics as sk

from sbi_da.diagnostics.anomalies import anomaly_metrics, rejection_metrics
from sbi_da.diagnostics.class_domains import class_domain_tests
from sbi_da.diagnostics.class_runs import evaluate_runs, seed_interval
from sbi_da.diagnostics.class_scores import ClassScores, equal_mass, ranking, resamples
from sbi_da.diagnostics.classification import OVERALL, evaluate_classes
from sbi_da.errors import SbiDaError

NAMES = ["elliptical", "irregular", "spiral"]
FRACTIONS = [0.22, 0.06, 0.72]


def answers(n=600, classes=3, sharpness=2.0, seed=0):
    """Calibrated probabilities and labels drawn from them."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(classes, 1 / sharpness), n)
    return p, (rng.random(n)[:, None] > p.cumsum(1)[:, :-1]).sum(1)


def evaluated(p, y, **options):
    return evaluate_classes(p, y, NAMES[: p.shape[1]], FRACTIONS[: p.shape[1]], **{"replicates": 50, **options})


def test_scores_are_those_of_scikit_learn():
    p, y = answers()
    block, guess = evaluated(p, y)["overall"], p.argmax(1)
    f1 = sk.f1_score(y, guess, labels=range(3), average="macro", zero_division=0)
    expected = {
        "accuracy": sk.accuracy_score(y, guess), "balanced_accuracy": sk.balanced_accuracy_score(y, guess), "macro_f1": f1,
        "nll": sk.log_loss(y, p), "brier": np.mean(((p - np.eye(3)[y]) ** 2).sum(1)),
        "roc_auc": sk.roc_auc_score(y, p, multi_class="ovr", average="macro"),
        "average_precision": sk.average_precision_score(np.eye(3)[y], p, average="macro"),
    }
    assert set(expected) == set(OVERALL)
    for key, value in expected.items():
        assert block[key]["value"] == pytest.approx(value, abs=1e-12), key
        assert block[key]["low"] < value < block[key]["high"]
    table = sk.precision_recall_fscore_support(y, guess, labels=range(3), zero_division=0)
    for k, name in enumerate(NAMES):
        own = block["per_class"][name]
        assert [own[key]["value"] for key in ("precision", "recall", "f1")] == pytest.approx([column[k] for column in table[:3]])
        assert (own["n_true"], own["n_predicted"]) == (table[3][k], np.sum(guess == k))
        assert own["roc_auc"]["value"] == pytest.approx(sk.roc_auc_score(y == k, p[:, k]))
    np.testing.assert_array_equal(block["confusion"]["counts"], sk.confusion_matrix(y, guess))
    rate = [[c["value"] for c in row] for row in block["confusion"]["rate"]]
    np.testing.assert_allclose(rate, sk.confusion_matrix(y, guess, normalize="true"))


def test_weighted_scores_are_those_of_repeated_objects():
    p, y = answers(80)
    p = np.round(p, 1)  # ties
    p /= p.sum(1, keepdims=True)
    scores, rng = ClassScores(p, y), np.random.default_rng(1)
    weight = next(resamples(80, 7, rng))
    assert weight.shape == (80, 7) and (weight.sum(0) == 80).all()
    got = scores(weight)
    for r in range(7):
        rows = np.repeat(np.arange(80), weight[:, r].astype(int))
        again = {
            "accuracy": sk.accuracy_score(y[rows], p[rows].argmax(1)), "nll": sk.log_loss(y[rows], p[rows], labels=range(3)),
            "macro_f1": sk.f1_score(y[rows], p[rows].argmax(1), labels=range(3), average="macro", zero_division=0),
            "roc_auc": sk.roc_auc_score(y[rows], p[rows], multi_class="ovr", labels=range(3)),
            "average_precision": sk.average_precision_score(np.eye(3)[y[rows]], p[rows], average="macro"),
        }
        for key, value in again.items():
            assert got[key][r] == pytest.approx(value, rel=1e-5), key
        gap = [np.sum((p.max(1) - (p.argmax(1) == y))[rows][scores.bins[0][rows] == b]) for b in np.unique(scores.bins[0])]
        assert got["ece"][r] == pytest.approx(np.abs(gap).sum() / 80, rel=1e-5)


def test_calibration_error_against_its_chance_level_and_a_known_gap():
    p, y = answers(4000)
    good = evaluated(p, y)["overall"]["calibration"]
    assert good["ece"]["value"] < good["ece"]["limit"] and good["classwise_ece"]["value"] < good["classwise_ece"]["limit"]
    assert 0 < good["ece"]["expected"] < 0.03
    bins = {key: np.asarray(column) for key, column in good["bins"].items()}
    assert bins["n"].sum() == 4000 and np.ptp(bins["n"]) <= 2 and len(bins["n"]) == 15
    assert np.mean((bins["accuracy"] >= bins["low"]) & (bins["accuracy"] <= bins["high"])) > 0.8
    sharp = p**3 / (p**3).sum(1, keepdims=True)
    bad = evaluated(sharp, y)["overall"]["calibration"]
    gap = np.mean(sharp.max(1)) - np.mean(sharp.argmax(1) == y)
    assert bad["ece"]["value"] > bad["ece"]["limit"] and bad["ece"]["value"] == pytest.approx(gap, abs=0.01)
    assert bad["ece"]["low"] < bad["ece"]["value"] < bad["ece"]["high"]
    assert set(equal_mass(np.full(100, 0.4), 15)) == {0}


def test_baselines_see_no_object():
    p, y = answers(500)
    y = np.where(y == 2, 1, y)
    base = evaluated(p, y)["overall"]["baselines"]
    share = np.bincount(y, minlength=3) / 500
    top = int(share.argmax())
    assert base["majority"]["class"] == NAMES[top] and base["majority"]["accuracy"]["value"] == pytest.approx(share[top])
    assert base["majority"]["macro_f1"]["value"] == pytest.approx(
        sk.f1_score(y, np.full(500, top), labels=range(3), average="macro", zero_division=0)
    )
    assert "nll" not in base["majority"] and base["prior"]["class"] == "spiral"
    assert base["prior"]["accuracy"]["value"] == 0 and 0 < base["prior"]["accuracy"]["high"] < 0.01
    stated = np.tile(FRACTIONS, (500, 1))
    assert base["prior"]["nll"]["value"] == pytest.approx(sk.log_loss(y, stated, labels=range(3)))
    assert base["prior"]["brier"]["value"] == pytest.approx(np.mean(((stated - np.eye(3)[y]) ** 2).sum(1)))
    gain = base["majority"]["classifier_minus_this"]["accuracy"]
    assert gain["value"] == pytest.approx(np.mean(p.argmax(1) == y) - share[top]) and gain["low"] < gain["value"] < gain["high"]
    itself = evaluate_classes(stated, y, NAMES, FRACTIONS, replicates=50)["overall"]["baselines"]["prior"]["classifier_minus_this"]
    assert all(abs(itself[key][end]) < 1e-6 for key in itself for end in ("value", "low", "high"))


def test_classes_that_do_not_occur():
    p, y = answers(200)
    unseen = evaluated(p, np.where(y == 1, 0, y))["overall"]  # predicted, never true
    own = unseen["per_class"]["irregular"]
    assert own["recall"]["value"] is None and own["roc_auc"]["value"] is None and own["f1"]["value"] == 0
    assert own["precision"]["value"] == 0 and own["n_predicted"] > 0 and not unseen["absent"]
    assert unseen["confusion"]["rate"][1][0]["value"] is None
    q = np.delete(p, 1, 1) / np.delete(p, 1, 1).sum(1, keepdims=True)
    never = np.insert(q, 1, 0.0, axis=1)  # true, never predicted
    block = evaluated(never, y)["overall"]
    assert block["per_class"]["irregular"]["precision"]["value"] == 0 == block["per_class"]["irregular"]["recall"]["value"]
    assert 0 < block["per_class"]["irregular"]["recall"]["high"] < 0.2 and np.isfinite(block["nll"]["value"])
    both = evaluated(never, np.where(y == 1, 0, y))["overall"]
    assert both["absent"] == ["irregular"]
    guess = never.argmax(1)
    assert both["macro_f1"]["value"] == pytest.approx(
        sk.f1_score(np.where(y == 1, 0, y), guess, labels=range(3), average="macro", zero_division=0)
    )
    assert both["balanced_accuracy"]["value"] == pytest.approx(sk.balanced_accuracy_score(np.where(y == 1, 0, y), guess))


def test_single_object_has_no_interval_and_blind_probabilities_score_as_chance():
    one = evaluated(np.array([[0.2, 0.1, 0.7]]), np.array([2]))["overall"]
    assert one["accuracy"] == {"value": 1.0, "low": None, "high": None}
    assert one["nll"] == {"value": pytest.approx(-np.log(0.7)), "low": None, "high": None}
    assert one["roc_auc"]["value"] is None
    json.dumps(one, allow_nan=False)
    y = np.arange(300) % 3
    blind = evaluated(np.full((300, 3), 1 / 3), y)["overall"]
    assert blind["roc_auc"] == pytest.approx({"value": 0.5, "low": 0.5, "high": 0.5})
    assert blind["nll"]["value"] == pytest.approx(np.log(3)) and blind["calibration"]["ece"]["value"] == pytest.approx(0)
    assert blind["average_precision"]["value"] == pytest.approx(1 / 3) and blind["accuracy"]["value"] == pytest.approx(1 / 3)
    assert len(blind["calibration"]["bins"]["n"]) == 1


@pytest.mark.parametrize(("row", "label", "message"), [
    ([np.nan, 0.5, 0.5], 0, "row 1"), ([0.5, 0.6, 0.3], 0, "do not sum to one"), ([1.2, -0.2, 0.0], 0, "row 1"),
    ([1, 0, 0], 3, "not classes 0 to 2"),
])
def test_what_is_no_probability_or_no_class_is_refused(row, label, message):
    with pytest.raises(SbiDaError, match=message):
        evaluated(np.array([[0.2, 0.2, 0.6], row]), np.array([0, label]))


def test_shapes_names_and_fractions_are_checked():
    p, y = answers(20)
    for arguments, message in (
        ((p, y[:-1], NAMES, FRACTIONS), "none empty"), ((p, y, NAMES[:2], FRACTIONS), "class names"),
        ((p, y, NAMES, [0.5, 0.5]), "class fractions"), ((p, y, NAMES, [0, 0, 0]), "class fractions"),
        ((p, y, NAMES, FRACTIONS, {"snr": np.zeros(3)}), "stratum 'snr'"),
    ):
        with pytest.raises(SbiDaError, match=message):
            evaluate_classes(*arguments)


def test_strata_are_those_objects_alone():
    p, y = answers(300)
    depth = np.where(np.arange(300) < 120, "deep", "shallow")
    depth[:5] = "odd"
    result = evaluated(p, y, strata={"depth": depth}, min_count=50)
    assert result["too_few"] == {"depth": {"odd": 5}} and list(result["strata"]["depth"]) == ["deep", "shallow"]
    alone = evaluated(p[5:120], y[5:120])["overall"]
    assert result["strata"]["depth"]["deep"] == alone
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert evaluated(p, y, strata={"depth": depth}) == result and evaluated(p, y, seed=1)["overall"] != result["overall"]


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(5)
    held = []
    for seed in range(80):
        y = rng.choice(3, 150, p=[0.3, 0.1, 0.6])
        guess = np.where(rng.random(150) < 0.8, y, rng.integers(3, size=150))
        block = evaluate_classes(np.eye(3)[guess], y, NAMES, FRACTIONS, seed=seed, replicates=200)["overall"]
        recall = block["per_class"]["irregular"]["recall"]
        held.append([c["low"] <= 0.8 + 0.2 / 3 <= c["high"] for c in (block["accuracy"], recall)])
    assert (np.mean(held, axis=0) > 0.87).all()


def test_two_thousand_resamples_of_three_thousand_objects_are_quick():
    p, y = answers(3000)
    start = time.process_time()
    evaluated(p, y, replicates=2000)
    assert time.process_time() - start < 8  # about one second on a core that does nothing else


def test_seed_interval_is_students():
    x = [0.6, 0.7, 0.65]
    got = seed_interval(x)
    low, high = student.interval(0.95, 2, np.mean(x), np.std(x, ddof=1) / np.sqrt(3))
    assert (got["value"], got["low"], got["high"], got["n"]) == pytest.approx((0.65, low, high, 3))
    assert seed_interval([0.4]) == {"value": 0.4, "low": None, "high": None, "sd": None, "n": 1}
    with pytest.raises(SbiDaError, match="finite"):
        seed_interval([0.1, np.nan])


def test_runs_are_combined_over_objects_and_seeds():
    p, y = answers(400)
    same = evaluate_runs([(p, y)] * 3, NAMES, replicates=400)
    single = evaluated(p, y, replicates=400)["overall"]["accuracy"]
    assert same["accuracy"]["value"] == pytest.approx(single["value"])
    assert same["accuracy"]["high"] - same["accuracy"]["low"] == pytest.approx(single["high"] - single["low"], rel=0.15)
    rng = np.random.default_rng(0)
    runs = [(np.eye(3)[np.where(rng.random(400) < share, y, (y + 1) % 3)], y) for share in (0.7, 0.8, 0.9)]
    apart = evaluate_runs(runs, NAMES, replicates=2000)["accuracy"]
    seeds = seed_interval([np.mean(q.argmax(1) == y) for q, _ in runs])
    assert apart["seeds"] == pytest.approx(seeds)
    width = apart["high"] - apart["low"]
    assert width >= 0.8 * (min(seeds["high"], 1) - seeds["low"]) and width > 3 * (apart["objects"]["high"] - apart["objects"]["low"])
    one = evaluate_runs(runs[:1], NAMES, replicates=100)["f1: spiral"]
    assert one["low"] == one["objects"]["low"] and one["seeds"]["low"] is None
    other = [answers(300, seed=s) for s in range(3)]
    with pytest.raises(SbiDaError, match="other labels"):
        evaluate_runs(other, NAMES)
    nested = evaluate_runs(other, NAMES, same_objects=False, replicates=400)
    pooled = evaluated(*(np.concatenate(part) for part in zip(*other, strict=True)), replicates=400)["overall"]["accuracy"]
    assert nested["accuracy"]["value"] == pytest.approx(pooled["value"])  # the same number of objects in each
    objects = nested["accuracy"]["objects"]
    assert objects["high"] - objects["low"] == pytest.approx(pooled["high"] - pooled["low"], rel=0.2)
    json.dumps(nested, allow_nan=False)


def test_anomaly_scores_and_rejection():
    rng = np.random.default_rng(0)
    unknown = np.arange(500) < 100
    score = rng.normal(np.where(unknown, 1.5, 0.0), 1.0)
    got = anomaly_metrics(score, unknown, replicates=200)
    assert got["auroc"]["value"] == pytest.approx(sk.roc_auc_score(unknown, score))
    assert got["auprc"]["value"] == pytest.approx(sk.average_precision_score(unknown, score))
    assert got["auroc"]["low"] < got["auroc"]["value"] < got["auroc"]["high"] and got["share_unknown"] == 0.2
    p, y = answers(500)
    y[unknown] = -1
    rules = rejection_metrics(p, y, score, unknown, {"cut": 1.0, "all": -np.inf}, replicates=100)
    keep, guess = score <= 1.0, np.where(score > 1.0, 3, p.argmax(1))
    truth = np.where(unknown, 3, y)

    def f1(a, b):
        return sk.f1_score(a, b, labels=range(3), average="macro", zero_division=0)

    cut = rules["cut"]
    assert cut["macro_f1_open"]["value"] == pytest.approx(f1(truth, guess))
    assert cut["macro_f1_known"]["value"] == pytest.approx(f1(truth[~unknown], guess[~unknown]))
    assert cut["macro_f1_accepted"]["value"] == pytest.approx(f1(truth[~unknown & keep], guess[~unknown & keep]))
    assert cut["rejected_known"]["value"] == pytest.approx(np.mean(~keep[~unknown]))
    assert cut["gain_open"]["value"] == pytest.approx(f1(truth, guess) - f1(truth, p.argmax(1)))
    assert rules["none"]["gain_open"] == {"value": 0, "low": 0, "high": 0} and rules["all"]["macro_f1_known"]["value"] == 0
    shares = rejection_metrics(p, y, score, unknown, replicates=20)
    assert list(shares) == ["none", "1 % rejected", "5 % rejected", "10 % rejected", "20 % rejected"]
    assert np.mean(score > shares["20 % rejected"]["threshold"]) == pytest.approx(0.2)
    none = anomaly_metrics(score, np.zeros(500, bool), replicates=10)
    assert none["auroc"]["value"] is None and none["auroc"]["low"] is None
    for wrong, message in ((np.full(500, np.nan), "not finite"), (score[:-1], "boolean mask")):
        with pytest.raises(SbiDaError, match=message):
            anomaly_metrics(wrong, unknown)
    with pytest.raises(SbiDaError, match="known class"):
        rejection_metrics(p, y, score, np.ones(500, bool))


def test_ranking_of_all_ties_is_blind():
    positive = np.arange(10) < 3
    auc, average = ranking(np.zeros(10), positive, np.ones((10, 2)))
    assert auc == pytest.approx([0.5, 0.5]) and average == pytest.approx([0.3, 0.3])
    assert np.isnan(ranking(np.zeros(10), np.ones(10, bool), np.ones((10, 1)))[0]).all()


def test_domain_tests_tell_class_fractions_from_a_gap_of_appearance():
    rng = np.random.default_rng(0)

    def drawn(fractions, shift, n=300):
        y = rng.choice(3, n, p=fractions)
        x = rng.standard_normal((n, 3)) + 3 * np.eye(3)[y]
        x[y == 0, 2] += shift
        return x, y

    options = {"permutations": 99, "max_rows": 200}
    s, ys = drawn([0.4, 0.3, 0.3], 0.0)
    other = class_domain_tests(s, ys, *drawn([0.1, 0.2, 0.7], 0.0), NAMES, **options)
    assert other["overall"]["p_value"] == 0.01 and other["reweighted"]["p_value"] > 0.05 and other["overall"]["value"] > 0.55
    assert min(test["adjusted_p_value"] for test in other["within"].values()) > 0.05 and not other["degenerate"]
    r, yr = drawn([0.4, 0.3, 0.3], 2.0)
    yr[:20] = -1
    gap = class_domain_tests(s, ys, r, yr, NAMES, labels="predicted", **options)
    assert gap["within"]["elliptical"]["adjusted_p_value"] == pytest.approx(0.03) and gap["labels"] == "predicted"
    assert gap["within"]["spiral"]["adjusted_p_value"] > 0.05 and gap["reweighted"]["p_value"] < 0.05
    few = class_domain_tests(s, ys, r, np.where(yr == 1, 0, yr), NAMES, **options)
    assert list(few["too_few"]) == ["irregular"] and few["too_few"]["irregular"][1] == 0
    json.dumps(few, allow_nan=False)


def test_collapsed_features_are_flagged():
    rng = np.random.default_rng(1)
    s, r = np.zeros((200, 2)), np.zeros((200, 2))
    ys = rng.integers(3, size=200)
    result = class_domain_tests(s, ys, r, ys, NAMES, permutations=19)
    assert result["overall"]["p_value"] == 1 and result["degenerate"] == ["overall", "reweighted", *NAMES]
    s[0], r[0] = 1.0, -1.0
    assert "overall" in class_domain_tests(s, ys, r, ys, NAMES, permutations=19)["degenerate"]
    with pytest.raises(SbiDaError, match="labels"):
        class_domain_tests(s, ys - 1, r, ys, NAMES)
    with pytest.raises(SbiDaError, match="'true' or 'predicted'"):
        class_domain_tests(s, ys, r, ys, NAMES, labels="guessed")
