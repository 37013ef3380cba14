import functools
import pickle
import re
import sys
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete, MultiBinary, MultiDiscrete, Text
from gymnasium.wrappers import TimeLimit
from tiny_envs import BoomError, Continuous, Counter, Explosive

from shoal import envs
from shoal.envs import EnvContractError, EnvGroup, EnvSpec, Episode, episode_seed
from shoal.envs.action_log import ActionLog
from shoal.envs.group_checks import GroupChecks
from shoal.runtime import InputError


def group_of(entry, *, size=2, first_index=0, run_seed=0, **kwargs):
    return EnvGroup(EnvSpec("Tiny-v0", entry, kwargs), size=size, first_index=first_index, run_seed=run_seed)


def test_steps_and_same_step_autoreset_by_hand():
    group = group_of(Counter, size=2, first_index=4, length=2)
    assert group.reset().tolist() == [[0, 0], [0, 0]]

    one = group.step(np.array([1, 2]))
    assert one.observations.tolist() == [[1, 1], [1, 2]]
    assert one.final_observations.tolist() == one.observations.tolist()
    assert one.rewards.tolist() == [1.5, 2.0]
    assert (one.rewards.dtype, one.observations.dtype) == (np.float64, np.float32)
    assert one.terminations.tolist() == one.truncations.tolist() == [False, False]
    assert one.episodes == []

    two = group.step(np.array([0, 2]))
    assert two.observations.tolist() == [[0, 0], [0, 0]]
    assert two.final_observations.tolist() == [[2, 1], [2, 4]]
    assert two.terminations.tolist() == [True, True]
    assert two.truncations.tolist() == [False, False]
    assert two.episodes == [
        Episode(environment=4, index=0, return_=3.5, length=2, seed=episode_seed(0, 4, 0), end_step=2),
        Episode(environment=5, index=0, return_=5.0, length=2, seed=episode_seed(0, 5, 0), end_step=2),
    ]

    group.step(np.array([0, 0]))
    four = group.step(np.array([0, 0]))
    assert [(e.index, e.return_, e.length, e.end_step) for e in four.episodes] == [(1, 3.0, 2, 4)] * 2
    assert four.episodes[0].seed == episode_seed(0, 4, 1)


def test_termination_and_truncation_stay_as_given():
    group = group_of(Counter, length=3, truncate_at=2)
    group.reset()
    group.step(np.zeros(2))
    step = group.step(np.zeros(2))
    assert (step.terminations.tolist(), step.truncations.tolist()) == ([False, False], [True, True])
    both = group_of(Counter, length=2, truncate_at=2)
    both.reset()
    both.step(np.zeros(2))
    step = both.step(np.zeros(2))
    assert (step.terminations.tolist(), step.truncations.tolist()) == ([True, True], [True, True])


class Early(TimeLimit):
    """Another limit, which the group leaves to it."""


@pytest.mark.parametrize("length", [3, 9])
@pytest.mark.parametrize("wrapper", [TimeLimit, Early])
def test_a_time_limit_cuts_off_where_the_wrapper_would(wrapper, length):
    """The group does it itself, without a call around each step, also in the middle of what was put back."""
    made = functools.partial(lambda noisy: wrapper(Counter(length, noisy=noisy), 3), noisy=True)
    spec = EnvSpec("Tiny-v0", made)
    group, again = (EnvGroup(spec, size=2, first_index=3, run_seed=1) for _ in range(2))
    alone = [spec.make() for _ in range(2)]
    episode = 0
    seen = [env.reset(seed=episode_seed(1, 3 + row, episode))[0] for row, env in enumerate(alone)]
    assert group.reset().tolist() == np.stack(seen).tolist()
    for t in range(8):
        step = group.step(np.ones(2))
        found = [env.step(1) for env in alone]
        assert step.final_observations.tolist() == np.stack([one[0] for one in found]).tolist()
        assert step.terminations.tolist() == [one[2] for one in found] == [length == 3 and t % 3 == 2] * 2
        assert step.truncations.tolist() == [one[3] for one in found] == [t % 3 == 2] * 2
        if t % 3 == 2:
            episode += 1
            for row, env in enumerate(alone):
                env.reset(seed=episode_seed(1, 3 + row, episode))
        if t == 3:
            again.restore(group.state())
            group, again = again, group


