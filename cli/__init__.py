"""The command line: `shoal train | evaluate | serve`."""
