"""Parameters of labelled objects: drawn from what is known of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from sbi_da.errors import SbiDaError
from sbi_da.estimator import Estimator
from sbi_da.posteriors.noise import resample
from sbi_da.posteriors.recalibration import Invertible
from sbi_da.records import Records
from sbi_da.simulators import Simulator

__all__ = ["LabelledDraws", "all_known", "draw_parameters", "invertible_head", "label_log_score", "label_noise", "labels_of"]

Labels = Mapping[str, tuple[np.ndarray, np.ndarray]]
BANK = 100_000
"""Prior draws searched for those near the labels."""
NEIGHBOURS = 16
MISS = 0.01
"""Distance from the labels, in standard deviations of the prior, within which a draw counts as reaching them."""
LEAST_EFFECTIVE = 3.0
"""Objects whose labels leave fewer effective draws than this are not used: the posterior does not reach the labels."""
EXACT = 0.01, 0.03, 0.1, 0.3
"""Widths, in standard deviations of a posterior, within which its draws count as meeting exact labels; the first that suffices is taken."""
CANDIDATES = 4000
CHUNK = 500


@dataclass(frozen=True)
class LabelledDraws:
    """Parameters of the simulator that labelled objects may have.

    Attributes:
        theta: by name, shape ``(object, draw)``.
        used: objects whose labels the draws reach, boolean, shape ``(object,)``.
        posterior: whether the measurements had a say in the draws.
    """

    theta: dict[str, np.ndarray]
    used: np.ndarray
    posterior: bool = False


def labels_of(estimator: Estimator, records: Records) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Labels and their errors by name, of parameters and derived quantities of the estimator; an error of 0: known exactly.

    Raises:
        SbiDaError: no label, or one that is not finite, or a negative error.
    """
    known = records.parameters
    names = [n for n in (*estimator.parameter_names, *estimator.derived) if n in known]
    if not names:
        able = ", ".join((*estimator.parameter_names, *estimator.derived))
        raise SbiDaError(f"the labelled objects carry none of {able}: name the columns that hold them")
    found = {}
    for name in names:
        error = known.get(f"{name}_error", np.zeros(len(records)))
        if not (np.isfinite(known[name]).all() and np.isfinite(error).all() and (error >= 0).all()):
            row = int(np.argmin(np.isfinite(known[name]) & np.isfinite(error) & (error >= 0)))
            raise SbiDaError(f"label {name} of object {records.ids[row]!r} is not a number with an error: leave the object out")
        found[name] = (known[name], error)
    return found


def draw_parameters(
    estimator: Estimator, simulator: Simulator, records: Records, draws: int = 8, seed: int = 0, labels: Labels | None = None
) -> LabelledDraws:
    r"""Parameters of the simulator that agree with measurements and labels of real objects.

    What has no label, or one with an error, comes from the estimator's posterior, resampled by the likelihood of the labels,
    :math:`\prod N(\ell\mid\theta,\sigma_\ell)`. Where the estimator infers other quantities than the simulator's parameters,
    prior draws near them are moved onto them.

    Args:
        estimator: gives what the labels leave open.
        simulator: whose parameters are wanted.
        records: the objects.
        draws: per object.
        seed: of all draws.
        labels: by name, values and errors; by default those the records carry. Empty: the posterior alone.
    """
    labels = labels_of(estimator, records) if labels is None else labels
    names, inferred = simulator.prior.names, estimator.parameter_names
    exact = [n for n, (_, error) in labels.items() if not error.any()]
    if all(n in exact for n in names):
        theta = {n: labels[n][0][:, None] for n in names}
        inside = np.isfinite(simulator.prior.to_normal({n: v[:, 0] for n, v in theta.items()})).all(1)
        return LabelledDraws(theta, np.asarray(inside))
    if all(n in exact for n in inferred):
        return _onto_quantities(simulator, {n: np.repeat(labels[n][0][:, None], draws, 1) for n in exact}, np.random.default_rng(seed))
    found = _from_posterior(estimator, records, labels, draws, seed)
    if inferred == names:
        return found
    onto = _onto_quantities(simulator, found.theta, np.random.default_rng(seed))
    return LabelledDraws(onto.theta, onto.used & found.used, True)


