"""What users of other libraries write first: the error says what it is called here."""

import copy
import inspect
import pickle
import subprocess
import sys
from dataclasses import fields

import cloudpickle
import gymnasium
import numpy as np
import pytest

import shoal
from shoal import runtime
from shoal.algorithms import ALGORITHMS, BC, FITS, GRPO, PPO, SAC, PPOConfig
from shoal.rl import Callback, Policy, RunSettings
from shoal.rl.elsewhere import CONFIG, PACKAGE, POLICY, TEXT_POLICY, TRAINING, hook_instead
from shoal.rl.language.policy import LanguagePolicy
from shoal.runtime import InputError


@pytest.fixture
def ppo():
    runtime.init(engine="serial", ignore_reinit_error=True)
    with PPO("CartPole-v1", seed=0) as training:
        yield training


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"num_envs": 4}, "PPO has no setting 'num_envs'. Here it is n_envs."),
        ({"lr": 1e-3}, "Here it is learning_rate."),
        ({"env_config": {}}, "Here it is env_kwargs."),
        ({"cuda": True}, "Here it is device='cuda'."),
        ({"num_env_runners": 2}, "Here it is workers."),
        ({"verbose": 1}, "Watch it by train(…, callbacks=ProgressDisplay())."),
        ({"tensorboard_log": "logs"}, "callbacks=RunFolder(FOLDER)"),
        ({"total_timesteps": 9}, "It is an argument of train(total_timesteps)"),
        ({"num_learners": 2}, "Here it is learners, with gradient_shards."),
        ({"eval_env": None}, "With eval_freq=10000 the policy is evaluated every so many steps"),
        ({"n_stepz": 9}, "Did you mean 'n_steps'?"),
        ({"noise_stdev": 1}, "Known: batch_size"),  # what it is called in ES, PPO does not have
        ({"policy_kwargs": {"activation_fn": "relu"}}, "Here it is activation, 'tanh' or 'relu'."),
        (
            {"policy_kwargs": {"features_extractor_class": object}},
            "Here it is encoder, a class of a module, or its path.",
        ),
        ({"policy_kwargs": {"use_lstm": True}}, "Here it is memory='lstm'."),
    ],
)
def test_settings(settings, said):
    with pytest.raises(InputError) as told:
        PPO("CartPole-v1", engine="serial", **settings)
    assert said in str(told.value)


def test_what_only_other_algorithms_have_is_not_told():
    with pytest.raises(InputError, match=r"'train_batch_size'\. Did you mean 'batch_size'\?$"):
        SAC("Pendulum-v1", train_batch_size=64)  # of PPO n_steps decides it


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("gradient_steps", -1, r"a whole number of at least 1\. With a replay buffer, .* n_envs · train_freq$"),
        ("train_freq", (1, "episode"), r"\. It counts steps of each environment"),
        ("ent_coef", "auto_0.1", r"or 'auto'\. SAC's 'auto' learns it, from 1$"),
        ("gradient_steps", 0, "a whole number of at least 1$"),
    ],
)
def test_values(setting, value, said):
    with pytest.raises(InputError, match=said):
        SAC.config_class(**{setting: value})


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("callback", r"train has no argument 'callback'\. Here it is callbacks\.$"),
        ("progress_bar", r"Watch it by callbacks=ProgressDisplay\(\)\.$"),
        ("stop_returns", r"Did you mean 'stop_return'\?$"),
    ],
)
def test_arguments_of_train(ppo, argument, said):
    with pytest.raises(TypeError, match=said):
        ppo.train(1, **{argument: None})


def test_the_environment_alone_has_a_place():
    with pytest.raises(TypeError, match=r"SAC takes the environment alone .* policy_kwargs, not by 'MlpPolicy'"):
        SAC("MlpPolicy", "Pendulum-v1")
    with pytest.raises(TypeError, match=r"all settings by name, as in PPO\('CartPole-v1', n_envs=8\)$"):
        PPO("CartPole-v1", 8)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("learn", "Here it is train(total_timesteps, callbacks=…)."),
        ("predict", "Here it is policy.act(observation, deterministic=True), which returns the action alone."),
        ("get_env", "Workers make their environments themselves"),
        ("num_timesteps", "Here it is timesteps."),
        ("set_parameters", "initial=FOLDER"),
        ("stop", "Here it is close()."),
    ],
)
def test_attributes_of_a_training(ppo, name, said):
    with pytest.raises(AttributeError) as told:
        getattr(ppo, name)
    assert str(told.value).startswith(f"'PPO' object has no attribute '{name}'. ")
    assert said in str(told.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("environment", r"PPO\(ENV, env_kwargs=\{…\}, n_steps=128, …\)\.$"),
        ("env_runners", "It is settings of the training: PPO"),
        ("training", "Hyperparameters are arguments of the training"),
        ("build", "A config only checks hyperparameters"),
    ],
)
def test_a_config_is_no_builder(name, said):
    with pytest.raises(AttributeError, match=rf"^'PPOConfig' object has no attribute '{name}'\. .*{said}"):
        getattr(PPOConfig(), name)


@pytest.mark.parametrize("kind", [*ALGORITHMS.values(), *FITS.values()])
def test_every_config_says_so_and_hides_nothing(kind):
    config = kind.config_class()
    with pytest.raises(AttributeError, match="A config only checks hyperparameters"):
        config.build()
    assert not {name for names in CONFIG for name in names.split() if name in dir(config)}
    assert pickle.loads(pickle.dumps(config)) == config == copy.deepcopy(config)


