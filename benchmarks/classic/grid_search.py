"""GridSearchCV on digits: the runtime's joblib backend beside joblib's own (loky), two workers each, in turn.

    python benchmarks/classic/grid_search.py --pairs 5

Prints a line of JSON: medians in seconds, the median of loky's time over ours (paired), and both sets of parameters.
"""

import argparse
import json
import time
from statistics import median

from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from sklearn.svm import SVC

from shoal import runtime

GRID = {"C": [1, 10, 100], "gamma": [1e-4, 1e-3, 1e-2]}


def search(jobs: int | None) -> tuple[float, dict]:
    rows, labels = load_digits(return_X_y=True)
    start = time.perf_counter()
    found = GridSearchCV(SVC(), GRID, n_jobs=jobs).fit(rows, labels)
    return time.perf_counter() - start, found.best_params_


def on_runtime() -> tuple[float, dict]:
    with runtime.joblib():
        return search(None)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=5)
    pairs = parser.parse_args().pairs
    ours, theirs = [], []
    with runtime.init(num_cpus=2):
        on_runtime(), search(2)  # both have their workers now
        for pair in range(pairs):
            for which in (0, 1) if pair % 2 else (1, 0):
                (ours if which else theirs).append(on_runtime() if which else search(2))
    ratios = [other / own for (own, _), (other, _) in zip(ours, theirs, strict=True)]
    print(
        json.dumps(
            {
                "shoal_s": round(median(t for t, _ in ours), 2),
                "loky_s": round(median(t for t, _ in theirs), 2),
                "loky_over_shoal": round(median(ratios), 3),
                "ratios": [round(ratio, 2) for ratio in ratios],
                "best": [ours[0][1], theirs[0][1]],
            }
        )
    )


if __name__ == "__main__":
    main()
