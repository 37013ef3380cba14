"""What is kept of a training, and what is read from it: the run folder, checkpoints, metrics, pictures, comparisons."""
