"""A learner that is killed in the middle of an update, again while it repeats it, and a program that is interrupted
then: the weights are those of an undisturbed training. Real processes, with off-policy algorithms."""

import os

import pytest
from disturbances import disturbed, trained_through

from shoal.algorithms import DQN, QRDQN, SAC, TD3

STEPS = 1440
"""More than between two snapshots of the learner."""
COMMON = {
    "n_envs": 12, "group_size": 6, "seed": 5, "workers": 2, "preset": "none", "train_freq": 4, "learning_starts": 200,
    "batch_size": 16, "n_step": 3, "policy_kwargs": {"net_arch": [16]},
}  # fmt: skip
PRIORITIZED = {"prioritized_replay": True, "buffer_size": 500, "exploration_fraction": 0.8}

CASES = [
    pytest.param(DQN, "CartPole-v1", PRIORITIZED, id="dqn", marks=pytest.mark.slow),
    pytest.param(QRDQN, "CartPole-v1", {}, id="qrdqn", marks=pytest.mark.slow),
    pytest.param(SAC, "Pendulum-v1", {}, id="sac", marks=pytest.mark.slow),
    pytest.param(TD3, "Pendulum-v1", {}, id="td3", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("algorithm", "env", "settings"), CASES)
def test_kills_and_an_interrupt_in_the_middle_of_updates_change_no_weight(
    processes, tmp_path, algorithm, env, settings
):
    events = tmp_path / "events"
    # An iteration has 12 updates: 40 is in the middle of one, 20 in the middle of one that is repeated then, and 230 is
    # after a snapshot.
    disturbances = [
        "40 kill",
        "20 kill",
        "40 kill",
        "100 kill",
        f"110 interrupt {os.getpid()}",
        "230 kill",
        "225 kill",
        f"250 interrupt {os.getpid()}",
    ]
    ends = []
    for what in ([], disturbances):
        events.write_text("\n".join(what))
        with disturbed(algorithm, before="sample")(env, **COMMON, **settings, events=str(events)) as training:
            ends.append(trained_through(training, STEPS))
        assert events.read_text() == ""
    (calm, none), (disturbed_hash, interrupts) = ends
    assert none + interrupts == 2
    assert disturbed_hash == calm
