"""Environments that libraries step together: each autoreset mode gives the same transitions, and none is invented."""

import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv

from shoal import envs
from shoal.envs import EnvContractError, GroupState, RecoveryChoice, RecoveryWarning, choose_group_recovery, make_group
from shoal.envs.vectorization import check_vectorization
from shoal.runtime import InputError

LENGTHS = (2, 3, 5)


class Steps(gymnasium.Env):
    """Observes its step of the episode; row i ends after LENGTHS[i] steps, row 1 by truncation. Reward: the action."""

    observation_space = Box(0, 100, (1,), np.float32)
    action_space = Discrete(10)


class StepsTogether(VectorEnv):
    single_observation_space, single_action_space = Steps.observation_space, Steps.action_space

    def __init__(self, num_envs, mode=AutoresetMode.NEXT_STEP):
        self.num_envs, self.metadata = num_envs, {"autoreset_mode": mode}
        self.mode = mode
        self.lengths = np.array(LENGTHS[:num_envs])
        self.count, self.over = np.zeros(num_envs, np.int64), np.zeros(num_envs, bool)

    def seen(self):
        return self.count[:, np.newaxis].astype(np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count[options["reset_mask"] if options else slice(None)] = 0
        return self.seen(), {}

    def step(self, actions):
        rewards = actions.astype(np.float64)
        self.count += 1
        if self.mode == AutoresetMode.NEXT_STEP:
            self.count[self.over], rewards[self.over] = 0, 0
        ended = self.count == self.lengths
        self.over, info = ended, {}
        observations = self.seen()
        if self.mode == AutoresetMode.SAME_STEP and ended.any():
            info["final_obs"] = np.array(
                [row if end else None for row, end in zip(observations, ended, strict=True)], object
            )
            self.count[ended] = 0
            observations = self.seen()
        first = np.arange(self.num_envs) != 1
        return observations, rewards, ended & first, ended & ~first, info


@pytest.fixture(params=list(AutoresetMode))
def mode(request):
    for found in AutoresetMode:
        gymnasium.register(
            f"Steps{found.value}-v0", Steps, vector_entry_point=StepsTogether, kwargs={}, disable_env_checker=True
        )
    yield request.param
    for found in AutoresetMode:
        del gymnasium.registry[f"Steps{found.value}-v0"]


def group_of(name, *, size=3, kind="entry_point", recovery="own_state", **kwargs):
    choice = RecoveryChoice(recovery, recovery == "replay")
    options = {"check": "error", "step_timeout": None, "end_process": None, "recovery": choice}
    return make_group(kind, envs.resolve(name, kwargs), size=size, first_index=6, run_seed=1, **options)


def test_each_autoreset_mode_gives_the_same_transitions(mode):
    with group_of(f"Steps{mode.value}-v0", mode=mode) as group:
        seen, episodes, observations = [[] for _ in LENGTHS], [], group.reset()
        for t in range(30):
            actions = np.array([t % 7, 3, 1])
            step = group.step(actions)
            for row in range(3):
                if step.resets is not None and step.resets[row]:
                    assert (step.rewards[row], step.truncations[row]) == (0, True)
                    continue
                seen[row].append(
                    (
                        observations[row, 0],
                        step.final_observations[row, 0],
                        bool(step.terminations[row]),
                        bool(step.truncations[row]),
                    )
                )
                assert step.rewards[row] == actions[row]
            episodes += step.episodes
            observations = step.observations
    for row, length in enumerate(LENGTHS):
        for t, transition in enumerate(seen[row]):
            step, end = t % length, t % length == length - 1
            assert transition == (step, step + 1, end and row != 1, end and row == 1)
        assert {episode.length for episode in episodes if episode.environment == 6 + row} == {length}
        indices = [episode.index for episode in episodes if episode.environment == 6 + row]
        assert indices == list(range(len(indices)))
    assert all(episode.return_ == 3 * 3 for episode in episodes if episode.environment == 7)


def test_a_vector_version_that_calls_exit_does_not_end_its_worker(mode, monkeypatch):
    monkeypatch.setattr(StepsTogether, "step", lambda self, actions: sys.exit(3))
    with group_of(f"Steps{mode.value}-v0", mode=mode) as group:
        group.reset()
        with pytest.raises(EnvContractError, match=r"\(entry_point\): step\(\) called sys.exit\(3\)"):
            group.step(np.zeros(3))


def play(group, seed, steps=40):
    drawn = np.random.default_rng(seed)
    played = [group.step(drawn.integers(0, 2, group.observations.shape[0])) for _ in range(steps)]
    return [
        (step.observations.tobytes(), step.final_observations.tobytes(), step.rewards.tobytes(), step.episodes)
        for step in played
    ]


def test_gymnasiums_vector_cartpole_goes_on_from_its_state_also_from_arrays():
    spec = envs.resolve("CartPole-v1")
    assert choose_group_recovery("entry_point", spec, 0).recovery == "own_state"
    with group_of("CartPole-v1", size=4) as group, group_of("CartPole-v1", size=4) as other:
        group.reset()
        play(group, 1)
        state = GroupState.from_arrays(*group.state().to_arrays())
        assert other.restore(state) is True
        assert play(other, 2) == play(group, 2)


def test_what_a_vector_version_cannot_do_is_refused():
    spec = envs.resolve("CartPole-v1")
    found = envs.inspect_environment(spec)
    assert check_vectorization("entry_point", found, 0, "error").observation_space == found.observation_space
    with pytest.raises(InputError, match="'Pendulum-v1' has no vector version: its registration has no vector_entry"):
        group_of("Pendulum-v1")
    with pytest.raises(InputError, match="'CartPole-v1' is not a preprocessed game: write 'Atari/Pong-v5'"):
        group_of("CartPole-v1", kind="ale")


@pytest.fixture
def envpool():
    return pytest.importorskip("envpool", reason="the extra envpool is not installed")


def test_envpool_names_what_it_does_not_know(envpool):
    with pytest.raises(InputError, match=r"EnvPool cannot make 'CartPole-v1': .*'sutton_barto_reward'.*'sync'"):
        group_of("CartPole-v1", kind="envpool", sutton_barto_reward=True)
    with pytest.raises(InputError, match=r"EnvPool has no environment 'CartPole-v9'.*Did you mean 'CartPole-v1'"):
        group_of(envs.EnvSpec("CartPole-v9", "CartPole-v1"), kind="envpool")
    with pytest.raises(
        InputError, match=r"'CartPole-v1' is registered here as .*Steps, and EnvPool would step its own"
    ):
        group_of(envs.EnvSpec("CartPole-v1", Steps), kind="envpool")


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ["CartPole-v1", "EnvPool/CartPole-v1", "Atari/Breakout-v5"])
def test_a_step_of_envpool_after_an_end_begins_the_next_episode(envpool, env_id):
    if env_id.startswith("Atari"):
        pytest.importorskip("ale_py", reason="the extra atari is not installed")
    with group_of(env_id, kind="envpool", recovery="restart") as group:
        assert group.resets_on_next_step
        group.reset()
        over, lengths, told = np.zeros(3, bool), np.zeros(3, int), []
        drawn = np.random.default_rng(0)
        for _ in range(200):
            step = group.step(drawn.integers(0, group.action_space.n, 3))
            resets = np.zeros(3, bool) if step.resets is None else step.resets
            assert resets.tolist() == over.tolist()
            assert (step.truncations[resets].all(), step.rewards[resets].any()) == (True, False)
            lengths += ~resets
            over = (step.terminations | step.truncations) & ~resets
            for episode in step.episodes:
                row = episode.environment - 6
                assert (bool(over[row]), episode.length) == (True, lengths[row])
                told.append(episode)
                lengths[row] = 0
        assert len(told) > 3


