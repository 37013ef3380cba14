"""The number of learners has no influence on a single bit of the weights, nor has who of them is killed, and when. Real
processes."""

import os
import signal
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from agents_envs import Crowd
from test_same_weights import COMMON, SETTINGS, StopAt, env_of

from shoal import runtime
from shoal.algorithms import ALGORITHMS
from shoal.rl import Callback, RunSettings
from shoal.rl.learn.team import Team
from shoal.runtime import InputError

STEPS = 2 * 12 * 32
OFTEN = {"ppo": {"n_epochs": 2}, "dqn": {"learning_starts": 100}, "sac": {"learning_starts": 100}}
LARGE = {"policy_kwargs": {"net_arch": [200, 200]}}
"""Enough parameters for the second round of an exchange."""


def dying(algorithm):
    """The algorithm, whose learners end where a file in the folder `deaths` is called after the moment."""

    @dataclass(frozen=True, kw_only=True)
    class Config(algorithm.config_class):
        deaths: str = ""

    class Dying(algorithm):
        config_class = Config

        @staticmethod
        def prepare(learner, config):
            offer, reduce = Team._offer, torch.distributed.all_reduce

            def die_at(*moment):
                marker = Path(config.deaths, "-".join(map(str, moment)))
                if marker.exists():
                    try:
                        marker.rename(marker.with_suffix(".done"))  # one of them alone can
                    except FileNotFoundError:
                        return
                    os.kill(os.getpid(), signal.SIGKILL)

            def offer_or_die(team, exchange, part, value):
                die_at(team.membership.attempt, exchange, part, "before")
                offer(team, exchange, part, value)
                die_at(team.membership.attempt, exchange, part, "after")

            def reduce_or_die(values):
                die_at("world")
                reduce(values)

            if config.deaths and not hasattr(offer, "dies"):
                torch.distributed.all_reduce = reduce_or_die
                offer_or_die.dies = True
                Team._offer = offer_or_die
            algorithm.prepare(learner, config)

    return Dying


def train(name, learners, *, deaths="", steps=STEPS, callbacks=(), shards=4, **changes):
    settings = {"preset": "none", **COMMON, **SETTINGS[name], **OFTEN.get(name, {}), **changes}
    kind = dying(ALGORITHMS[name])
    with kind(env_of(name), **settings, gradient_shards=shards, learners=learners, deaths=str(deaths)) as training:
        return training.train(steps, callbacks=callbacks).weights_sha256


@pytest.fixture(params=["ppo", "a2c", "dqn", "sac"])
def name(request):
    """Name of an algorithm."""
    return request.param


@cache
def with_one_learner(name, large=False, steps=STEPS):
    """Hash of the weights with one learner, which has its shards by itself, on the serial engine."""
    runtime.shutdown()
    runtime.init(engine="serial")
    digest = train(name, 1, steps=steps, **(LARGE if large else {}))
    runtime.shutdown()
    return digest


def kill_one(training, report):
    """After each iteration one of the learners, where there are several, dies."""
    members = training.actors.learner.members
    if len(members) > 1:
        runtime.kill(members[report.iteration % len(members)])


class EachIteration(Callback):
    def __init__(self, act):
        self.act = act

    def on_iteration_end(self, training, report):
        return self.act(training, report)


