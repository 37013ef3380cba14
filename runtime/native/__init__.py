"""The native engine: the paper's architecture on one machine, in processes of its own."""

from .engine import NativeEngine

__all__ = ["NativeEngine"]