def test_limits_that_differ_are_left_to_the_wrappers():
    made = iter([2, 3])
    group = group_of(lambda: TimeLimit(Counter(9), next(made)))
    group.reset()
    assert [group.step(np.zeros(2)).truncations.tolist() for _ in range(3)] == [
        [False, False], [True, False], [False, True],
    ]  # fmt: skip


def test_environments_end_at_different_times():
    group = EnvGroup(EnvSpec("Tiny-v0", UnequalLengths()), size=2, first_index=0, run_seed=0)
    group.reset()
    group.step(np.zeros(2))
    step = group.step(np.zeros(2))
    assert step.terminations.tolist() == [True, False]
    assert step.observations.tolist() == [[0, 0], [2, 0]]
    assert step.final_observations.tolist() == [[2, 0], [2, 0]]
    assert [episode.environment for episode in step.episodes] == [0]


class UnequalLengths:
    """A factory of environments of lengths 2, 3, 4, …"""

    def __init__(self):
        self.made = 1

    def __call__(self):
        self.made += 1
        return Counter(length=self.made)


def test_returned_arrays_are_never_written_again():
    group = group_of(Counter, length=3)
    steps = [group.reset()] + [group.step(np.ones(2)) for _ in range(3)]
    assert steps[0].tolist() == [[0, 0], [0, 0]]
    assert [step.final_observations[0].tolist() for step in steps[1:]] == [[1, 1], [2, 2], [3, 3]]
    assert [step.rewards[0] for step in steps[1:]] == [1.5, 2.5, 3.5]


def test_how_environments_are_grouped_changes_nothing():
    whole = group_of(Counter, size=4, run_seed=9, noisy=True)
    parts = [group_of(Counter, size=2, first_index=index, run_seed=9, noisy=True) for index in (0, 2)]
    assert whole.reset().tobytes() == np.concatenate([part.reset() for part in parts]).tobytes()
    for t in range(7):
        actions = np.array([t, t + 1, t + 2, t + 3]) % 3
        one = whole.step(actions)
        two = [part.step(actions[2 * i : 2 * i + 2]) for i, part in enumerate(parts)]
        assert one.observations.tobytes() == np.concatenate([step.observations for step in two]).tobytes()
        assert one.episodes == [episode for step in two for episode in step.episodes]


def test_reset_begins_the_next_episode():
    group = group_of(Counter, noisy=True)
    first, second = group.reset(), group.reset()
    assert first.tobytes() != second.tobytes()
    again = group_of(Counter, noisy=True)
    assert (again.reset().tobytes(), again.reset().tobytes()) == (first.tobytes(), second.tobytes())


def test_environment_may_change_its_action():
    group = group_of(Continuous)
    start = group.reset()
    actions = np.full((2, 2), 0.5, np.float32)
    step = group.step(actions)
    assert actions.tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert step.observations.dtype == np.float64
    assert step.observations.tolist() == (start + 0.5).tolist()
    recorded = group.state().actions
    assert recorded.tolist() == [[[0.5, 0.5], [0.5, 0.5]]]


class Typed(gymnasium.Env):
    """Records the type of the action that it gets."""

    def __init__(self, space, observation_space=None):
        self.action_space, self.observation_space = space, observation_space or Discrete(5)
        self.sample = self.observation_space.sample()
        self.got = []

    def reset(self, *, seed=None, options=None):
        return self.sample, {}

    def step(self, action):
        self.got.append(action)
        return self.sample, 0, False, False, {}


@pytest.mark.parametrize(
    ("space", "actions"),
    [
        (Discrete(3), [0, 2]),
        (Discrete(300, start=-7), [-7, 292]),
        (MultiDiscrete([2, 3]), [[0, 1], [1, 2]]),
        (MultiBinary(2), [[0, 1], [1, 1]]),
        (Box(-1, 1, (1,), np.float32), [[0.5], [-1]]),
    ],
    ids=envs.describe,
)
def test_environments_get_actions_of_their_space(space, actions):
    group = group_of(Typed, space=space)
    group.reset()
    group.step(np.array(actions))
    for env, wanted in zip(group._envs, actions, strict=True):
        (got,) = env.got
        assert space.contains(got)
        assert np.array_equal(got, wanted)
    assert group.state().actions[-1].tolist() == actions


