"""What processes of the native engine say to each other, and over what."""