def test_a_learner_that_dies_in_an_update(tmp_path):
    expected = with_one_learner("ppo", steps=STEPS // 2)
    runtime.init(num_cpus=4)
    (tmp_path / "1-3-0-after").touch()
    assert train("ppo", 2, deaths=tmp_path, steps=STEPS // 2) == expected
    assert (tmp_path / "1-3-0-after.done").exists()


@pytest.mark.slow
def test_learners_killed_in_updates_and_between_them_change_no_bit(name, tmp_path):
    # Two of three die in the first update that learns something: one before it gives its part, one after; then one
    # between the two rounds. A new one joins at the next snapshot.
    first = {"ppo": 1, "a2c": 1, "dqn": 3, "sac": 3}[name]
    changes = LARGE if name == "ppo" else {}
    moments = [f"{first}-0-0-before", f"{first}-0-0-after", f"{first + 1}-0-1-before", f"{first + 1}-0-0-after"]
    expected = with_one_learner(name, bool(changes))
    runtime.init(num_cpus=4)
    for moment in moments[:3] if name == "ppo" else [*moments[:2], moments[3]]:
        (tmp_path / moment).touch()
    assert train(name, 3, deaths=tmp_path, **changes) == expected
    assert len(list(tmp_path.glob("*.done"))) >= 2
    assert train(name, 2, callbacks=[EachIteration(kill_one)], **changes) == expected


@pytest.mark.slow
@pytest.mark.parametrize("learners", [2, 3, 4])
def test_any_number_of_learners(name, learners):
    expected = with_one_learner(name)
    runtime.init(num_cpus=4)
    assert train(name, learners) == expected


@pytest.mark.slow
def test_a_resumed_training_has_as_many_learners_as_it_is_given(name, tmp_path):
    expected = with_one_learner(name)
    runtime.init(num_cpus=4)
    algorithm = ALGORITHMS[name]
    settings = {"preset": "none", **COMMON, **SETTINGS[name], **OFTEN.get(name, {})}
    with_replay = {"save_replay": True} if hasattr(algorithm.config_class, "save_replay") else {}
    with algorithm(env_of(name), **settings, **with_replay, gradient_shards=4, learners=3) as first:
        first.train(STEPS, callbacks=StopAt(STEPS // 2))
        first.save(tmp_path / "run")
    with algorithm.load(tmp_path / "run", learners=2) as second:
        assert second.train(STEPS - second.timesteps).weights_sha256 == expected


@pytest.mark.slow
def test_a_learner_joins_while_others_learn(name):
    expected = with_one_learner(name, steps=2 * STEPS)
    at_first, in_the_end = [], []
    runtime.init(num_cpus=4)

    def note(training, report):
        group = training.actors.learner
        in_the_end[:] = group.members
        if report.iteration == 1:  # where the second one has been there from the beginning, it ends: the next one joins
            at_first.extend(group.members)
            for member in at_first[1:]:
                runtime.kill(member)
        elif len(group.members) < 2:
            runtime.wait([list(group._actors.values())[-1]])

    found = train(name, "1:2", callbacks=[EachIteration(note)], steps=2 * STEPS)
    assert len(in_the_end) == 2
    assert in_the_end[1] not in at_first
    assert found == expected


@pytest.mark.slow
def test_a_learner_that_dies_before_it_is_first_asked():
    runtime.init(num_cpus=4)
    settings = {"preset": "none", **COMMON, **SETTINGS["ppo"], "gradient_shards": 2}
    with ALGORITHMS["ppo"](env_of("ppo"), learners=2, **settings) as training:
        group = training.actors.learner
        first, other = group._actors
        runtime.kill(first)
        runtime.wait([group._actors[first]])
        assert group.description[1].size > 0
        assert other in group._actors
        assert len(group._actors) == 2


@pytest.mark.slow
def test_all_learners_die_and_come_back(name):
    expected = with_one_learner(name)
    runtime.init(num_cpus=4)

    def kill_all(training, report):
        if report.iteration == 1:
            for member in training.actors.learner.members:
                runtime.kill(member)

    assert train(name, 2, callbacks=[EachIteration(kill_all)]) == expected


@pytest.mark.slow
def test_moments_that_are_divided_change_no_bit_whoever_dies_or_joins(tmp_path):
    expected = with_one_learner("ppo", True)
    runtime.init(num_cpus=4)
    divided = {**LARGE, "shard_optimizer": True}
    (tmp_path / "2-1-1-after").touch()  # with it the moments of a part
    assert train("ppo", 3, deaths=tmp_path, **divided) == expected
    assert (tmp_path / "2-1-1-after.done").exists()
    assert train("ppo", "1:2", callbacks=[EachIteration(kill_one)], **divided) == expected


@pytest.mark.slow
def test_a_checkpoint_of_divided_moments_is_whole(tmp_path):
    expected = with_one_learner("ppo", True)
    runtime.init(num_cpus=4)
    settings = {"preset": "none", **COMMON, **SETTINGS["ppo"], **OFTEN["ppo"], **LARGE, "gradient_shards": 4}
    with ALGORITHMS["ppo"](env_of("ppo"), **settings, learners=2, shard_optimizer=True) as first:
        first.train(STEPS // 2)
        own, _ = first.actors.snapshot(first._start())
        assert len(own["optimizers"]["model"]["first_moment"]) == len(own["model"])
        first.save(tmp_path / "run")
    with ALGORITHMS["ppo"].load(tmp_path / "run", learners=3) as second:
        assert second.train(STEPS - second.timesteps).weights_sha256 == expected


@pytest.mark.slow
def test_a_policy_without_rows_in_an_iteration_keeps_nobody_waiting():
    # Agent c is there from the 4th to the 10th of 12 steps: in rollouts of 2 steps it has rows in some iterations only.
    settings = {"preset": "none", "n_envs": 6, "group_size": 2, "seed": 5, "n_steps": 2, "batch_size": 12}
    found = []
    runtime.init(num_cpus=4)
    for learners in (1, 3):
        with ALGORITHMS["ppo"](
            Crowd,
            **settings,
            n_epochs=2,
            policies="separate",
            frozen_policies="b",
            gradient_shards=3,
            learners=learners,
        ) as training:
            found.append(training.train(12 * 6 * 2).weights_sha256)
    assert found[0] == found[1]


@pytest.mark.slow
def test_a_world_is_made_again_where_one_of_it_dies(tmp_path):
    runtime.init(num_cpus=4)
    expected = train("dqn", 3, reproducible="world")
    (tmp_path / "world").touch()
    assert train("dqn", 3, reproducible="world", deaths=tmp_path) == expected
    assert (tmp_path / "world.done").exists()


def test_a_world_has_one_number_of_learners():
    with pytest.raises(InputError, match="learners is '1:2', but reproducible is 'world'"):
        RunSettings(learners="1:2", gradient_shards=2, reproducible="world")


def test_numbers_of_learners_that_cannot_be():
    for learners, message in (
        (3, "learners is 3, but gradient_shards is 2"),
        ("3:1", "learners is '3:1', but must be a whole number of at least 1, or two such as '1:4'"),
        (0, "learners is 0, but must be"),
        ("two", "learners is 'two', but must be"),
    ):
        with pytest.raises(InputError, match=message):
            ALGORITHMS["ppo"]("CartPole-v1", learners=learners, gradient_shards=2)


def test_the_serial_engine_is_no_world():
    runtime.init(engine="serial")
    with pytest.raises(InputError, match="the serial engine has one learner: choose engine 'native'"):
        ALGORITHMS["ppo"]("CartPole-v1", learners=2, gradient_shards=2, reproducible="world")
