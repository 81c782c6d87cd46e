"""Noise that depends on an object's identifier and a seed only, so that order, batch and sharding never change a draw."""

import hashlib

import numpy as np

__all__ = ["object_noise"]


def object_noise(ids: np.ndarray, draws: int, size: int, seed: int) -> np.ndarray:
    """Standard normal noise, shape ``(object, draw, size)``, float32 (counter-based Philox streams)."""
    out = np.empty((len(ids), draws, size), np.float32)
    for i, identifier in enumerate(ids.tolist()):
        digest = hashlib.blake2b(f"{seed}:{identifier}".encode(), digest_size=16).digest()
        stream = np.random.Generator(np.random.Philox(key=np.frombuffer(digest, np.uint64)))
        out[i] = stream.standard_normal((draws, size), np.float32)
    return out
