"""From parameters to records: draw, send through the sky, record by each survey, lose what a law says is lost."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sbi_da.distributions import Categorical
from sbi_da.errors import SbiDaError
from sbi_da.photographs import photograph
from sbi_da.proposal import Proposal
from sbi_da.records import ABSENT, LIMIT, OBSERVED, Images, Measurements, NothingMissing, Records
from sbi_da.records.missing import MissingLaw
from sbi_da.simulators import Simulator, Sky
from sbi_da.surveys import Survey

__all__ = ["lose", "observe", "simulate"]


def observe(survey: Survey, sky: Sky, rng: np.random.Generator, extra_error: bool = True) -> Measurements:
    """What ``survey`` records of ``sky``: noise, quoted errors, detection limits, saturation.

    Args:
        survey: the survey.
        sky: noise-free signals.
        rng: source of noise.
        extra_error: let half of the objects have a systematic error (5 to 50 mmag) already added by their catalogue.
    """
    if not survey.channels:
        raise SbiDaError(f"{survey.name} has no scalar channels to observe")
    truth = {c.name: np.asarray(sky.signal(c), float) for c in survey.channels}
    for name, signal in truth.items():
        if not np.isfinite(signal).all():
            raise SbiDaError(f"the simulator sends {(~np.isfinite(signal)).sum()} values to {survey.name}.{name} that are not finite")
    n = len(next(iter(truth.values())))
    extra = np.zeros(n)
    if extra_error:
        extra = np.where(rng.random(n) < 0.5, 10 ** rng.uniform(np.log10(0.005), np.log10(0.05), n), 0.0)
    value, error, state = [], [], []
    for channel in survey.channels:
        signal = truth[channel.name]
        law = channel.noise
        reference = truth[law.reference] if law.reference else signal
        formal = law.sigma(reference) * 10 ** (law.scatter * rng.standard_normal(n))
        systematic = extra if channel.kind == "magnitude" else np.zeros(n)
        quoted = np.hypot(formal, systematic)
        deviation = np.hypot(formal, np.maximum(systematic, law.floor)) * rng.standard_normal(n)
        measured = signal + deviation if law.added else signal
        seen = np.full(n, OBSERVED)
        if channel.depth is not None:
            limit = channel.depth + channel.depth_scatter * rng.standard_normal(n)
            faint = ~(measured <= limit)
            seen = np.where(faint, LIMIT, seen)
            at_limit = float(law.sigma(np.array(channel.depth)))
            measured, quoted = np.where(faint, limit, measured), np.where(faint, at_limit, quoted)
        if channel.saturation is not None:
            seen = np.where(signal < channel.saturation, ABSENT, seen)
        value.append(measured)
        error.append(quoted)
        state.append(seen)
    for i, channel in enumerate(survey.channels):
        if channel.noise.reference is not None:
            unseen = state[survey.channel_names.index(channel.noise.reference)] == LIMIT
            state[i] = np.where(unseen, ABSENT, state[i])
    units = tuple(c.unit for c in survey.channels)
    return Measurements(
        tuple(survey.channel_names), units, np.stack(value, 1), np.stack(error, 1), np.stack(state, 1).astype(np.uint8)
    )


def lose(
    measurements: Mapping[str, Measurements], law: MissingLaw, rng: np.random.Generator,
    images: Mapping[str, Images] | None = None, surveys: Sequence[str] = (),
) -> tuple[dict[str, Measurements], dict[str, Images], np.ndarray]:
    """Apply a missing-data law to the channels, and the bands of images, of all surveys together.

    Args:
        measurements: by survey.
        law: says what is kept.
        rng: source of chance.
        images: by survey.
        surveys: their names in the order the law knows; by default those with measurements, then those with images only.

    Returns:
        What is left of measurements and of images, and for each object whether it is empty although the law kept channels of it: too
        bright for every one, or too faint for a parallax, or a law that hides limits hid all there was. Emptiness then says something of
        the object, which a state that means "never looked" must not; such an object would be in no table.
    """
    names = list(dict.fromkeys([*surveys, *measurements, *(images or {})]))
    parts: list[Measurements | Images] = [*measurements.values(), *(images or {}).values()]
    owners = [*measurements, *(images or {})]
    state = np.concatenate([part.state for part in parts], axis=1)
    survey = np.concatenate([np.full(part.state.shape[1], names.index(owner)) for part, owner in zip(parts, owners, strict=True)])
    keep = law.keep(state, survey.astype(int), rng)
    kept, start = [], 0
    for part in parts:
        width = part.state.shape[1]
        kept.append(part.where(keep[:, start : start + width]))
        start += width
    empty = ~((state != ABSENT) & keep).any(1)
    scalars = {name: m for name, m in zip(owners, kept, strict=True) if isinstance(m, Measurements)}
    return scalars, {name: m for name, m in zip(owners, kept, strict=True) if isinstance(m, Images)}, empty & keep.any(1)


def simulate(
    simulator: Simulator,
    surveys: Sequence[Survey],
    n: int,
    seed: int | np.random.Generator = 0,
    missing: MissingLaw | None = None,
    proposal: Proposal | None = None,
    theta: Mapping[str, np.ndarray] | None = None,
) -> Records:
    """Simulated records with their parameters and derived quantities.

    Args:
        simulator: prior and sky.
        surveys: who looks.
        n: number of objects (ignored when ``theta`` is given).
        seed: seed or generator; the same seed gives the same records.
        missing: missing-data law; None loses nothing.
        proposal: draw from it instead of the prior; the root column ``log_weight`` then holds log(prior / proposal).
        theta: simulate at these parameters instead (twins for pairs).

    Returns:
        Records with ``domain: simulated``; the root column ``emptied`` marks objects of which nothing was recorded although
        somebody looked (see :func:`lose`): train and judge without them.
    """
    rng = seed if isinstance(seed, np.random.Generator) else np.random.default_rng(seed)
    columns: dict[str, np.ndarray] = {}
    if theta is None:
        if proposal is None:
            theta = simulator.prior.sample(n, rng)
        else:
            z, columns["log_weight"] = proposal.sample(n, simulator.prior.names, rng)
            theta = simulator.prior.from_normal(z)
    theta = {name: np.atleast_1d(np.asarray(theta[name], float)) for name in simulator.prior.names}
    sky = simulator.at(theta, rng)
    seen = {survey.name: observe(survey, sky, rng) for survey in surveys if survey.channels}
    images = {survey.name: photograph(survey, sky, rng) for survey in surveys if survey.image is not None}
    seen, images, columns["emptied"] = lose(seen, missing or NothingMissing(), rng, images, [s.name for s in surveys])
    attrs: dict[str, Any] = {
        "domain": "simulated", "simulator": type(simulator).__name__,
        "missing": str(getattr(missing, "kind", "nothing")),
    }
    if not isinstance(seed, np.random.Generator):
        attrs["seed"] = seed
    classes = {f"classes_{name}": list(law.names) for name, law in simulator.prior.laws.items() if isinstance(law, Categorical)}
    known = {**theta, **simulator.derive(theta)}
    return Records.build(seen, parameters=known, columns=columns, attrs={**attrs, **classes}, images=images)
