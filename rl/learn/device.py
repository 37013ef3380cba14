"""The device that a learner computes on. This module doesn't import torch (see `lazy`)."""

from __future__ import annotations

import os

from ...runtime import InputError, get_gpu_ids
from ..lazy import torch


def resolve_device(device: str) -> str:
    """The device that this learner computes on, by kernels that give the same bits each time. "auto" is CUDA if the
    runtime has given it a GPU. Raises InputError if a device is unknown or missing."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() and get_gpu_ids() else "cpu"
    if device.startswith("cuda"):
        _be_deterministic()
    try:
        torch.zeros(1, device=torch.device(device))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).splitlines()[0]
        if why.startswith("Expected one of"):  # torch names two dozen kinds of devices
            why = "torch knows no such device; a GPU is 'cuda' or 'cuda:N'"
        raise InputError(f"device is {device!r}, which cannot be used here: {why}. Use 'auto' or 'cpu'") from None
    return device


def _be_deterministic() -> None:
    """Learners that compute the same shard must come to the same bits, or they would part. An operation that knows no
    such way warns by its name."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA is first used
    torch.use_deterministic_algorithms(True, warn_only=True)
