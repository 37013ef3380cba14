"""Shared memory: arenas, which process views what, values in messages and blocks."""
