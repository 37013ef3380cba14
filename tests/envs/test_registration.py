import functools
import json
import threading

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import TimeLimit
from tiny_envs import Counter

from shoal import envs, runtime
from shoal.envs import EnvContractError, EnvSpec, registration
from shoal.runtime import InputError


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    monkeypatch.setattr(registration, "_registered", {})
    monkeypatch.setattr("shoal.runtime.context.published", {})


def test_class_with_limit_and_arguments():
    envs.register("Count-v0", Counter, max_episode_steps=2, reward_threshold=9.5, length=5)
    spec = envs.resolve("Count-v0")
    assert spec == EnvSpec("Count-v0", Counter, {"length": 5}, 2, 9.5)
    env = envs.make("Count-v0")
    assert isinstance(env, TimeLimit)
    env.reset(seed=0)
    assert [env.step(0)[2:4] for _ in range(2)] == [(False, False), (False, True)]


def test_numbers_of_numpy_are_kept_as_plain_ones():
    limit, threshold = np.int64(2), np.float32(9.5)
    envs.register("Count-v0", Counter, max_episode_steps=limit, reward_threshold=threshold, length=np.int64(5))
    spec = envs.resolve("Count-v0", {"noisy": np.bool_(True)})
    assert spec == EnvSpec("Count-v0", Counter, {"length": 5, "noisy": True}, 2, 9.5)
    described = json.loads(json.dumps(spec.to_json()))
    assert (described["missing"], described["kwargs"]) == ([], {"length": 5, "noisy": True})


def test_factory_and_override():
    envs.register("Count-v0", functools.partial(Counter, noisy=True), length=5)
    assert envs.make("Count-v0").length == 5
    assert envs.make("Count-v0", length=6).length == 6
    assert envs.make("Count-v0", max_episode_steps=4)._max_episode_steps == 4


def test_no_limit_means_no_wrapper():
    assert type(envs.make(Counter)) is Counter


def test_gymnasium_id():
    spec = envs.resolve("CartPole-v1")
    assert (spec.entry, spec.max_episode_steps, spec.reward_threshold) == ("CartPole-v1", 500, 475.0)
    env = spec.make()
    assert "PassiveEnvChecker" not in str(env)
    assert "TimeLimit" in str(env)


def test_variant_of_a_gymnasium_id():
    envs.register("Heavy-v0", "CartPole-v1", max_episode_steps=7, sutton_barto_reward=True)
    spec = envs.resolve("Heavy-v0")
    assert (spec.id, spec.entry, spec.max_episode_steps, spec.reward_threshold) == ("Heavy-v0", "CartPole-v1", 7, 475.0)
    assert spec.make().unwrapped._sutton_barto_reward is True


def test_variant_of_a_variant():
    envs.register("A-v0", Counter, length=5, noisy=True)
    envs.register("B-v0", "A-v0", length=6)
    assert envs.resolve("B-v0").kwargs == {"length": 6, "noisy": True}


def test_registering_again_replaces():
    envs.register("Count-v0", Counter, length=5)
    envs.register("Count-v0", Counter, length=6)
    assert envs.make("Count-v0").length == 6


def test_shoal_comes_before_gymnasium():
    envs.register("CartPole-v1", "CartPole-v1", sutton_barto_reward=True)
    envs.register("CartPole-v1", "CartPole-v1", max_episode_steps=3)
    spec = envs.resolve("CartPole-v1")
    assert (spec.kwargs, spec.max_episode_steps) == ({}, 3)


def test_other_processes_learn_of_it(monkeypatch):
    envs.register("Count-v0", Counter, length=5)
    monkeypatch.setattr(registration, "_registered", {})  # as in a worker
    assert envs.make("Count-v0").length == 5
    assert envs.registered() == ["Count-v0"]


def test_class_of_a_script_reaches_a_task():
    source = "import gymnasium\nclass Mine(gymnasium.Env):\n    size = 3\n"
    names = {"__name__": "__main__"}
    exec(source, names)
    envs.register("Mine-v0", names["Mine"])
    runtime.init(engine="serial")
    try:
        size = runtime.get(runtime.remote(lambda: envs.make("Mine-v0").size).remote())
    finally:
        runtime.shutdown()
    assert size == 3


def test_id_that_only_this_program_gave_to_gymnasium(monkeypatch):
    gymnasium.register("OnlyHere-v0", entry_point=Counter, max_episode_steps=4, kwargs={"length": 9})
    try:
        spec = envs.resolve("OnlyHere-v0")
    finally:
        del gymnasium.registry["OnlyHere-v0"]
    env = spec.make()  # as in a worker, where gymnasium does not know it
    assert env.unwrapped.length == 9
    assert env._max_episode_steps == 4


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("CartPole-v7", r"unknown environment 'CartPole-v7'. Did you mean 'CartPole-v1'"),
        ("CartPole", r"unknown environment 'CartPole'. Did you mean 'CartPole-v"),
        ("Cuont-v0", r"unknown environment 'Cuont-v0'. Did you mean 'Count-v0'"),
        ("qqqqqqq", r"unknown environment 'qqqqqqq'. Registered here: Count-v0. Register your own with envs.register"),
        ("nothing_here:X-v0", r"needs the module 'nothing_here', which fails to import"),
    ],
)
def test_unknown_id(name, text):
    envs.register("Count-v0", Counter)
    with pytest.raises(InputError, match=text):
        envs.resolve(name)


