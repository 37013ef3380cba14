"""The serial engine: everything in the calling process."""
