"""An actor that lets tests decide when a task goes on."""

import os

from shoal import runtime


@runtime.remote
class Gate:
    """Closed until `release`."""

    def __init__(self):
        self.open = False

    def release(self):
        self.open = True

    def is_open(self):
        return self.open


@runtime.remote
def pass_gate(gate, value):
    """Return the value once the gate is open."""
    while not runtime.get(gate.is_open.remote()):
        os.sched_yield()
    return value