@pytest.mark.parametrize("space", [Discrete(5), MultiDiscrete([2, 3]), MultiBinary(3), Box(0, 255, (2, 2), np.uint8)])
def test_observations_keep_their_dtype(space):
    group = group_of(Typed, space=Discrete(2), observation_space=space)
    observations = group.reset()
    assert observations.dtype == space.dtype
    assert observations.shape == (2, *space.shape)
    step = group.step(np.zeros(2))
    assert step.observations.dtype == step.final_observations.dtype == space.dtype


# Misuse -------------------------------------------------------------------------------------------------------------


def test_empty_group():
    with pytest.raises(InputError, match="at least 1 environment, not 0"):
        group_of(Counter, size=0)


def test_step_before_reset_and_after_close():
    group = group_of(Counter)
    with pytest.raises(InputError, match=r"call reset\(\) before step"):
        group.step(np.zeros(2))
    group.reset()
    group.close()
    group.close()
    with pytest.raises(InputError, match="closed"):
        group.step(np.zeros(2))
    with pytest.raises(InputError, match="closed"):
        group.reset()


def test_wrong_number_of_actions():
    group = group_of(Counter)
    group.reset()
    with pytest.raises(InputError, match=r"actions of shape \(3,\) given to a group of 2 × 'Tiny-v0'; wanted \(2,\)"):
        group.step(np.zeros(3))
    assert group.step(np.zeros(2)).observations.tolist() == [[1, 0], [1, 0]]


def test_unsupported_space():
    with pytest.raises(InputError, match="observation space Text"):
        group_of(Typed, space=Discrete(2), observation_space=Text(3))


def test_space_that_was_forgotten():
    class Forgot(Counter):
        def __init__(self):
            super().__init__()
            del self.action_space

    with pytest.raises(InputError, match=r"action_space is None .*set self.action_space in the environment's __init__"):
        group_of(Forgot)


def test_copies_that_differ():
    made = []

    def factory():
        made.append(0)
        return Typed(Discrete(len(made)))

    with pytest.raises(EnvContractError, match=r"action_space of index 3 is Discrete\(1\), of index 4 Discrete\(2\)"):
        group_of(factory, first_index=3)


# What environments do wrong -----------------------------------------------------------------------------------------


class Returns(Counter):
    """Its step and reset return what they are told."""

    def __init__(self, step=None, reset=None):
        super().__init__()
        self.step_result, self.reset_result = step, reset

    def reset(self, *, seed=None, options=None):
        return super().reset(seed=seed) if self.reset_result is None else self.reset_result

    def step(self, action):
        return self.step_result


GOOD = np.zeros(2, np.float32)


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ((GOOD, 0.0, False, {}), r"step\(\) returned 4 values .*split done into terminated"),
        (None, r"step\(\) returned None of type NoneType; wanted the tuple"),
        (
            (np.zeros(3, np.float32), 0.0, False, False, {}),
            r"observation of shape \(3,\); observation_space .* wants \(2,\)",
        ),
        ((np.zeros((1, 2), np.float32), 0.0, False, False, {}), r"observation of shape \(1, 2\)"),
        ((np.float32(3), 0.0, False, False, {}), "observation of type float32; wanted a numpy array"),
        (
            ([0.0, 0.0], 0.0, False, False, {}),
            r"type list; wanted a numpy array: np.array\(observation, dtype=np.float32\)",
        ),
        ((GOOD, None, False, False, {}), r"reward None of type NoneType; wanted a float \(step 1 of episode 0\)"),
        ((GOOD, float("-inf"), False, False, {}), "reward -inf; wanted a finite float"),
        ((GOOD, "three", False, False, {}), "reward 'three' of type str; wanted a float"),
        ((GOOD, np.zeros(2), False, False, {}), r"reward array.*an array of shape \(2,\); wanted a float"),
        ((GOOD, np.zeros(1), False, False, {}), r"reward array.*an array of shape \(1,\); wanted a float"),
        ((GOOD, 0.0, np.zeros(2), False, {}), r"terminated array.* of type ndarray; wanted a bool"),
        ((GOOD, 0.0, np.ones(1), False, {}), r"terminated array.* of type ndarray; wanted a bool"),
        ((GOOD, 0.0, "no", False, {}), r"terminated 'no' of type str; wanted a bool: bool\(terminated\)"),
        ((GOOD, 0.0, None, True, {}), r"terminated None of type NoneType; wanted a bool"),
        (
            (GOOD, 0.0, False, 2, {}),
            r"truncated 2 of type int; wanted a bool: bool\(truncated\) \(step 1 of episode 0\)",
        ),
    ],
)
def test_bad_step_result(result, text):
    group = group_of(Returns, first_index=6, step=result)
    group.reset()
    with pytest.raises(EnvContractError, match=r"environment 'Tiny-v0', index 6: .*" + text):
        group.step(np.zeros(2))


