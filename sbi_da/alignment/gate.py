"""The harm gate: an alignment stays only where it is shown to help.

With labelled objects that were held out, the paired difference of log scores between the aligned and the unaligned estimator
decides: kept when its mean exceeds one standard error, harmful when a bootstrap interval of the mean lies below zero. Without
labels nothing can show that alignment helps; then it is kept only while three alarms are silent: the NLL of simulated objects (it must not
rise), the contraction of real posteriors (it must not change), and the domain AUC on
simulations reweighted to the real population (it must not rise). The plain domain AUC decides nothing: under a shift of the
population alone it falls while posteriors go wrong.
"""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

__all__ = ["FEWEST", "Verdict", "judge_by_explanation", "judge_by_labels", "judge_without_labels"]

FEWEST = 10
"""Least number of held-out labelled objects that may judge."""
VISIBLE = 0.1
"""Gain [nats per object] in explaining unlabelled objects that counts as a visible shift."""
NLL_DRIFT = 0.05
"""Rise of the simulated NLL [nats] that alarms."""
CONTRACTION_DRIFT = 0.1
"""Change of the mean contraction of real posteriors that alarms."""
FLOOR = -50.0
"""Differences of log scores are cut here on both sides, so that single objects do not decide."""


@dataclass(frozen=True)
class Verdict:
    """What the gate found.

    Attributes:
        kept: whether the aligned estimator is used.
        harmful: whether it was shown to be worse.
        reason: one line for people.
        figures: name to value, or to ``value``, ``low``, ``high``.
    """

    kept: bool
    harmful: bool
    reason: str
    figures: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain content, for JSON."""
        return asdict(self)


def judge_by_labels(
    none: np.ndarray, aligned: np.ndarray, groups: np.ndarray | None = None, replicates: int = 2000, seed: int = 0
) -> Verdict:
    """Judge by log scores of the same held-out labelled objects.

    Args:
        none: log scores of the unaligned estimator, shape ``(object,)``.
        aligned: log scores of the aligned one, shape ``(object,)``.
        groups: objects of one group share their errors, shape ``(object,)``; None: each is its own.
        replicates: of the bootstrap.
        seed: of the bootstrap.
    """
    n = len(none)
    with np.errstate(invalid="ignore"):
        gain = np.nan_to_num(aligned - none, nan=0.0, posinf=-FLOOR, neginf=FLOOR).clip(FLOOR, -FLOOR)
    if n < FEWEST:
        return Verdict(False, False, f"only {n} held-out labelled objects: at least {FEWEST} must judge", {"held_out": n})
    group = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    size, total = np.bincount(group), np.bincount(group, gain)
    count = len(size)
    if count < 2:
        return Verdict(False, False, "the held-out labelled objects are all of one group", {"held_out": n})
    mean = float(gain.mean())
    error = float(np.sqrt(np.square(total - mean * size).sum() * count / (count - 1)) / n)
    drawn = np.random.default_rng(seed).integers(count, size=(replicates, count))
    resampled = total[drawn].sum(1) / size[drawn].sum(1)
    low, high = (float(q) for q in np.percentile(resampled, [2.5, 97.5]))
    figures = {"log_score_gain": {"value": mean, "low": low, "high": high}, "standard_error": error, "held_out": n}
    span = f"log score of {n} held-out labelled objects {mean:+.3f} nats ({low:+.3f} to {high:+.3f})"
    if high < 0:
        return Verdict(False, True, f"harmful: {span}", figures)
    if mean <= error:
        return Verdict(False, False, f"no gain beyond one standard error: {span}", figures)
    return Verdict(True, False, f"helps: {span}", figures)


def judge_by_explanation(plain: np.ndarray, corrected: np.ndarray) -> Verdict:
    """Judge a correction without labels: does its shift explain held-out real objects better than its scatter alone?

    A shift of the population alone leaves every measurement as well explained as before, and a shift that mimics another
    parameter cannot be seen: both are refused, for there is nothing to show.

    Args:
        plain: log-density of held-out objects without the shift, shape ``(object,)``.
        corrected: with it, shape ``(object,)``.
    """
    found = judge_by_labels(plain, corrected)
    if "log_score_gain" not in found.figures:
        reason = f"only {len(plain)} held-out objects without labels: at least {FEWEST} must judge"
        return Verdict(False, False, reason, found.figures)
    value = found.figures["log_score_gain"]
    span = f"{found.figures['held_out']} held-out objects without labels are explained by {value['value']:+.3f} nats "
    span += f"({value['low']:+.3f} to {value['high']:+.3f})"
    figures = {"explanation_gain": value, "held_out": found.figures["held_out"]}
    if value["low"] > VISIBLE:
        return Verdict(True, False, f"the correction is visible: {span}", figures)
    return Verdict(False, False, f"no shift to be seen without labels: {span}", figures)


def judge_without_labels(
    source_nll: tuple[float, float], contraction: tuple[float, float], domain_auc: tuple[float, float] | None
) -> Verdict:
    """Judge by alarms alone.

    Args:
        source_nll: of simulated objects, unaligned and aligned.
        contraction: mean contraction of real posteriors, unaligned and aligned.
        domain_auc: between real and reweighted simulated contexts, unaligned and aligned; None: no weights to be trusted.
    """
    figures = {"source_nll": list(source_nll), "contraction": list(contraction), "domain_auc_reweighted": domain_auc}
    if not source_nll[1] - source_nll[0] <= NLL_DRIFT:  # NaN alarms
        return Verdict(False, True, f"harmful: simulated NLL rose from {source_nll[0]:.3f} to {source_nll[1]:.3f}", figures)
    if not abs(contraction[1] - contraction[0]) <= CONTRACTION_DRIFT:
        moved = f"contraction of real posteriors went from {contraction[0]:.3f} to {contraction[1]:.3f}"
        return Verdict(False, True, f"harmful: {moved}", figures)
    if domain_auc is None:
        return Verdict(False, False, "nothing to judge by: no labels, and no population weights to be trusted", figures)
    if not domain_auc[1] <= domain_auc[0]:
        moved = f"reweighted domain AUC rose from {domain_auc[0]:.3f} to {domain_auc[1]:.3f}"
        return Verdict(False, False, f"no gain: {moved}", figures)
    return Verdict(True, False, "no alarm: simulated NLL, contraction and reweighted domain AUC hold", figures)
