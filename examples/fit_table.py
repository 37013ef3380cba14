"""Predict a column of a table that has gaps and categories, by boosted trees and by a network, from one CSV file.

Run it with:
    python examples/fit_table.py
"""

import argparse
import csv

import numpy as np

from shoal import Supervised, XGBoost, runtime


def write_flats(path: str, rows: int = 2000) -> None:
    """Flats with a size, a storey and a district; one size in ten is not known."""
    random = np.random.default_rng(0)
    districts = {"harbour": 9.0, "old town": 14.0, "hill": 12.0}
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["size", "storey", "district", "rent"])
        for _ in range(rows):
            size, storey, district = random.uniform(30, 120), int(random.integers(0, 6)), random.choice(list(districts))
            rent = size * districts[district] + 20 * storey + random.normal(0, 30)
            writer.writerow([round(size, 1) if random.random() > 0.1 else "", storey, district, round(rent, 2)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    write_flats("flats.csv")
    with runtime.init(ignore_reinit_error=True):
        with XGBoost("flats.csv", label="rent", workers=2, max_depth=4) as fit:
            fit.train(rounds)
            print("XGBoost, held out:", fit.evaluate())
            print("features:", [feature.name for feature in fit.table.schema.features])
        with Supervised("flats.csv", label="rent", learning_rate=0.02) as fit:
            fit.train(20 * rounds)
            print("network, held out:", fit.evaluate())
