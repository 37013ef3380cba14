"""The device that a learner computes on. This module doesn't import torch (see `lazy`)."""

from __future__ import annotations

from ...runtime import InputError
from ..lazy import torch


def resolve_device(device: str) -> str:
    """The device to compute on: "auto" is CUDA if there is a GPU. Raises InputError if a device is unknown or
    missing."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=torch.device(device))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).splitlines()[0]
        if why.startswith("Expected one of"):  # torch names two dozen kinds of devices
            why = "torch knows no such device; a GPU is 'cuda' or 'cuda:N'"
        raise InputError(f"device is {device!r}, which cannot be used here: {why}. Use 'auto' or 'cpu'") from None
    return device
