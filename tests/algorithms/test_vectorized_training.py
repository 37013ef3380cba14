"""Training on environments that a library steps together."""

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, VectorEnv

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
        ({"vectorization": "entrypoint"}, "vectorization is 'entrypoint', but must be one of"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, message):
    with pytest.raises(InputError, match=message):
        PPO("CartPole-v1", **SMALL | settings)


class TwoSteps(gymnasium.Env):
    """Observes 0, then 1, then ends with 2."""

    observation_space, action_space = gymnasium.spaces.Box(0, 2, (1,), np.float32), gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.count += 1
        return np.full(1, self.count, np.float32), 1.0, self.count == 2, False, {}


class TwoStepsTogether(VectorEnv):
    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012
    single_observation_space, single_action_space = TwoSteps.observation_space, TwoSteps.action_space

    def __init__(self, num_envs):
        self.num_envs = num_envs

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return self.result()[0], {}

    def step(self, actions):
        self.count = (self.count + 1) % 3
        return self.result()

    def result(self):
        ended, reward = np.full(self.num_envs, self.count == 2), np.full(self.num_envs, float(self.count > 0))
        return np.full((self.num_envs, 1), self.count, np.float32), reward, ended, ~ended & ended, {}


def test_normalization_does_not_count_steps_that_only_reset():
    gymnasium.register("TwoSteps-v0", TwoSteps, vector_entry_point=TwoStepsTogether)
    try:
        with PPO("TwoSteps-v0", **SMALL | SETTINGS[PPO] | {"n_steps": 30}, normalize="obs,reward") as ppo:
            ppo.train(240)
            normalizer = ppo.policy.model.normalizer
    finally:
        del gymnasium.registry["TwoSteps-v0"]
    assert normalizer.means[0].tolist() == [0.5]  # of zeros and ones: what is seen after the end was acted on by nobody
    assert normalizer.scales[0].tolist() == pytest.approx([2], rel=1e-6)


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
