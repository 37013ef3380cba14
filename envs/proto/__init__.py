"""The protocol with simulators outside: `shoal_simulators.proto`, and what `make proto` generates from it."""
