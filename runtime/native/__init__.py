"""The native engine: the paper's architecture on one machine, in processes of its own."""

from .driver.observer import Session, observe, sessions
from .engine import NativeEngine

__all__ = ["NativeEngine", "Session", "observe", "sessions"]
