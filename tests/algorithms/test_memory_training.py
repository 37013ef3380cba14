"""A training with a memory goes on from a kill as if there had been none."""

import pytest
from learning_envs import DiesOnce, Walk

from shoal import runtime
from shoal.algorithms import ALGORITHMS
from shoal.rl import Callback

COMMON = {"n_envs": 6, "group_size": 2, "seed": 5, "preset": "none", "learning_rate": 0.003}
SETTINGS = {"ppo": {"n_steps": 13, "batch_size": 16, "n_epochs": 2}, "a2c": {"n_steps": 7}}
STEPS = 5 * 6 * 13
MEMORIES = {"transformer": {"units": 8, "heads": 2, "layers": 2, "window": 6}, "lstm": {"units": 8}}


def train(cell, workers, env=Walk, callbacks=(), timesteps=STEPS, **changes):
    name, memory = cell
    kwargs = {"memory": memory, "memory_kwargs": MEMORIES[memory], "sequence_length": 4, "net_arch": [8]}
    settings = COMMON | SETTINGS[name] | {"policy_kwargs": kwargs, "workers": workers} | changes
    with ALGORITHMS[name](env, **settings) as training:
        return training.train(timesteps, callbacks=callbacks).weights_sha256


class Kill(Callback):
    """Kills a worker after the second iteration and the learner after the third; they come back."""

    def on_iteration_end(self, training, report):
        if report.iteration == 2:
            runtime.kill(training.actors.workers.actors[0], no_restart=False)
        if report.iteration == 3:
            runtime.kill(training.actors.learner.actor, no_restart=False)


@pytest.mark.slow
@pytest.mark.parametrize("cell", [("ppo", "transformer"), ("ppo", "lstm"), ("a2c", "lstm")], ids="-".join)
def test_the_same_weights_after_kills(processes, cell, tmp_path):
    expected = train(cell, 1)
    assert train(cell, 3) == expected
    assert train(cell, 2, callbacks=[Kill()]) == expected
    longer = {"n_steps": 32, "timesteps": 6 * 160}  # an environment dies in the middle of a rollout, at its 150th step
    killed = train(cell, 2, DiesOnce, env_kwargs={"marker": str(tmp_path / "dies once")}, **longer)
    assert (tmp_path / "dies once").exists()
    assert killed == train(cell, 1, Walk, **longer)
