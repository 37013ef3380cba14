import json
import pickle
import threading
import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils import EzPickle
from tiny_envs import Chaotic, Continuous, Counter, Locked, OwnState

from shoal import runtime
from shoal.envs import EnvGroup, EnvSpec, GroupState, RecoveryWarning, ReplayMismatchError
from shoal.envs.trees import tree_from_arrays, tree_to_arrays
from shoal.runtime import InputError


def group_of(entry, *, size=2, max_episode_steps=None, **kwargs):
    return EnvGroup(EnvSpec("Tiny-v0", entry, kwargs, max_episode_steps), size=size, first_index=3, run_seed=1)


def actions_of(group, steps, seed=0):
    rng = np.random.default_rng(seed)
    space = group.action_space
    shape = (steps, group.size, *space.shape)
    if isinstance(space, gymnasium.spaces.Box):
        return rng.uniform(-1, 1, shape).astype(space.dtype)
    return rng.integers(space.n, size=shape)


def run(group, actions):
    out = []
    for row in actions:
        step = group.step(row)
        arrays = (step.observations, step.rewards, step.terminations, step.truncations, step.final_observations)
        out.append((*(array.tobytes() for array in arrays), step.episodes))
    return out


def through_checkpoint(state):
    arrays, description = state.to_arrays()
    return GroupState.from_arrays(dict(arrays), json.loads(json.dumps(description, allow_nan=False)))


class Restarting(Counter, EzPickle):
    """Its pickle begins anew, as those of gymnasium's Box2D and MuJoCo environments do."""

    def __init__(self, noisy=True):
        Counter.__init__(self, length=9, noisy=noisy)
        EzPickle.__init__(self, noisy=noisy)


class Remembering(Counter):
    """Carries something from one episode into the next."""

    def __init__(self, lock=False):
        super().__init__(length=9)
        self.episodes = 0
        self.lock = threading.Lock() if lock else None

    def reset(self, *, seed=None, options=None):
        self.episodes += 1
        return super().reset(seed=seed)

    def _observe(self):
        return np.array([self.steps, self.episodes], np.float32)


class Large(Counter):
    """Carries a table that is dear to pickle."""

    def __init__(self):
        super().__init__(length=9, noisy=True)
        self.table = np.zeros(10_000)


def script_class():
    """A class as a script or notebook has it: found nowhere by its name."""
    names = {"__name__": "__main__", "Counter": Counter}
    exec("class Mine(Counter):\n    pass\n", names)
    return names["Mine"]


CASES = [
    ("CartPole", "CartPole-v1", {}, "snapshot", True),
    ("Counter", Counter, {"noisy": True, "length": 7}, "snapshot", True),
    ("Continuous", Continuous, {}, "snapshot", True),
    ("script class", script_class(), {"noisy": True, "length": 7}, "snapshot", True),
    ("own state", OwnState, {}, "own_state", False),
    ("cannot be pickled", Locked, {}, "replay", True),
    ("pickle begins anew", Restarting, {}, "replay", True),
    ("large", Large, {}, "replay", True),
    ("remembers", Remembering, {}, "snapshot", False),
    ("one step", Counter, {"noisy": True, "length": 1}, "snapshot", True),
]