def test_unknown_argument_names_the_nearest():
    with pytest.raises(InputError, match=r"'Counter' takes no argument 'lenght'. Did you mean 'length'\?"):
        envs.make(Counter, lenght=3)
    with pytest.raises(InputError, match="'CartPole-v1' takes no argument 'gravity'"):
        envs.make("CartPole-v1", gravity=3)


def test_missing_argument():
    class Needy(Counter):
        def __init__(self, fuel):
            super().__init__()

    with pytest.raises(InputError, match=r"environment 'Needy': missing a required argument: 'fuel'"):
        envs.make(Needy)


def test_type_error_of_the_environment_stays_its_own():
    class Broken(Counter):
        def __init__(self):
            len(5)

    with pytest.raises(TypeError, match="has no len"):
        envs.make(Broken)


def test_package_that_is_not_installed(monkeypatch):
    def needs_package(**_):
        raise gymnasium.error.DependencyNotInstalled("box3d is not installed, run `pip install box3d`")

    gymnasium.register("Needs-v0", entry_point=needs_package)
    try:
        with pytest.raises(InputError, match=r"'Needs-v0' cannot be made: box3d is not installed"):
            envs.make("Needs-v0")
    finally:
        del gymnasium.registry["Needs-v0"]


def test_an_environment_is_not_a_factory():
    with pytest.raises(InputError, match=r"exists already \(Counter\).*pass the class, Counter"):
        envs.register("Count-v0", Counter())
    with pytest.raises(InputError, match=r"exists already \(TimeLimit\).*pass the class, Counter"):
        envs.resolve(TimeLimit(Counter(), 3))


def test_neither_class_nor_id():
    with pytest.raises(InputError, match=r"env is 3 of type int; wanted an environment's id, its class"):
        envs.resolve(3)


def test_factory_of_something_else():
    with pytest.raises(EnvContractError, match=r"returned 'hello' of type str, which is not a gymnasium\.Env"):
        envs.make(lambda: "hello")


@pytest.mark.parametrize("name", ["", "My Env", 3])
def test_bad_id(name):
    with pytest.raises(InputError, match="id must be a text without spaces"):
        envs.register(name, Counter)


@pytest.mark.parametrize("limit", [0, -1, 2.5, True])
def test_bad_limit(limit):
    with pytest.raises(InputError, match="max_episode_steps must be an integer ≥ 1"):
        envs.register("Count-v0", Counter, max_episode_steps=limit)


@pytest.mark.parametrize("threshold", ["475", True, [475]])
def test_bad_threshold(threshold):
    with pytest.raises(InputError, match="reward_threshold must be a number or None"):
        envs.register("Count-v0", Counter, reward_threshold=threshold)


def test_unpicklable_entry_names_the_member():
    lock = threading.Lock()

    class Guarded(Counter):
        def step(self, action):
            with lock:
                return super().step(action)

    where = r"Guarded.step, closure variable 'lock' of type _thread.lock cannot be pickled"
    with pytest.raises(InputError, match=where):
        envs.register("Guarded-v0", Guarded)
    with pytest.raises(InputError, match=where):
        envs.resolve(Guarded)
    assert envs.registered() == []


def test_unpicklable_argument_names_it():
    with pytest.raises(
        InputError, match=r"'C-v0' cannot be sent to workers: C-v0, argument \['length'\] of type _thread"
    ):
        envs.register("C-v0", Counter, length=threading.Lock())


def test_json_of_a_gymnasium_environment():
    spec = envs.resolve("CartPole-v1", {"sutton_barto_reward": True, "max_episode_steps": 9})
    again = envs.spec_from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec


def test_json_of_an_importable_class():
    spec = EnvSpec("Count-v0", Counter, {"length": 4}, 3, 1.5)
    assert envs.spec_from_json(json.loads(json.dumps(spec.to_json()))) == spec


def test_json_prefers_what_is_registered():
    description = EnvSpec("Count-v0", functools.partial(Counter, noisy=True), {"length": 4}).to_json()
    with pytest.raises(InputError, match=r"call envs.register\('Count-v0', …\) first"):
        envs.spec_from_json(description)
    envs.register("Count-v0", Counter, length=8)
    assert envs.spec_from_json(description) == EnvSpec("Count-v0", Counter, {"length": 4})


def test_json_leaves_out_what_it_cannot_hold():
    description = EnvSpec("Count-v0", Counter, {"length": {4}, "noisy": True}).to_json()
    assert description["kwargs"] == {"noisy": True}
    assert description["missing"] == ["length"]
    with pytest.raises(InputError, match=r"arguments that could not be saved \(length\)"):
        envs.spec_from_json(description)
    envs.register("Count-v0", Counter, length=8)
    assert envs.spec_from_json(description).kwargs == {"length": 8, "noisy": True}


@pytest.mark.parametrize(
    "target", ["os:system", "subprocess:Popen", "builtins:eval", "tiny_envs:nothing", ":", "__main__:X"]
)
def test_json_calls_nothing_but_environments(target):
    description = EnvSpec("X-v0", Counter).to_json() | {"entry": {"python": target}}
    with pytest.raises(InputError, match="not a class that can be imported here"):
        envs.spec_from_json(description)


def test_json_that_is_none():
    with pytest.raises(InputError, match="not the description of an environment"):
        envs.spec_from_json({"id": "x"})
