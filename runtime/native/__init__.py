"""The native engine: the paper's architecture on one machine, in processes of its own."""
