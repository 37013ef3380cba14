"""XGBoost over actors: one hash for 1, 2 and 3 of them and for one that is killed, and the accuracy of plain xgboost.

    python benchmarks/classic/xgboost_actors.py

100,000 rows of 20 continuous features, for which xgboost's own distributed mode gives another model for each number of
workers. Prints a line of JSON: hash and seconds of each fit, seconds that the kill cost, and both accuracies.
"""

import argparse
import json
import time

import numpy as np
import xgboost

from shoal import XGBoost, runtime
from shoal.rl import Callback


class Kill(Callback):
    """Kills the second actor after the second iteration."""

    def on_iteration_end(self, training, report) -> None:
        if report.iteration == 2:
            runtime.kill(training._ranks.hosts[1], no_restart=False)


def rows(count: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    features = random.normal(size=(count, 20)).astype(np.float32)
    score = features[:, 0] + np.sin(3 * features[:, 1]) + features[:, 2] * (features[:, 0] > 0)
    return features, (score + 0.3 * random.normal(size=count) > 0).astype(int)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=50)
    flags = parser.parse_args()
    table, found = rows(flags.rows), {}
    with runtime.init(num_cpus=3):
        for name, workers, callbacks in (("1", 1, []), ("2", 2, []), ("3", 3, []), ("2, one killed", 2, [Kill()])):
            with XGBoost(table, workers=workers, max_depth=4) as fit:
                fit.train(10)  # actors are there, and quantiles sketched
                start = time.perf_counter()
                result = fit.train(flags.rounds - 10, callbacks=callbacks)
                seconds = round(time.perf_counter() - start, 2)
                found[name] = {"sha256": result.weights_sha256[:16], "seconds": seconds, **fit.evaluate()}
    train, out = fit.train_rows, fit.held_out_rows
    parameters = {"max_depth": 4, "objective": "binary:logistic", "tree_method": "hist", "nthread": 1}
    plain = xgboost.train(parameters, xgboost.DMatrix(train.features, train.labels), flags.rounds)
    accuracy = ((plain.predict(xgboost.DMatrix(out.features)) > 0.5) == out.labels).mean()
    lost = round(found["2, one killed"]["seconds"] - found["2"]["seconds"], 2)
    print(json.dumps({"actors": found, "kill_cost_s": lost, "plain_accuracy": float(accuracy)}))


if __name__ == "__main__":
    main()
