"""How values and exceptions travel: to bytes and back."""
