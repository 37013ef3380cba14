"""The native engine: the paper's architecture on one machine, in processes of its own."""

from .engine import NativeEngine
from .observer import Session, observe, sessions

__all__ = ["NativeEngine", "Session", "observe", "sessions"]