@pytest.mark.parametrize(
    ("result", "text"),
    [
        ((np.zeros(3, np.float32), 0.0, False, False, {}), r"observation of shape \(3,\)"),
        ((np.zeros(2), 0.0, False, False, {}), "observation of dtype float64"),
        (([np.float32(0)] * 2, 0.0, False, False, {}), "observation of type list"),
        ((np.full(2, np.nan, np.float32), 0.0, False, False, {}), r"observation\[0\] = nan"),
        ((GOOD, np.inf, False, False, {}), "reward inf; wanted a finite float"),
        ((GOOD, None, False, False, {}), "reward None of type NoneType"),
        ((GOOD, 10**400, False, False, {}), "a reward too large for a float; wanted a finite float"),
        ((GOOD, 0.0, False, False, {}, {}), "returned a tuple of 6"),
        ((GOOD, 0.0, False, {}), "returned 4 values"),
    ],
)
def test_the_one_of_several_that_does_not_fit_is_named(result, text):
    results = iter([(GOOD, 0.0, False, False, {})] * 2 + [result, (GOOD, 0.0, False, False, {})])
    group = group_of(lambda: Returns(next(results)), size=4, first_index=6)
    group.reset()
    with pytest.raises(EnvContractError, match=r"environment 'Tiny-v0', index 8: .*" + text + ".*step 1 of episode 0"):
        group.step(np.zeros(4))


class Raises(Returns):
    def step(self, action):
        raise ValueError("too many values")


def test_what_a_step_raises_is_not_taken_for_what_another_returned():
    made = iter([Returns(([0.0, 0.0], 0.0, False, False, {})), Raises()])
    group = group_of(lambda: next(made), size=2)
    group.reset()
    with pytest.raises(ValueError, match="too many values") as caught:
        group.step(np.zeros(2))
    assert "index 1" in "".join(caught.value.__notes__)


def test_what_a_step_in_c_raises_is_not_taken_for_a_result_of_none():
    def made():
        env = Returns()
        env.step = {}.__getitem__
        return env

    group = group_of(made, size=1)
    group.reset()
    with pytest.raises(KeyError):
        group.step(np.zeros(1))


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (GOOD, r"reset\(\) returned array.*wanted the tuple \(observation, info\)"),
        ((np.zeros(3, np.float32), {}), r"reset\(\) returned an observation of shape \(3,\)"),
        (([0, 0, 0], {}), r"reset\(\) returned an observation of type list"),
    ],
)
def test_bad_reset_result(result, text):
    with pytest.raises(EnvContractError, match=text):
        group_of(Returns, reset=result).reset()


class Quits(Explosive):
    """Asks for the end of its process where another one would raise something."""

    def step(self, action):
        try:
            return super().step(action)
        except BoomError:
            sys.exit("no more fuel")


def test_an_environment_that_calls_exit_does_not_end_its_worker():
    group = group_of(Quits, first_index=3, at=1)
    group.reset()
    with pytest.raises(EnvContractError, match=r"index 3: step\(\) called sys.exit\('no more fuel'\).*step 1 of"):
        group.step(np.array([1, 2]))


def failing_note(call):
    with pytest.raises(BoomError) as caught:
        call()
    (note,) = caught.value.__notes__
    return caught, note


