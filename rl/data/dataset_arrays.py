"""Arrays of one's own as a dataset: recorded steps, one after the other, as D4RL has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from gymnasium import Space

from ...envs import codec, resolve, spec_to_json
from ...runtime import InputError, nearest
from .dataset import RecordedEpisode
from .dataset_writer import DatasetWriter, check_dataset_id

_NEEDED = ("observations", "actions", "rewards", "terminations")
_KNOWN = (*_NEEDED, "truncations", "next_observations")
_ELSEWHERE = {"terminals": "terminations", "timeouts": "truncations"}
"""What D4RL calls them."""


def write_dataset(
    dataset: str,
    arrays: Mapping[str, Any],
    *,
    env: Any = None,
    observation_space: Space | None = None,
    action_space: Space | None = None,
    overwrite: bool = False,
) -> str:
    """Write steps that were recorded elsewhere as a Minari dataset, which offline algorithms learn from; return its id.

    Args:
        dataset: Minari id to write, such as "mine/logged-v0"; `overwrite` replaces one of that id.
        arrays: of N steps in the order in which they were taken: `observations` [N, …] (a dict or tuple of arrays where
            the space has parts), `actions` [N, …], `rewards` [N], `terminations` [N] (or `terminals`: the task ended
            with this step), `truncations` [N] (or `timeouts`: the episode was cut off after it), `next_observations`
            [N, …]. The last two may be left out. Where a next observation is not the one that follows, the episode was
            cut off, too. One that was cut off without a next observation ends a step earlier, whose value then goes on.
        env: the environment that they are of: an id, class or factory.
        observation_space, action_space: in place of `env`, or of its own spaces.

    Raises InputError for arrays that are missing, of unequal lengths or not of the spaces, and if nothing is left.
    """
    check_dataset_id(dataset, overwrite=overwrite)
    spec = None if env is None else resolve(env)
    if spec is not None and (observation_space is None or action_space is None):
        made = spec.make()
        observation_space = made.observation_space if observation_space is None else observation_space
        action_space = made.action_space if action_space is None else action_space
        made.close()
    if observation_space is None or action_space is None:
        raise InputError("write_dataset needs the spaces: give env, or observation_space and action_space")
    columns = _columns(arrays, observation_space, action_space)
    episodes = [episode for episode in _episodes(columns) if len(episode)]
    if not episodes:
        raise InputError("the arrays hold no step whose next observation is known")
    with DatasetWriter(
        dataset,
        observation_space=observation_space,
        action_space=action_space,
        environment=None if spec is None else spec_to_json(spec),
        gymnasium_spec=None,
        metadata={},
        overwrite=overwrite,
    ) as writer:
        writer.write(episodes)
    return dataset


def _by_our_names(arrays: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(arrays, Mapping):
        raise InputError(f"arrays is {arrays!r:.80}, but must be a dict of arrays: {', '.join(_KNOWN)}")
    for name in arrays:
        ours = _ELSEWHERE.get(name, name)
        if name == "dones":
            raise InputError(
                "arrays holds 'dones', which do not tell where the task ended from where an episode was cut off: give "
                "'terminations', and 'truncations' where there are some"
            )
        if ours not in _KNOWN:
            raise InputError(f"arrays holds {name!r}, which no step has. {nearest(name, _KNOWN)}")
        if ours != name and ours in arrays:
            raise InputError(f"arrays holds both {name!r} and {ours!r}, which are one thing: leave one out")
    return {_ELSEWHERE.get(name, name): value for name, value in arrays.items()}


def _columns(arrays: Mapping[str, Any], observation_space: Space, action_space: Space) -> dict[str, np.ndarray]:
    """The arrays as rows of the spaces' codecs."""
    given = _by_our_names(arrays)
    for name in _NEEDED:
        if name not in given:
            raise InputError(f"arrays lacks {name!r}; wanted {', '.join(_NEEDED)}")
    seen, taken = codec(observation_space), codec(action_space)
    columns: dict[str, np.ndarray] = {}
    for name, value in given.items():
        try:
            if name.endswith("observations"):
                columns[name] = seen.as_batch(value)[0]
            elif name == "actions":
                columns[name] = taken.as_batch(value)[0]
            else:
                columns[name] = _rewards(value) if name == "rewards" else np.asarray(value, np.bool_).reshape(-1)
        except (ValueError, TypeError) as error:
            raise InputError(f"arrays[{name!r}]: {error}") from error
    steps = len(columns["rewards"])
    for name, column in columns.items():
        if len(column) != steps:
            raise InputError(f"arrays[{name!r}] has {len(column)} rows, but there are {steps} rewards")
    return columns


def _rewards(value: Any) -> np.ndarray:
    rewards = np.asarray(value, np.float32).reshape(-1)
    if not np.isfinite(rewards).all():
        first = int(np.flatnonzero(~np.isfinite(rewards))[0])
        raise ValueError(f"number {first} is {rewards[first]}; wanted a finite one")
    return rewards


def _episodes(columns: Mapping[str, np.ndarray]) -> Iterator[RecordedEpisode]:
    seen, terminations = columns["observations"], columns["terminations"]
    after = columns.get("next_observations")
    cut = columns.get("truncations", np.zeros_like(terminations)) & ~terminations
    if after is not None:
        other = after[:-1] != seen[1:]
        cut[:-1] |= ~terminations[:-1] & other.any(axis=tuple(range(1, other.ndim)))
    cut[-1:] |= ~terminations[-1:]
    first = 0
    for last in np.flatnonzero(terminations | cut):
        stop = last + 1
        if after is not None:
            final = after[last:stop]
        else:  # of what terminated nobody asks for it
            final = seen[last:stop]
            stop = stop if terminations[last] else last
        steps, ended = slice(first, stop), np.zeros(stop - first, np.bool_)
        ended[-1:] = True
        yield RecordedEpisode(
            np.concatenate([seen[steps], final]),
            columns["actions"][steps],
            columns["rewards"][steps],
            ended & terminations[last],
            ended & cut[last],
        )
        first = int(last) + 1
