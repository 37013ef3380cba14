"""What only a driver, or an observer from outside, needs."""
