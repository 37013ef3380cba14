"""Datasets that tests write by hand."""

import numpy as np

from shoal.envs import codec, resolve, spec_to_json
from shoal.rl.data.dataset import RecordedEpisode
from shoal.rl.data.dataset_writer import DatasetWriter


def write_dataset(dataset_id, episodes, observation_space, action_space, env="CartPole-v1"):
    """Write episodes as a dataset of these spaces, recorded in `env`."""
    writer = DatasetWriter(
        dataset_id,
        observation_space=observation_space,
        action_space=action_space,
        environment=spec_to_json(resolve(env)),
        gymnasium_spec=None,
        metadata={"algorithm_name": "test"},
    )
    with writer:
        writer.write(episodes)
    return dataset_id


def episode(observation_space, action_space, length, *, seed=0, terminated=True, rewards=None):
    """An episode of random elements of the spaces; a mask among them allows all."""
    for space in (observation_space, action_space):
        space.seed(seed)
    seen, taken = codec(observation_space), codec(action_space)
    observations = np.empty((length + 1, *seen.shape), seen.dtype)
    actions = np.empty((length, *taken.shape), taken.dtype)
    for t in range(length + 1):
        drawn = observation_space.sample()
        if isinstance(drawn, dict) and "action_mask" in drawn:
            drawn["action_mask"][:] = 1
        observations[t] = seen.pack(drawn)
    for t in range(length):
        actions[t] = taken.pack(action_space.sample())
    terminations, truncations = np.zeros((2, length), np.bool_)
    terminations[-1], truncations[-1] = terminated, not terminated
    given = np.ones(length) if rewards is None else rewards
    return RecordedEpisode(observations, actions, np.asarray(given, np.float32), terminations, truncations, seed=seed)
