"""What only a driver, or one who looks in from outside, needs."""