def test_names_of_the_package():
    with pytest.raises(
        ImportError, match=r"^cannot import name 'RecurrentPPO' from 'shoal'. Here it is: PPO\(ENV, poli"
    ):
        from shoal import RecurrentPPO  # noqa: F401
    assert not {name for names in PACKAGE for name in names.split()} & set(shoal.__all__)


def test_attributes_that_nobody_has(ppo):
    with pytest.raises(AttributeError, match=r"^'PPO' object has no attribute 'trian'$") as told:
        ppo.trian  # noqa: B018 — reading it is the test
    assert (told.value.name, told.value.obj) == ("trian", ppo)  # Python names the nearest one by these
    assert not hasattr(ppo, "__wrapped__")


def test_an_error_within_a_property_is_not_hidden(ppo, monkeypatch):
    monkeypatch.setattr(type(ppo), "learn", property(lambda self: self.config.nothing), raising=False)
    with pytest.raises(AttributeError, match="'PPOConfig' object has no attribute 'nothing'"):
        ppo.learn  # noqa: B018


@pytest.mark.parametrize("name", ["learning_rate", "n_envs", "seed"])
def test_a_setting_that_is_set_too_late(ppo, name):
    with pytest.raises(AttributeError, match=rf"{name} cannot be set.* PPO\.load\(FOLDER, {name}=…\)"):
        setattr(ppo, name, 1)
    ppo.mine = 1
    assert ppo.mine


def test_help_knows_all_settings():
    shown = inspect.signature(PPO).parameters
    assert list(shown)[:3] == ["env", "learning_rate", "n_steps"]
    settings = {item.name for kind in (PPO.config_class, RunSettings) for item in fields(kind)}
    assert set(shown) == settings | {"env", "engine", "preset", "env_kwargs"}
    assert f"{shown['n_steps']}" == "n_steps: 'int' = 2048 / n_envs"
    assert inspect.signature(GRPO).parameters["n_envs"].default == 256
    assert inspect.signature(BC).parameters["env"].default is None


def test_a_training_and_a_policy_say_what_they_are(ppo):
    assert repr(ppo) == f"PPO('CartPole-v1', seed=0, timesteps={ppo.timesteps})"
    assert repr(ppo.policy).startswith("Policy(Box(4,) float32 in [")
    assert f"→ Discrete(2), version {ppo.policy.version})" in repr(ppo.policy)


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy, cloudpickle.dumps])
def test_a_training_is_not_copied(ppo, copied):
    with pytest.raises(TypeError, match=r"a training by PPO is neither copied nor pickled.* PPO\.load\(FOLDER\)"):
        copied(ppo)


def test_what_a_training_that_goes_on_cannot_change(ppo, tmp_path):
    ppo.save(tmp_path)
    with pytest.raises(InputError, match=r"n_envs cannot be given to PPO\.load: .* initial=FOLDER"):
        PPO.load(tmp_path, n_envs=2)
    with pytest.raises(InputError, match=r"PPO\.load has no setting 'lr'\. Here it is learning_rate\."):
        PPO.load(tmp_path, lr=1.0)
    assert PPO.load(tmp_path, learning_rate=0.5, workers=2, device=None).config.learning_rate == 0.5


def test_methods_of_callbacks_that_nobody_would_call(ppo):
    class Stops(Callback):
        def _on_step(self):
            return False

        def on_helper(self):
            """Whatever it calls itself."""

    with pytest.raises(
        InputError, match=r"a Stops with the method _on_step\. Here it is on_iteration_end\(training, rep"
    ):
        ppo.train(1, callbacks=Stops())
    del Stops._on_step
    assert ppo.train(1, callbacks=Stops()).timesteps
    assert not [name for name in vars(Callback) if hook_instead(name)]


def test_attributes_of_a_policy():
    policy = Policy(gymnasium.spaces.Box(-1, 1, (2,), np.float32), gymnasium.spaces.Discrete(2))
    with pytest.raises(AttributeError, match=r"'Policy' .* 'predict'. Here it is act\(observation, deterministic=True"):
        policy.predict([0.0, 0.0])
    with pytest.raises(AttributeError, match=r"'LanguagePolicy' .* 'predict'\. Here it is generate\(prompts, "):
        LanguagePolicy.__new__(LanguagePolicy).predict("one and one")
    with pytest.raises(AttributeError, match=r"'state_dict'\. The torch module that has it is model"):
        policy.state_dict()
    assert pickle.loads(pickle.dumps(policy)).act([0.0, 0.0]) in (0, 1)


def test_no_name_from_elsewhere_hides_one_of_ours():
    for table, ours in ((TRAINING, PPO), (POLICY, Policy), (TEXT_POLICY, LanguagePolicy)):
        names = {name for names in table for name in names.split()}
        assert not [name for name in names if hasattr(ours, name)]


def test_what_works_instead_is_named_though_nothing_else_is_loaded():
    program = "from shoal import DQN\ntry: DQN('Pendulum-v1')\nexcept Exception as error: print(error)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "with it work: a2c, appo, ars, ddpg, es, impala, ppo, sac, td3" in done.stdout
