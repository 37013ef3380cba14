"""What drivers and workers have in common: their connections, objects, shared memory and calls."""
