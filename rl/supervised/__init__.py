"""Models of tables: what is read, how it is fitted, scored, saved and asked. No environment is involved."""
