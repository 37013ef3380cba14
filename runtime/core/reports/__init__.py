"""What processes and nodes say of themselves, and what it means."""