def _from_posterior(estimator: Estimator, records: Records, labels: Labels, draws: int, seed: int) -> LabelledDraws:
    pieces: dict[str, list[np.ndarray]] = {n: [] for n in estimator.parameter_names}
    used = []
    for start in range(0, len(records), CHUNK):
        rows = slice(start, start + CHUNK)
        sample = estimator(records.isel(rows)).sample(CANDIDATES if labels else draws, seed)
        if not labels:
            chosen = np.broadcast_to(np.arange(draws), (len(sample["object"]), draws))
            effective = np.full(len(chosen), np.inf)
        else:
            some = {n: (v[rows], e[rows]) for n, (v, e) in labels.items()}
            held = {n: sample[n].values for n in labels}
            chosen, effective = np.zeros((len(sample["object"]), draws), int), np.zeros(len(sample["object"]))
            for width in EXACT if any(not e.any() for _, e in labels.values()) else EXACT[:1]:
                if (effective >= LEAST_EFFECTIVE).all():
                    break
                score = _log_likelihood(held, some, {n: (EXACT[0] if some[n][1].any() else width) * v.std(1) for n, v in held.items()})
                tried, size = resample(score, draws * 50, records.ids[rows], seed)
                better = (effective < LEAST_EFFECTIVE) & (size > effective)
                chosen, effective = np.where(better[:, None], np.sort(tried)[:, ::50], chosen), np.where(better, size, effective)
        for name, values in pieces.items():
            drawn = np.take_along_axis(sample[name].values, chosen, axis=1)
            exact = name in labels and not labels[name][1].any()
            values.append(np.broadcast_to(labels[name][0][rows, None], drawn.shape) if exact else drawn)
        used.append(effective >= LEAST_EFFECTIVE)
    return LabelledDraws({n: np.concatenate(v) for n, v in pieces.items()}, np.concatenate(used), True)


def _onto_quantities(
    simulator: Simulator, quantities: Mapping[str, np.ndarray], rng: np.random.Generator
) -> LabelledDraws:
    """Parameters of the simulator at given parameters and derived quantities, each of shape ``(object, draw)``."""
    n, draws = next(iter(quantities.values())).shape
    wanted = {k: v.ravel() for k, v in quantities.items()}
    bank = simulator.prior.sample(BANK, rng)
    derived = {k: v for k, v in simulator.derive(bank).items() if k in wanted}
    scale = {k: v.std() for k, v in derived.items()}
    theta: dict[str, np.ndarray] = {}
    if derived:
        tree = cKDTree(np.stack([derived[k] / scale[k] for k in derived], 1))
        asked = np.stack([wanted[k] / scale[k] for k in derived], 1)
        near = tree.query(asked, NEIGHBOURS)[1]
        pick = near[np.arange(len(near)), rng.integers(NEIGHBOURS, size=len(near))]
    else:
        pick = rng.integers(BANK, size=n * draws)
    held = [k for k in simulator.prior.names if k in wanted]
    theta = {k: wanted[k] if k in held else v[pick] for k, v in bank.items()}
    theta, missed = _onto(simulator, theta, {k: wanted[k] for k in derived}, scale, held)
    reached = (missed < MISS).reshape(n, draws)
    order = np.argsort(~reached, axis=1, kind="stable")
    count = np.maximum(1, reached.sum(1))
    order = np.take_along_axis(order, np.arange(draws)[None] % count[:, None], axis=1)  # repeat those that reached
    return LabelledDraws(
        {k: np.take_along_axis(v.reshape(n, draws), order, axis=1) for k, v in theta.items()}, np.asarray(reached.any(1))
    )


