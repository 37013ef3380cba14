"""XGBoost's actors where there are several nodes: they are on one, unless all are asked for."""

import numpy as np
import pytest
from conftest import needs
from nodes import joined

from shoal import XGBoost, runtime

pytestmark = needs("xgboost")


@pytest.mark.slow
def test_xgboosts_actors_are_on_one_of_several_nodes():
    features = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
    rows = features, (features[:, 0] > 0).astype(int)
    few = {"rounds_per_iteration": 2, "max_depth": 3, "ranks": 3}
    with runtime.init(engine="serial"), XGBoost(rows, **few) as fit:
        wanted = fit.train(4).weights_sha256
    # Placement groups of the native engine are on the head, and it has room for two: three would be on both nodes.
    with runtime.init(num_cpus=2, listen="127.0.0.1:0"), joined("--num-cpus", "2"):
        with XGBoost(rows, workers=2, **few) as fit:
            assert fit.train(4).weights_sha256 == wanted
        with (
            XGBoost(rows, workers=3, **few) as fit,
            pytest.raises(runtime.InputError, match="workers is 3, but nodes is 'one', and none has so many CPUs"),
        ):
            fit.train(2)
