"""What processes say of themselves, and what it means: reports in, rows and texts out."""