def _onto(
    simulator: Simulator, theta: dict[str, np.ndarray], target: Mapping[str, np.ndarray], scale: Mapping[str, float],
    held: Sequence[str], steps: int = 8,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Move free parameters by damped Gauss-Newton steps in normal scores until derived quantities meet their targets.

    Returns:
        Parameters inside the prior, and the distance left, in standard deviations of the derived quantities (infinite where a held
        parameter lies outside the prior).
    """
    prior = simulator.prior
    free = [i for i, k in enumerate(prior.names) if k not in held]

    def project(z: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        moved = prior.from_normal(z)
        return moved, np.stack([(simulator.derive(moved)[k] - target[k]) / scale[k] for k in target], 1)

    z = prior.to_normal(theta)
    outside = ~np.isfinite(z).all(1)
    z = np.clip(np.where(np.isfinite(z), z, 0.0), -5, 5)
    theta = prior.from_normal(z)
    if not target:
        return theta, np.where(outside, np.inf, 0.0)
    found, miss = project(z)
    for _ in range(steps):
        slopes = np.empty((*miss.shape, len(free)))
        for j, i in enumerate(free):
            nudged = z.copy()
            nudged[:, i] += 1e-3
            slopes[:, :, j] = (project(nudged)[1] - miss) / 1e-3
        normal = slopes.transpose(0, 2, 1) @ slopes + 1e-6 * np.eye(len(free))
        step = -np.linalg.solve(normal, (slopes.transpose(0, 2, 1) @ miss[..., None]))[..., 0]
        length = np.linalg.norm(step, axis=1, keepdims=True)
        step *= np.minimum(1.0, 0.3 / np.maximum(length, 1e-12))
        tried = z.copy()
        tried[:, free] += step
        trial, left = project(tried)
        better = np.linalg.norm(left, axis=1) < np.linalg.norm(miss, axis=1)
        z, miss = np.where(better[:, None], tried, z), np.where(better[:, None], left, miss)
        found = {k: np.where(better, trial[k], v) for k, v in found.items()}
    return found, np.where(outside, np.inf, np.linalg.norm(miss, axis=1))


def _log_likelihood(
    draws: Mapping[str, np.ndarray], labels: Labels, widths: Mapping[str, np.ndarray]
) -> np.ndarray:
    """Log-density of the labels about each draw, shape ``(object, draw)``; a width ``(object,)`` is added to each label's error."""
    total = np.zeros(next(iter(draws.values())).shape)
    for name, (value, error) in labels.items():
        sigma = np.hypot(error, widths[name])[:, None]
        total += -0.5 * ((value[:, None] - draws[name]) / sigma) ** 2 - np.log(sigma) - 0.5 * np.log(2 * np.pi)
    return total


def label_log_score(estimator: Estimator, records: Records, draws: int = 400, seed: int = 0) -> np.ndarray:
    """Log-density each posterior gives its object's labels, convolved with their errors; shape ``(object,)``.

    With every parameter known exactly it is the posterior's own density. Otherwise a kernel estimate from draws, with
    Silverman's widths in the labels' dimensions.
    """
    labels = labels_of(estimator, records)
    exact = all_known(estimator, labels)
    pieces = []
    for start in range(0, len(records), CHUNK):
        rows = slice(start, start + CHUNK)
        posterior = estimator(records.isel(rows))
        some = {n: (v[rows], e[rows]) for n, (v, e) in labels.items()}
        if exact:
            pieces.append(posterior.log_prob({n: some[n][0] for n in estimator.parameter_names}).values)
            continue
        sample = posterior.sample(draws, seed)
        factor = (4 / ((len(some) + 2) * draws)) ** (1 / (len(some) + 4))
        held = {n: sample[n].values for n in some}
        score = _log_likelihood(held, some, {n: factor * v.std(1) for n, v in held.items()})
        pieces.append(np.logaddexp.reduce(score, axis=1) - np.log(draws))
    return np.concatenate(pieces)


def label_noise(estimator: Estimator, records: Records) -> Tensor | None:
    """The noise that the head maps to the labels of objects, shape ``(object, parameter)``; None unless all parameters are known exactly.

    NaN where labels lie outside the prior.
    """
    labels = labels_of(estimator, records)
    if not all_known(estimator, labels):
        return None
    z = torch.from_numpy(estimator.prior.to_normal({n: labels[n][0] for n in estimator.parameter_names})).float()
    inside = torch.isfinite(z).all(1, keepdim=True)
    context = estimator.encode(estimator.layout.read(records), real=records.attrs.get("domain") == "real")
    head = invertible_head(estimator)
    with torch.inference_mode():
        noise = head.noise(torch.where(inside, z, 0.0), context)[0]
    return torch.where(inside, noise, torch.nan)


def invertible_head(estimator: Estimator) -> Invertible:
    """The head of an estimator whose posteriors can be recalibrated.

    Raises:
        SbiDaError: the head is no map of noise.
    """
    head = estimator.density[1]
    if not isinstance(head, Invertible):
        raise SbiDaError(
            f"recalibration needs a head that is a map of noise, not {estimator.network.head}: train with network.head=spline or "
            "flow_matching, or set recalibrate to false"
        )
    return head


def all_known(estimator: Estimator, labels: Labels) -> bool:
    """Whether all inferred parameters have labels without error."""
    return all(n in labels and not labels[n][1].any() for n in estimator.parameter_names)
