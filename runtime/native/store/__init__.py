"""Shared memory: arenas, who views what, values in messages and blocks."""
