r"""The likelihood of what a survey records of one object, given noise-free signals: the density of :func:`~sbi_da.simulation.observe`.

For the channels of a survey, with the systematic term e of its magnitudes (zero for half of the objects, log-uniform from 0.005 to 0.05
mag for the others),

.. math:: p = \sum_e p(e) \prod_c p(\sigma_{q,c}\mid m_r, e)\; N\bigl(x_c;\, m_c,\, \sigma_c^2 + \max(e, \mathrm{floor})^2 + s_c^2\bigr)
          \prod_{l} P(x_l > L_l \mid m_l, e).

The quoted error :math:`\sigma_q` speaks of e, and through :math:`\sigma_c^2 = \sigma_q^2 - e^2`, log-normal about the card's law, of the
reference magnitude :math:`m_r`; where the card has no scatter of quoted errors it is taken as given. A limit says that the noisy
magnitude would have been fainter; quoted errors are unknown there and integrated over. An object brighter than the saturation of a
channel is not in it. Of a channel whose error follows another one that is absent, that other one must have been detected. Normal offsets
of the simulator (:math:`s_c`) are added to variances, and left out of :math:`m_r`, where they change an error by less than it scatters.
What is absent leaves no trace. Left out are factors without parameters: whether a measured value is above the depth, and the law of depths.
"""

import numpy as np
from scipy.special import log_ndtr, logsumexp

from sbi_da.records import ABSENT, LIMIT, OBSERVED
from sbi_da.surveys import Channel, Survey

__all__ = ["log_likelihood", "needed", "systematic_terms"]

SMALLEST, LARGEST, SHARE = 0.005, 0.05, 0.5
"""Systematic terms that catalogues have added [mag], and the share of objects with one: those of ``sbi_da.simulation.observe``."""
COARSE, FINE, NARROWEST = 8, 0.1, 0.002
"""Cells of e where it matters little; in dex of the formal error where it takes most of the quoted one; its least share of that."""
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(5)
LOG_TWO_PI = float(np.log(2 * np.pi))


def needed(survey: Survey, state: np.ndarray) -> list[int]:
    """Channels whose signals the likelihood reads: those not absent, and the references of their errors."""
    seen = [k for k in range(len(survey.channels)) if state[k] != ABSENT]
    references = {survey.channels[k].noise.reference for k in seen} - {None}
    return sorted({*seen, *(survey.channel_names.index(name) for name in references if name is not None)})


def systematic_terms(smallest_error: float) -> tuple[np.ndarray, np.ndarray]:
    """Values of e [mag] and their probabilities.

    Args:
        smallest_error: smallest quoted error of a magnitude, which e cannot exceed; infinite without any. Near it cells are narrow: the
            formal
            error is what is left.
    """
    high = min(LARGEST, smallest_error)
    if high <= SMALLEST:
        return np.zeros(1), np.array([1 - SHARE])
    bend = float(np.clip(0.8 * smallest_error, SMALLEST, high))
    edges = [np.geomspace(SMALLEST, bend, COARSE + 1)] if bend > SMALLEST else [np.array([SMALLEST])]
    if bend < high:
        first = np.sqrt(smallest_error**2 - bend**2)
        last = max(np.sqrt(max(smallest_error**2 - high**2, 0.0)), NARROWEST * smallest_error)
        formal = np.geomspace(first, last, 2 + int(np.log10(first / last) / FINE))[1:]
        edges.append(np.sqrt(smallest_error**2 - formal**2))
    edge = np.concatenate(edges)
    middle = np.sqrt((edge[:-1] ** 2 + edge[1:] ** 2) / 2)
    if bend < high:
        halfway = np.sqrt(np.concatenate([[first], formal[:-1]]) * formal)
        middle[-len(formal) :] = np.sqrt(smallest_error**2 - halfway**2)
    probability = SHARE * np.diff(np.log(edge)) / np.log(LARGEST / SMALLEST)
    return np.concatenate([[0.0], middle]), np.concatenate([[1 - SHARE], probability])


