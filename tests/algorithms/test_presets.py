"""Every preset makes a training of its environment, with the values that it names."""

import tomllib

import gymnasium
import pytest
from datasets import episode, write_dataset

from shoal.algorithms import ALGORITHMS
from shoal.rl import RunSettings
from shoal.rl.chosen_settings import split_settings
from shoal.rl.models.architecture import read_architecture

PRESETS = [
    (algorithm, env_id)
    for algorithm in ALGORITHMS.values()
    if algorithm.presets_path is not None
    for env_id in tomllib.loads(algorithm.presets_path.read_text())
    if "language_model" not in algorithm.models  # whose presets are of tasks: see tests/language
]


@pytest.mark.parametrize(
    ("algorithm", "env_id"), [pytest.param(*preset, id=f"{preset[0].name}-{preset[1]}") for preset in PRESETS]
)
def test_a_preset_is_a_training(algorithm, env_id, tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    try:
        env = gymnasium.make(env_id)
    except gymnasium.error.DependencyNotInstalled as error:
        pytest.skip(str(error))
    given = {}
    if not algorithm.needs_environment:
        space = env.observation_space, env.action_space
        given["dataset"] = write_dataset("any/played-v0", [episode(*space, 3)], *space, env=env_id)
    env.close()
    values = tomllib.loads(algorithm.presets_path.read_text())[env_id]
    with algorithm(env_id, engine="serial", **given) as training:
        settings = vars(training.run) | vars(training.config)
        assert training.preset == values
        assert settings | values == settings


@pytest.mark.parametrize("algorithm", sorted({algorithm for algorithm, _ in PRESETS}, key=lambda found: found.name))
def test_presets_are_settings_also_of_environments_whose_extra_is_not_installed(algorithm):
    for env_id, values in tomllib.loads(algorithm.presets_path.read_text()).items():
        assert env_id in gymnasium.registry
        run, config = split_settings(values, (RunSettings, algorithm.config_class), env_id)
        network = algorithm.model_options(algorithm.config_class(**config)) | dict(RunSettings(**run).policy_kwargs)
        read_architecture(algorithm.models[-1], network)
