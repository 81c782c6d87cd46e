"""The harm gate: scores in, a verdict out."""

import numpy as np
import pytest

from sbi_da.alignment.gate import judge_by_explanation, judge_by_labels, judge_without_labels


def test_the_gate_keeps_what_helps_and_refuses_what_harms():
    rng = np.random.default_rng(0)
    score = rng.normal(size=100)
    assert judge_by_labels(score, score + 0.5 + rng.normal(size=100)).kept
    worse = judge_by_labels(score, score - 0.5 + rng.normal(size=100))
    assert worse.harmful and not worse.kept and "-0.638" in worse.reason
    same = judge_by_labels(score, score + 1e-3 * rng.normal(size=100) - 1e-5)
    assert not same.kept and not same.harmful
    assert not judge_by_labels(score[:5], score[:5] + 1).kept
    lost = score.copy()
    lost[0] = -np.inf
    assert judge_by_labels(score, lost).figures["log_score_gain"]["value"] == pytest.approx(-0.5)


def test_without_labels_every_alarm_refuses():
    quiet = judge_without_labels((1.0, 1.01), (0.8, 0.82), (0.9, 0.7))
    assert quiet.kept
    assert judge_without_labels((1.0, 1.2), (0.8, 0.82), (0.9, 0.7)).harmful
    assert judge_without_labels((1.0, 1.01), (0.8, 0.5), (0.9, 0.7)).harmful
    assert not judge_without_labels((1.0, 1.01), (0.8, 0.82), (0.7, 0.9)).kept
    assert not judge_without_labels((1.0, 1.01), (0.8, 0.82), None).kept
    for wrong in range(3):
        figures = [(1.0, 1.01), (0.8, 0.82), (0.9, 0.7)]
        figures[wrong] = (1.0, float("nan"))
        assert not judge_without_labels(*figures).kept, "a figure that is no number alarms"


def test_objects_of_one_group_are_one_witness():
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(6), 30)
    gain = np.array([1.4, -1.0, 1.2, -0.9, 1.0, -0.8])[group] + 0.1 * rng.normal(size=180)
    alone, together = judge_by_labels(np.zeros(180), gain), judge_by_labels(np.zeros(180), gain, group)
    assert alone.kept and not together.kept
    assert together.figures["standard_error"] == pytest.approx(np.std([1.4, -1.0, 1.2, -0.9, 1.0, -0.8], ddof=1) / 6**0.5, rel=0.1)
    assert "one group" in judge_by_labels(np.zeros(20), np.ones(20), np.zeros(20)).reason


def test_a_correction_must_be_visible():
    rng = np.random.default_rng(0)
    plain = rng.normal(size=200)
    assert judge_by_explanation(plain, plain + 0.3 + 0.1 * rng.normal(size=200)).kept
    assert not judge_by_explanation(plain, plain + 0.02).kept
    few = judge_by_explanation(plain[:4], plain[:4] + 1)
    assert not few.kept and "only 4" in few.reason