def test_exception_in_step_says_where_and_how_to_repeat_it():
    group = group_of(Explosive, first_index=3, run_seed=5, at=3)
    group.reset()
    group.step(np.array([1, 2]))
    group.step(np.array([2, 2]))
    caught, note = failing_note(lambda: group.step(np.array([0, 1])))
    seed = episode_seed(5, 3, 0)
    assert f"in step of environment 'Tiny-v0', index 3 at step 3 of episode 0 (reset seed {seed})" in note
    assert caught.traceback[-1].name == "step"
    assert "tiny_envs" in str(caught.traceback[-1].path)

    script = "\n".join(line[4:] for line in note.split("\n\n", 1)[1].splitlines())
    assert "actions = np.array([1, 2, 0], dtype=np.int64)" in script
    with pytest.raises(BoomError, match=re.escape(str(caught.value))):
        exec(script, {})


def test_exception_in_a_later_episode():
    group = group_of(Explosive, size=1, at=11)  # never: an episode has 10 steps
    group.reset()
    for _ in range(13):
        group.step(np.array([1]))
    group._envs[0].at = 4
    _, note = failing_note(lambda: group.step(np.array([2])))
    assert "at step 4 of episode 1" in note
    assert "actions = np.array([1, 1, 1, 2], dtype=np.int64)" in note


def test_long_script_is_packed():
    group = group_of(Explosive, size=1, at=2000)
    group._envs[0].length = 3000
    group.reset()
    for t in range(1999):
        group.step(np.array([t % 3]))
    _, note = failing_note(lambda: group.step(np.array([1999 % 3])))
    assert len(note) < 1000
    names = {"np": np}
    exec("import base64, zlib\n" + next(line for line in note.splitlines() if "actions = " in line).strip(), names)
    assert names["actions"].tolist() == [t % 3 for t in range(2000)]


def test_exception_in_reset_and_construction():
    group = group_of(Explosive, first_index=3, where="reset")
    _, note = failing_note(group.reset)
    assert "in reset of environment 'Tiny-v0', index 3 at the start of episode 0 (reset seed" in note
    _, note = failing_note(lambda: group_of(Explosive, first_index=3, where="__init__"))
    assert "in __init__ of environment 'Tiny-v0', index 3." in note
    script = "\n".join(line[4:] for line in note.split("\n\n", 1)[1].splitlines())
    with pytest.raises(BoomError, match="no fuel"):
        exec(script, {})


def test_failed_group_refuses_to_go_on():
    group = group_of(Explosive, at=1)
    group.reset()
    failing_note(lambda: group.step(np.zeros(2)))
    with pytest.raises(InputError, match=r"call reset\(\)"):
        group.step(np.zeros(2))


def test_cartpole_runs():
    with EnvGroup(envs.resolve("CartPole-v1"), size=3, first_index=0, run_seed=1) as group, warnings.catch_warnings():
        group.reset()
        episodes = [e for t in range(200) for e in group.step(np.full(3, t % 2)).episodes]
    assert sum(episode.length for episode in episodes) <= 600
    assert all(episode.return_ == episode.length for episode in episodes)
    assert {episode.environment for episode in episodes} == {0, 1, 2}


# The log of actions -------------------------------------------------------------------------------------------------


def test_action_log_forgets_and_grows():
    log = ActionLog((1,), np.dtype(np.int64))
    for t in range(2000):
        if log.full:
            log.make_room(keep=300)
        log.append(np.array([t]))
    assert log.last(300)[:, 0].tolist() == list(range(1700, 2000))
    assert len(log._rows) == 600
    assert len(log.last(10**6)) <= 600
    log.replace(np.array([[7], [8]]))
    log.append(np.array([9]))
    assert log.last(10)[:, 0].tolist() == [7, 8, 9]


def test_an_observation_is_not_looked_at_twice_where_the_spaces_class_was_pickled(monkeypatch):
    space, dtype = Box(-1, 1, (2,)), pickle.loads(pickle.dumps(np.dtype(np.float32)))
    assert dtype is not np.dtype(np.float32), "else this tests nothing"
    space.dtype = dtype

    class Still(gymnasium.Env):
        observation_space, action_space = space, Discrete(2)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return np.zeros(2, np.float32), {}

        def step(self, action):
            return np.zeros(2, np.float32), 0.0, False, False, {}

    with group_of(Still) as still:
        still.reset()
        monkeypatch.setattr(GroupChecks, "observation", lambda *_: pytest.fail("looked at in full"))
        still.step(np.zeros(still.size, np.int64))
