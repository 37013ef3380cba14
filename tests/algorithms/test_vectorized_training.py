"""Training on environments that a library steps together."""

import numpy as np
import pytest

from shoal import A2C, DQN, PPO
from shoal.rl import Batch, Rollout
from shoal.rl.on_policy import learning_batch
from shoal.runtime import InputError

SMALL = {"n_envs": 8, "group_size": 2, "preset": "none", "seed": 3, "vectorization": "entry_point", "engine": "serial"}
SETTINGS = {
    PPO: {"n_steps": 16, "batch_size": 32, "n_epochs": 1},
    DQN: {"learning_starts": 100, "buffer_size": 1000, "n_step": 3},
}


class Learner:
    """What `learning_batch` asks of one."""

    model = type("Model", (), {"encode": staticmethod(lambda observations: observations)})

    def rewards(self, raw):
        return raw

    def tensors(self, arrays):
        return dict(arrays)


def test_nothing_is_learned_from_a_step_that_only_resets():
    shape, resets = (4, 2), np.zeros((4, 2), np.bool_)
    resets[2, 1] = True
    columns = {name: np.arange(8, dtype=np.float32).reshape(shape) for name in ("rewards", "values", "log_probs")}
    ends = {name: np.zeros(shape, np.bool_) for name in ("terminations", "truncations")}
    others = {"next_values": np.ones(shape, np.float32), "actions": np.arange(8).reshape(shape)}
    observations = np.arange(8, dtype=np.float32).reshape(4, 2, 1)
    steps = Batch({**columns, **ends, **others, "observations": observations, "resets": resets}, 2)
    batch = learning_batch(Learner(), Rollout(steps, Batch({"rows": np.arange(6, 8)}), 0), gamma=0.9, gae_lambda=0.9)
    assert batch["actions"].tolist() == [0, 1, 2, 3, 4, 6, 7]
    assert batch["rows"][:, 0].tolist() == [0, 1, 2, 3, 4, 6, 7]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"step_timeout": 1.0}, "step_timeout is 1.0, but vectorization is 'entry_point'"),
        ({"normalize": "obs"}, "normalize does not go with vectorization 'entry_point'"),
        ({"vectorization": "entrypoint"}, "vectorization is 'entrypoint', but must be one of"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        PPO("CartPole-v1", **SMALL | settings)


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", [PPO, DQN])
def test_weights_do_not_depend_on_the_number_of_workers(algorithm):
    hashes = set()
    for workers in (1, 2, 3):
        with algorithm("CartPole-v1", **SMALL, **SETTINGS[algorithm], workers=workers) as trained:
            hashes.add(trained.train(1024).weights_sha256)
    assert len(hashes) == 1


@pytest.mark.slow
def test_a_network_with_memory_learns_nothing_from_resets_either():
    with A2C("CartPole-v1", **SMALL, policy_kwargs={"memory": "gru"}) as a2c:
        assert np.isfinite(a2c.train(512).episode_return_mean)
