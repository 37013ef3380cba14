"""Teach a network of your own to read scikit-learn's handwritten digits, stop in the middle of an epoch, and go on.

Run it with:
    python examples/fit_digits.py
"""

import argparse
import sys
from pathlib import Path

from sklearn.datasets import load_digits

from shoal import RunFolder, Supervised

sys.path.insert(0, str(Path(__file__).parent))  # where `networks` is

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--steps", type=int, default=600)
    steps = parser.parse_args().steps
    digits = load_digits(return_X_y=True)
    settings = {
        "module": "networks.convolutions:Convolutions",
        "module_kwargs": {"channels": 16},
        "input_shape": (1, 8, 8),
        "class_weight": "balanced",
        "rounds_per_iteration": 50,
    }
    with Supervised(digits, **settings) as fit:
        whole = fit.train(steps)
        print("held out:", fit.evaluate())
    with Supervised(digits, **settings) as fit, RunFolder("runs/digits", overwrite=True) as folder:
        fit.train(steps // 2, callbacks=[folder])
    with Supervised.load("runs/digits", digits) as fit:
        print("the same weights:", fit.train(steps - steps // 2).weights_sha256 == whole.weights_sha256)
