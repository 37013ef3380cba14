import json
from dataclasses import asdict, fields

import numpy as np
import pytest

from shoal.algorithms import ALGORITHMS, PPOConfig
from shoal.rl import RunSettings
from shoal.rl.chosen_settings import find_preset, split_settings
from shoal.rl.settings import Bounds, default_group_size, derived_defaults
from shoal.runtime import InputError


@pytest.mark.parametrize(
    ("n_envs", "size"),
    [(1, 1), (2, 1), (4, 2), (6, 3), (7, 1), (8, 4), (16, 8), (32, 8), (64, 8), (100, 10), (256, 32)],
)
def test_default_group_size_depends_on_the_number_of_environments_alone(n_envs, size):
    assert default_group_size(n_envs) == size
    assert all(RunSettings(n_envs=n_envs, workers=workers).group_size == size for workers in (1, 2, 5))
    assert n_envs % size == 0


def test_which_preset():
    table = ALGORITHMS["ppo"].presets_path
    assert find_preset(table, "auto", "CartPole-v1") == find_preset(table, "CartPole-v1", "Mine-v0") != {}
    for nothing in ("none", None):
        assert find_preset(table, nothing, "CartPole-v1") == {}
    with pytest.raises(InputError, match="preset is False, but must be 'auto', 'none' or an entry of the table"):
        find_preset(table, False, "CartPole-v1")


def test_environments_that_do_not_fill_groups_are_refused():
    with pytest.raises(InputError, match=r"n_envs is 10, which is not a multiple of group_size 4"):
        RunSettings(n_envs=10, group_size=4)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("workers", 0, "workers is 0, but must be a whole number of at least 1"),
        ("workers", 1.5, "workers is 1.5"),
        ("workers", True, "workers is True"),
        ("n_envs", -8, "n_envs is -8"),
        ("seed", -1, "seed is -1, but must be a whole number of at least 0"),
        ("threads", 0, "threads is 0"),
        ("check", "wran", "check is 'wran', but must be one of 'error', 'warn'. Did you mean 'warn'"),
        ("step_timeout", 0, "step_timeout is 0, but must be a number above 0"),
    ],
)
def test_values_that_cannot_work_are_named_with_their_bounds(setting, value, message):
    with pytest.raises(InputError, match=message):
        RunSettings(**{setting: value})


def test_unknown_settings_get_the_nearest_names():
    with pytest.raises(InputError, match=r"PPO has no setting 'n_env'.*'n_envs'"):
        split_settings({"n_env": 3}, [RunSettings], "PPO")


def test_none_is_a_value_where_it_is_allowed():
    assert RunSettings(n_envs=8, group_size=None).group_size == 4
    with pytest.raises(InputError, match="n_envs is None"):
        RunSettings(n_envs=None)


@pytest.mark.parametrize(("n_envs", "n_steps"), [(1, 2048), (2, 1024), (3, 682), (8, 256), (32, 64), (3000, 1)])
def test_a_rollout_is_2048_rows_whatever_the_number_of_environments(n_envs, n_steps):
    assert derived_defaults(PPOConfig, {}, RunSettings(n_envs=n_envs)) == {"n_steps": n_steps}
    assert n_envs * n_steps <= max(2048, n_envs)


def test_what_is_given_is_not_derived():
    assert derived_defaults(PPOConfig, {"n_steps"}, RunSettings()) == {}
    assert derived_defaults(RunSettings, {"n_envs", "group_size"}, RunSettings()) == {}


@pytest.mark.parametrize("config_class", [RunSettings, *(algorithm.config_class for algorithm in ALGORITHMS.values())])
@pytest.mark.parametrize("as_numpy", [np.int64, np.float32, np.float64, np.array])
def test_numbers_of_numpy_are_taken_and_kept_as_plain_ones(config_class, as_numpy):
    """Each setting that takes a number, with a value that an int of numpy can be, too."""
    for item in fields(config_class):
        if "bounds" in item.metadata:
            needed = {"eval_freq": 1} if item.name in ("eval_stop_return", "eval_patience") else {}
            bounds = item.metadata["bounds"]
            value = max(1, int(bounds.at_least or 0))
            value = value if bounds.at_most is None else min(value, int(bounds.at_most))
            plain = config_class(**needed, **{item.name: value})
            config = config_class(**needed, **{item.name: as_numpy(value)})
            assert config == plain
            assert type(getattr(config, item.name)) in (int, float), item.name
            json.dumps(asdict(config))


def test_numbers_of_numpy_within_and_switches():
    assert PPOConfig(normalize_advantage=np.bool_(False)).normalize_advantage is False
    settings = RunSettings(policy_kwargs={"net_arch": {"pi": np.array([8, 4]), "vf": [np.int64(4)]}})
    assert json.loads(json.dumps(settings.policy_kwargs)) == {"net_arch": {"pi": [8, 4], "vf": [4]}}


@pytest.mark.parametrize("value", [True, np.bool_(True), np.float32(1.5), np.array([1]), "1", None, np.nan, 1j])
def test_what_is_no_whole_number(value):
    with pytest.raises(InputError, match=r"n_envs is .*, but must be a whole number of at least 1"):
        RunSettings(n_envs=value)


@pytest.mark.parametrize("value", [True, np.bool_(True), np.array([0.5]), "x", None, np.inf])
def test_what_is_no_number(value):
    with pytest.raises(InputError, match=r"gamma is .*, but must be a number of at least 0 and at most 1"):
        PPOConfig(gamma=value)


def test_a_float_without_a_fraction_is_a_whole_number():
    read = Bounds(whole=True, at_least=1).read("total_timesteps", 1e4)
    assert (read, type(read)) == (10_000, int)
