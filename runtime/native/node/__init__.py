"""The node's daemon: workers, leases, actors, shared memory, other nodes."""