@pytest.mark.parametrize(
    ("entry", "kwargs", "recovery", "replayable"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
@pytest.mark.parametrize("steps", [0, 1, 30])
@pytest.mark.parametrize("limit", [None, 11])
def test_goes_on_bit_for_bit(entry, kwargs, recovery, replayable, steps, limit):
    original = group_of(entry, max_episode_steps=limit, **kwargs)
    original.reset()
    run(original, actions_of(original, steps))
    state = original.state()
    # What can be replayed is, where that is no more than what came since the last state; else it is pickled.
    assert (state.recovery, state.replayable) == ("replay" if replayable else recovery, replayable)
    at_once = original.state()
    wanted = "replay" if replayable and not at_once.lengths.any() else recovery
    assert (at_once.recovery, at_once.replayable) == (wanted, replayable)
    future = actions_of(original, 40, seed=1)
    wanted = run(original, future)

    for put_back in (state, at_once, pickle.loads(pickle.dumps(at_once)) if entry is not CASES[3][1] else state):
        other = group_of(entry, max_episode_steps=limit, **kwargs)
        other.restore(put_back)
        assert other.observations.tobytes() == state.observations.tobytes()
        assert run(other, future) == wanted
    # A state may be restored again, also into the group it came from.
    original.restore(state)
    assert run(original, future) == wanted


@pytest.mark.parametrize(
    ("entry", "kwargs"),
    [case[1:3] for case in CASES if case[0] != "remembers"],
    ids=[c[0] for c in CASES if c[0] != "remembers"],
)
def test_checkpoint_goes_on_bit_for_bit(entry, kwargs):
    original = group_of(entry, max_episode_steps=11, **kwargs)
    original.reset()
    run(original, actions_of(original, 30))
    state = through_checkpoint(original.state())
    assert state.recovery == ("own_state" if entry is OwnState else "replay")
    future = actions_of(original, 40, seed=1)
    other = group_of(entry, max_episode_steps=11, **kwargs)
    other.restore(state)
    assert run(other, future) == run(original, future)


def test_state_shares_nothing_with_the_group():
    group = group_of(OwnState)
    group.reset()
    state = group.state()
    before = pickle.dumps(state)
    run(group, actions_of(group, 50))
    assert pickle.dumps(state) == before
    group.restore(state)
    run(group, actions_of(group, 50))
    assert pickle.dumps(state) == before


def test_state_survives_the_object_store():
    spec = EnvSpec("Tiny-v0", OwnState)

    @runtime.remote
    def collect(state, actions):
        group = EnvGroup(spec, size=2, first_index=3, run_seed=1)
        if state is None:
            group.reset()
        else:
            group.restore(state)  # its arrays are read-only here
        out = run(group, actions)
        return out, group.state()

    group = group_of(OwnState)
    group.reset()
    actions = actions_of(group, 60)
    wanted = run(group, actions)
    runtime.init(engine="serial")
    try:
        first, state = runtime.get(collect.remote(None, actions[:25]))
        second, _ = runtime.get(collect.remote(state, actions[25:]))
    finally:
        runtime.shutdown()
    assert first + second == wanted


def test_long_episodes_keep_all_their_actions():
    group = group_of(Locked, length=3000)
    group.reset()
    run(group, actions_of(group, 700))
    state = group.state()
    assert state.actions.shape == (700, 2)
    assert state.actions.dtype == np.uint8
    other = group_of(Locked, length=3000)
    other.restore(state)
    future = actions_of(group, 5, seed=1)
    assert run(other, future) == run(group, future)


def test_actions_are_forgotten_with_their_episode():
    group = group_of(Counter, length=10)
    group.reset()
    run(group, actions_of(group, 1003))
    assert len(group.state().actions) == 3


def test_no_way_back_is_reported_and_begins_new_episodes():
    group = group_of(Chaotic)
    group.reset()
    run(group, actions_of(group, 5))
    with pytest.warns(
        RecoveryWarning, match=r"'Tiny-v0' cannot be put back .*'lock' of type _thread.lock cannot be pickled"
    ):
        state = group.state()
    assert state.recovery == "restart"
    with warnings.catch_warnings():
        group.state()  # said once
    other = group_of(Chaotic)
    with pytest.warns(RecoveryWarning, match="indices 3…4: new episodes begin"):
        other.restore(state)
    assert other.observations[:, 0].tolist() == [0, 0]
    with pytest.warns(RecoveryWarning, match="cannot be put back"):
        assert other.state().episodes.tolist() == [1, 1]


def test_what_is_carried_between_episodes_is_noticed():
    group = group_of(Remembering, lock=True)
    group.reset()
    with pytest.warns(RecoveryWarning, match="the same seed and actions lead elsewhere"):
        state = group.state()
    assert (state.recovery, state.replayable) == ("restart", False)


def test_checkpoint_without_a_way_back_begins_new_episodes():
    group = group_of(Remembering)
    group.reset()
    run(group, actions_of(group, 5))
    state = through_checkpoint(group.state())
    assert state.recovery == "restart"
    with pytest.warns(RecoveryWarning, match="new episodes begin"):
        group_of(Remembering).restore(state)


class LateChaos(Locked):
    """Deterministic at first: what comes after step 20 no seed determines."""

    def __init__(self, spoil="observation"):
        super().__init__(length=100)
        self.spoil = spoil
        self.made = np.random.default_rng()

    def step(self, action):
        observation, reward, terminated, truncated, info = super().step(action)
        if self.steps > 20:
            if self.spoil == "observation":
                observation[1] = self.made.normal()
            elif self.spoil == "reward":
                reward = self.made.normal()
            else:
                terminated = self.spoil == "end" and self.made is None
        return observation, reward, terminated, truncated, info


@pytest.mark.parametrize(("spoil", "text"), [("observation", "the observation is"), ("reward", "the rewards sum to")])
def test_replay_that_leads_elsewhere_is_an_error(spoil, text):
    group = group_of(LateChaos, spoil=spoil)
    group.reset()
    run(group, actions_of(group, 25))
    state = group.state()
    assert state.recovery == "replay"
    with pytest.raises(
        ReplayMismatchError, match=rf"'Tiny-v0', index 3, .*replayed for 25 steps, but {text}.*np_random"
    ):
        group_of(LateChaos, spoil=spoil).restore(state)


def test_replay_that_ends_early_is_an_error():
    group = group_of(Locked, length=30)
    group.reset()
    run(group, actions_of(group, 25))
    with pytest.raises(ReplayMismatchError, match="but the episode ended at step 20 of 25"):
        group_of(Locked, length=20).restore(group.state())


class Forgetful(Counter):
    """Its own state leaves out half of it."""

    def get_state(self):
        return self.steps

    def set_state(self, state):
        self.steps = state


class OtherMeaning(Counter):
    """Has methods of these names for something else, and no other way back."""

    def __init__(self, needs_player=True):
        super().__init__()
        self.lock = threading.Lock()
        self.drawn = np.random.default_rng().normal()
        self.needs_player = needs_player

    def _observe(self):
        return np.array([self.steps, self.drawn], np.float32)

    def get_state(self, player=None):
        if self.needs_player and player is None:
            raise TypeError("whose?")
        return 3

    def set_state(self, state):
        raise KeyError(state)


@pytest.mark.parametrize(
    ("needs_player", "text"),
    [
        (True, r"get_state\(\) raised TypeError\('whose\?'\)"),
        (False, r"set_state\(get_state\(\)\) raised KeyError\(3\)"),
    ],
)
def test_methods_of_the_same_name_with_another_meaning(needs_player, text):
    group = group_of(OtherMeaning, needs_player=needs_player)
    group.reset()
    with pytest.warns(RecoveryWarning, match=text):
        assert group.state().recovery == "restart"


def test_own_state_that_is_not_exact_is_not_used():
    group = group_of(Forgetful, noisy=True)
    group.reset()
    run(group, actions_of(group, 1))
    assert [group.state().recovery for _ in range(2)] == ["replay", "snapshot"]


def test_own_state_inside_another_wrapper_is_not_used():
    group = group_of(lambda: gymnasium.wrappers.TransformReward(OwnState(), float))
    group.reset()
    with pytest.warns(RecoveryWarning):
        assert group.state().recovery == "restart"


class OpaqueState(Counter):
    """Its own state is an object, so that a checkpoint has to hold the actions."""

    class State:
        def __init__(self, *values):
            self.values = values

    def get_state(self):
        return self.State(self.steps, self.total)

    def set_state(self, state):
        self.steps, self.total = state.values


def test_own_state_that_no_checkpoint_can_hold():
    group = group_of(OpaqueState, noisy=True, length=20)
    group.reset()
    run(group, actions_of(group, 12))
    state = group.state()
    assert (state.recovery, through_checkpoint(state).recovery) == ("own_state", "replay")
    future = actions_of(group, 30, seed=1)
    wanted = run(group, future)
    for put_back in (state, through_checkpoint(state)):
        group.restore(put_back)
        assert run(group, future) == wanted


def test_endless_episode_with_an_own_state_does_not_keep_all_actions(monkeypatch):
    monkeypatch.setattr("shoal.envs.group.KEPT_FOR_MESSAGES", 20)
    group = group_of(OwnState, length=10**6)
    group.reset()
    group.state()
    run(group, actions_of(group, 300))
    state = group.state()
    assert len(state.actions) == 20
    group._envs[0].action_space = gymnasium.spaces.Discrete(1)
    with pytest.raises(AssertionError) as caught:
        group.step(np.array([2, 2]))
    (note,) = caught.value.__notes__
    assert "at step 301 of episode 0" in note
    assert "To repeat" not in note


def test_state_of_another_group():
    group = group_of(Counter)
    group.reset()
    state = group.state()
    other = EnvGroup(EnvSpec("Tiny-v0", Counter), size=2, first_index=5, run_seed=1)
    with pytest.raises(InputError, match="its first index is 3, this group's is 5"):
        other.restore(state)
    other = EnvGroup(EnvSpec("Other-v0", Counter), size=2, first_index=3, run_seed=1)
    with pytest.raises(InputError, match="its environment id is 'Tiny-v0', this group's is 'Other-v0'"):
        other.restore(state)


def test_no_state_before_reset():
    with pytest.raises(InputError, match=r"has no state before reset\(\)"):
        group_of(Counter).state()


def test_damaged_checkpoint():
    group = group_of(Counter)
    group.reset()
    arrays, description = group.state().to_arrays()
    del arrays["seeds"]
    with pytest.raises(InputError, match="lacks 'seeds': the checkpoint is damaged"):
        GroupState.from_arrays(arrays, description)


def test_only_copy_of_its_kind():
    made = []

    def factory():
        made.append(0)
        if len(made) > 1:
            raise OSError("port is in use")
        return Counter()

    group = group_of(factory, size=1)
    group.reset()
    with pytest.warns(RecoveryWarning, match=r"no further copy of it can be made \(OSError\('port is in use'\)\)"):
        assert group.state().recovery == "restart"


def test_own_state_that_becomes_opaque_after_actions_were_dropped(monkeypatch):
    monkeypatch.setattr("shoal.envs.group.KEPT_FOR_MESSAGES", 20)

    class Becomes(OpaqueState):
        def get_state(self):
            return (self.steps, self.total, object() if self.steps > 250 else None)

        def set_state(self, state):
            self.steps, self.total, _ = state

    group = group_of(Becomes, length=1000)
    group.reset()
    group.state()
    run(group, actions_of(group, 300))
    state = group.state()
    assert (state.recovery, state.replayable, through_checkpoint(state).recovery) == ("own_state", True, "restart")


def test_failed_restore_leaves_no_half_restored_group():
    group = group_of(LateChaos)
    group.reset()
    run(group, actions_of(group, 25))
    other = group_of(LateChaos)
    with pytest.raises(ReplayMismatchError):
        other.restore(group.state())
    with pytest.raises(InputError, match=r"call reset\(\)"):
        other.step(np.zeros(2))


def test_trial_that_fails_says_so():
    class Fails(Counter):
        def step(self, action):
            if self.steps == 2:
                raise ZeroDivisionError("oops")
            return super().step(action)

    group = group_of(Fails)
    group.reset()
    with pytest.raises(ZeroDivisionError) as caught:
        group.state()
    assert "while finding out how environment 'Tiny-v0' can be put back" in caught.value.__notes__[0]


def test_global_generators_are_left_alone():
    before = np.random.get_state()[1].tobytes()
    group = group_of("CartPole-v1")
    group.reset()
    group.state()
    assert np.random.get_state()[1].tobytes() == before
    assert group.action_space._np_random is None


# Nested values ------------------------------------------------------------------------------------------------------


def test_trees_are_exact():
    value = {
        "numbers": [1, -(2**100), 0.1, float("inf"), True, None],
        "nested": ({"a": np.arange(3, dtype=np.int16)}, {1: b"\x00\xff"}),
        "scalar": np.float32(0.1),
        "": [],
    }
    arrays = {}
    tree = json.loads(json.dumps(tree_to_arrays(value, "root", arrays), allow_nan=False))
    again = tree_from_arrays(tree, arrays)
    assert repr(again) == repr(value)
    assert sorted(arrays) == ["root.0", "root.1"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, {2}]}, "root/a/1 is a builtins.set"),
        (np.array([object()]), "root is a numpy.ndarray"),
        ({1.5: 2}, "root is a"),
    ],
)
def test_trees_name_what_they_cannot_hold(value, text):
    with pytest.raises(TypeError, match=text):
        tree_to_arrays(value, "root", {})
