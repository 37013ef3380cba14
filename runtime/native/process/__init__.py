"""What drivers and workers have in common: their connections, objects and calls."""