def log_likelihood(
    survey: Survey, signal: np.ndarray, value: np.ndarray, error: np.ndarray, state: np.ndarray, offset: np.ndarray
) -> np.ndarray:
    """Log-likelihood of one object's measurements by one survey.

    Args:
        survey: the survey.
        signal: noise-free, shape ``(draw, channel)``; only what is :func:`needed` is read.
        value: measured, or limits, shape ``(channel,)``; not read where absent.
        error: quoted, shape ``(channel,)``.
        state: shape ``(channel,)``.
        offset: standard deviation of the simulator's normal offset of each channel, shape ``(channel,)``.

    Returns:
        Shape ``(draw,)``; ``-inf`` where the survey could not have recorded this.
    """
    magnitudes = [k for k, c in enumerate(survey.channels) if c.kind == "magnitude" and state[k] != ABSENT]
    quoted = [error[k] for k in magnitudes if state[k] == OBSERVED]
    extra, probability = systematic_terms(min(quoted, default=np.inf)) if magnitudes else (np.zeros(1), np.ones(1))
    total = np.zeros((len(signal), len(extra))) + np.log(probability)
    selecting = set()
    for k, channel in enumerate(survey.channels):
        if state[k] == ABSENT:
            continue
        if channel.saturation is not None:
            total[signal[:, k] < channel.saturation] = -np.inf
        reference = survey.channel_names.index(channel.noise.reference) if channel.noise.reference else k
        if state[reference] == ABSENT:
            selecting.add(reference)
        own = extra if channel.kind == "magnitude" else np.zeros(1)
        sigma = channel.noise.sigma(signal[:, reference])
        if state[k] == LIMIT:
            total += _fainter(channel, signal[:, k], value[k], sigma, own, offset[k])
        else:
            total += _observed(channel, signal[:, k], value[k], error[k], sigma, own, offset[k])
    for k in selecting:
        total += _detected(survey.channels[k], signal[:, k], offset[k])[:, None]
    return np.asarray(logsumexp(total, axis=1))


def _observed(
    channel: Channel, signal: np.ndarray, value: float, error: float, sigma: np.ndarray, extra: np.ndarray, offset: float
) -> np.ndarray:
    """Log-density of a value and its quoted error, shape ``(draw, term)``."""
    formal = np.sqrt(error**2 - extra**2)
    variance = formal**2 + np.maximum(extra, channel.noise.floor) ** 2 + offset**2
    log_density = -0.5 * ((value - signal[:, None]) ** 2 / variance + np.log(variance) + LOG_TWO_PI)
    scatter = channel.noise.scatter
    if scatter > 0:
        distance = (np.log10(formal) - np.log10(sigma)[:, None]) / scatter
        log_density += -0.5 * (distance**2 + LOG_TWO_PI) - np.log(scatter * np.log(10) * formal**2 / error)
    return np.asarray(log_density)


def _fainter(channel: Channel, signal: np.ndarray, limit: float, sigma: np.ndarray, extra: np.ndarray, offset: float) -> np.ndarray:
    """Log-probability that the noisy value is fainter than a limit, shape ``(draw, term)``."""
    systematic = np.maximum(extra, channel.noise.floor) ** 2 + offset**2
    nodes, weights = (NODES, WEIGHTS) if channel.noise.scatter > 0 else (np.zeros(1), np.ones(1))
    parts = []
    for node, weight in zip(nodes, weights / weights.sum(), strict=True):
        spread = np.sqrt(np.square(sigma * 10 ** (channel.noise.scatter * node))[:, None] + systematic)
        parts.append(log_ndtr((signal - limit)[:, None] / spread) + np.log(weight))
    return np.asarray(logsumexp(np.stack(parts), axis=0))


def _detected(channel: Channel, signal: np.ndarray, offset: float) -> np.ndarray:
    """Log-probability that a channel that is absent was detected, or too bright, shape ``(draw,)``."""
    if channel.depth is None:
        return np.zeros(len(signal))
    variance = channel.noise.sigma(signal) ** 2 + channel.noise.floor**2 + offset**2 + channel.depth_scatter**2
    found = log_ndtr((channel.depth - signal) / np.sqrt(variance))
    return np.where(signal < (-np.inf if channel.saturation is None else channel.saturation), 0.0, found)
