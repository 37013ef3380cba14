"""Writing datasets: files that appear under their names once they are complete, the same ones each time."""