@pytest.mark.slow
def test_envpool_is_begun_anew_after_a_loss(envpool):
    spec = envs.resolve("CartPole-v1")
    with pytest.warns(RecoveryWarning, match="stepped by envpool cannot be put back"):
        assert choose_group_recovery("envpool", spec, 0).recovery == "restart"
    with group_of(spec, kind="envpool", recovery="restart") as group:
        group.reset()
        first = play(group, 1)
        assert sum(len(episodes) for *_, episodes in first) > 2
        state = group.state()
    with group_of(spec, kind="envpool", recovery="restart") as again:
        again.reset()
        assert play(again, 1) == first
        with pytest.warns(RecoveryWarning, match="new episodes begin"):
            assert again.restore(state) is False
        assert play(again, 1) != first


@pytest.mark.slow
def test_ale_goes_on_by_replay():
    pytest.importorskip("ale_py", reason="the extra atari is not installed")
    spec = envs.resolve("Atari/Breakout-v5")
    assert choose_group_recovery("ale", spec, 0).recovery == "replay"
    with group_of(spec, kind="ale", recovery="replay") as group, group_of(spec, kind="ale", recovery="replay") as other:
        group.reset()
        assert any(episodes for *_, episodes in play(group, 1, 120))
        state = GroupState.from_arrays(*group.state().to_arrays())
        assert other.restore(state) is True
        assert play(other, 2, 60) == play(group, 2, 60)
