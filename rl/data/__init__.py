"""What learning works on: batches of named arrays, returns, replay. Free of torch."""
