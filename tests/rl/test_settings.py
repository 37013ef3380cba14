import pytest

from shoal.rl import RunSettings
from shoal.rl.settings import default_group_size, split_settings
from shoal.runtime import InputError


@pytest.mark.parametrize(
    ("n_envs", "size"),
    [(1, 1), (2, 1), (4, 2), (6, 3), (7, 1), (8, 4), (16, 8), (32, 8), (64, 8), (100, 10), (256, 32)],
)
def test_default_group_size_depends_on_the_number_of_environments_alone(n_envs, size):
    assert default_group_size(n_envs) == size
    assert all(RunSettings(n_envs=n_envs, workers=workers).group_size == size for workers in (1, 2, 5))
    assert n_envs % size == 0


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
        ("vectorization", "envpool", "'envpool' is not available in this version"),
        ("vectorization", "asynk", "vectorization is 'asynk', but must be one of 'sync'"),
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
