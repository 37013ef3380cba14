"""What engines share about actors: when one is made, restarted and dead; how it comes back with its state."""
