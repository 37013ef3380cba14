"""A worker: the process that runs tasks, or is an actor."""
