"""The Ray engine: the calls of the runtime, on a Ray cluster."""
