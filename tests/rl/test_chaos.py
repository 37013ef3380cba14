"""Deaths on purpose: who is drawn, what is refused, and that a death comes about once."""

import os

import pytest

from shoal import runtime
from shoal.algorithms import ES, PPO
from shoal.rl import RunSettings
from shoal.rl.chaos import Chaos, Deaths
from shoal.runtime import InputError


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ("none", "none"),
        ("seed=3", "none"),
        (" kill_worker = 0.05 , seed=1", "kill_worker=0.05,seed=1"),
        ("seed=2,kill_learner=1,kill_worker=0.5", "kill_worker=0.5,kill_learner=1,seed=2"),
    ],
)
def test_a_setting_in_its_common_form(given, known):
    assert RunSettings(chaos=given).chaos == known


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("kill_workers=1", "has no 'kill_workers'. Did you mean 'kill_worker'"),
        ("kill_worker=1.5", "kill_worker must be a probability from 0 to 1, not '1.5'"),
        ("kill_worker", "kill_worker must be a probability from 0 to 1, not ''"),
        ("kill_learner=nan", "kill_learner must be a probability"),
        ("kill_worker=0.1,seed=-1", "seed must be a whole number of at least 0"),
        (0.05, "must be a text such as 'kill_worker=0.05,seed=1'"),
    ],
)
def test_a_setting_that_cannot_be(given, message):
    with pytest.raises(InputError, match=message):
        RunSettings(chaos=given)


def test_draws_depend_on_seed_iteration_and_process_alone():
    chaos = Chaos(kill_worker=0.25, seed=1)
    drawn = [[chaos.point("worker", iteration, worker, 64) for worker in range(4)] for iteration in range(250)]
    assert drawn == [[chaos.point("worker", iteration, worker, 64) for worker in range(4)] for iteration in range(250)]
    points = [point for row in drawn for point in row if point is not None]
    assert 200 < len(points) < 300  # 1000 draws: 250 ± 3.6 deviations
    assert set(points) <= set(range(64))
    assert len(set(points)) > 50
    assert all(chaos.point("learner", iteration, 0, 2) is None for iteration in range(100))
    assert all(Chaos(kill_worker=1).point("worker", iteration, 0, 8) is not None for iteration in range(20))


def test_a_worker_dies_in_one_of_its_calls():
    deaths = Deaths(Chaos(kill_worker=1, seed=4))
    for iteration in range(10):
        point = deaths.chaos.point("worker", iteration, 0, 3 * 16)
        found = [deaths.of_worker(iteration, 0, call=call, calls=3, steps=16) for call in range(3)]
        assert [death is not None for death in found] == [point // 16 == call for call in range(3)]
        assert next(death.point for death in found if death) == point % 16


def die(death):
    death.at(1)  # not here
    death.at(0)
    return os.getpid()


def test_a_death_comes_about_once_and_is_counted(processes):
    deaths = Deaths(
        Chaos(kill_learner=1, seed=next(seed for seed in range(99) if Chaos(0, 1, seed).point("learner", 0, 0, 2) == 0))
    )
    death = deaths.of_learner(0)["death"]
    assert deaths.metrics() == {"chaos/learner_deaths": 0}
    assert runtime.get(runtime.remote(die).options(max_retries=1).remote(death)) != os.getpid()
    assert deaths.metrics() == {"chaos/learner_deaths": 1}
    assert deaths.metrics() == {"chaos/learner_deaths": 0}
    assert Deaths(Chaos()).metrics() == {}


def test_refused_where_nothing_can_be_killed(engine):
    if engine == "serial":
        with pytest.raises(InputError, match="on engine 'serial' all is one process"):
            PPO("CartPole-v1", chaos="kill_worker=0.1")
    with pytest.raises(InputError, match="says kill_worker twice"):
        PPO("CartPole-v1", chaos="kill_worker=0.1,kill_worker=0.2")
    with pytest.raises(InputError, match=r"kill_learner in chaos is 0.1, but must be 0: no learner of es"):
        ES("CartPole-v1", chaos="kill_learner=0.1")
