"""The order of everything, as a pure function of seed, epoch and index.

A permutation is the order of 64-bit numbers that a counter-based generator (Philox) gives for a key, and the key is a
hash of what the permutation is for. So the k-th window of an epoch can be permuted without the windows before it, by
whoever reads it. numpy promises the same raw bits in all versions, which it does not of `Generator.permutation`.
"""

from __future__ import annotations

import hashlib

import numpy as np


def key(seed: int, purpose: str, *indices: int) -> int:
    """A 128-bit key that differs for each seed, purpose and indices."""
    text = f"{purpose}\0{seed}/{'/'.join(map(str, indices))}"
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "little")


def permutation(n: int, seed: int, purpose: str, *indices: int) -> np.ndarray:
    """[n] int64: each of 0 … n − 1 once, in an order that depends on the arguments alone."""
    raw = np.random.Philox(key=key(seed, purpose, *indices)).random_raw(n)
    return np.argsort(raw, kind="stable")
