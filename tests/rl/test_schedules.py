from types import SimpleNamespace

import pytest

from shoal.algorithms import DQN, PPO, QRDQN, Pretrain
from shoal.cli.resuming import check_total
from shoal.rl import rate_at
from shoal.rl.schedules import rate_start
from shoal.runtime import InputError


@pytest.mark.parametrize(
    ("rate", "start", "half"),
    [(0.1, 0.1, 0.1), ("0.1", 0.1, 0.1), ("lin_0.1", 0.1, 0.05), (lambda remaining: remaining**2, 1.0, 0.25)],
)
def test_value_at_the_start_and_half_way(rate, start, half):
    assert rate_at(rate, 1.0) == pytest.approx(start)
    assert rate_at(rate, 0.5) == pytest.approx(half)


def test_a_bad_rate_is_named():
    with pytest.raises(InputError, match=r"learning_rate is 'cos_0.1', but must be"):
        rate_start("learning_rate", "cos_0.1")


@pytest.mark.parametrize(
    ("algorithm", "settings", "names"),
    [
        (PPO, {}, ()),
        (PPO, {"learning_rate": "lin_0.001", "clip_range": lambda left: left}, ("learning_rate", "clip_range")),
        (DQN, {}, ("exploration_fraction",)),
        (DQN, {"exploration_final_eps": 1.0}, ()),
        (QRDQN, {"exploration_fraction": 0, "prioritized_replay": True}, ("prioritized_replay_beta0",)),
        (Pretrain, {}, ("schedule",)),
        (Pretrain, {"schedule": "constant"}, ()),
    ],
)
def test_what_makes_steps_depend_on_the_length_of_a_training(algorithm, settings, names):
    config = algorithm.config_class(**settings)
    assert algorithm.scheduled(config) == names
    if names:
        with pytest.raises(InputError, match=rf"its schedules \({names[0]} = .*run over all steps: with 200"):
            check_total(SimpleNamespace(scheduled=algorithm.scheduled, config=config), 200, 100)
        check_total(SimpleNamespace(scheduled=algorithm.scheduled, config=config), 100, 100)
