"""How a driver starts the engine: first the node, and while that comes up, what the driver itself needs is imported."""

from __future__ import annotations

from importlib import import_module

from ..core.engine import Engine
from ..core.held_signals import signals_held
from ..core.settings import Settings
from .driver.node_process import NodeProcess


def start(settings: Settings) -> Engine:
    """Start the native engine with a node of its own.

    Raises:
        InputError: a setting that cannot work.
        NodeDiedError: the node did not start.
    """
    node = None
    try:
        with signals_held():  # a Ctrl-C in between would leave a process that nobody knows
            node = NodeProcess(settings.record_call_sites)
        engine: Engine = import_module(".engine", __package__).NativeDriver(settings, node)
    except BaseException:
        if node is not None:
            node.kill()
        raise
    return engine
