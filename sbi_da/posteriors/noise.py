"""Noise that depends on an object's identifier and a seed only, so that order, batch and sharding never change a draw."""

import hashlib

import numpy as np
from scipy.special import ndtr

__all__ = ["object_generator", "object_noise", "resample"]


def object_generator(identifier: object, seed: int) -> np.random.Generator:
    """A generator of its own for each identifier and seed (counter-based Philox)."""
    digest = hashlib.blake2b(f"{seed}:{identifier}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest, np.uint64)))


def object_noise(ids: np.ndarray, draws: int, size: int, seed: int) -> np.ndarray:
    """Standard normal noise, shape ``(object, draw, size)``, float32."""
    out = np.empty((len(ids), draws, size), np.float32)
    for i, identifier in enumerate(ids.tolist()):
        out[i] = object_generator(identifier, seed).standard_normal((draws, size), np.float32)
    return out


def resample(log_weight: np.ndarray, n: int, ids: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Systematic resampling (Kitagawa 1996, J. Comput. Graph. Stat. 5, 1), in random order, so that the first few are a sample, too.

    Args:
        log_weight: shape ``(object, draw)``.
        n: how many to choose.
        ids: identifiers, which with ``seed`` decide the choice.
        seed: seed.

    Returns:
        Indices, shape ``(object, n)``, and effective sample sizes, shape ``(object,)``, scaled to ``n`` draws. Where no draw has
        weight all are equally likely and the size is 0.
    """
    largest = log_weight.max(1, keepdims=True)
    lost = ~np.isfinite(largest)
    weight = np.exp(np.where(lost, 0.0, log_weight - np.where(lost, 0.0, largest)))
    weight /= weight.sum(1, keepdims=True)
    ess = np.where(lost[:, 0], 0.0, np.minimum(n, 1 / (weight**2).sum(1)))
    chosen = np.empty((len(ids), n), int)
    for i, identifier in enumerate(ids.tolist()):
        rng = object_generator(identifier, seed + 1)
        places = (np.arange(n) + min(ndtr(rng.standard_normal()), 1 - 1e-7)) / n
        cumulative = weight[i].cumsum()
        chosen[i] = rng.permutation(np.searchsorted(cumulative / cumulative[-1], places, side="right"))
    return np.minimum(chosen, log_weight.shape[1] - 1), ess
