import functools
import importlib
import json
import sys
import threading
import warnings

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
    monkeypatch.setattr("shoal.runtime.core.current.published", {})


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
    described = json.loads(json.dumps(envs.spec_to_json(spec)))
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
        ("PongNoFrameskip-v4", r"Here it is 'Atari/Pong-v5', preprocessed, or 'ALE/Pong-v5' as it is"),
        ("my.envs.Maze", r"A class in a module is named 'my.envs:Maze'"),
        ("pettingzoo/tictactoe_v3", r"Did you mean 'classic/tictactoe_v3'\?"),
        ("nothing_here:X-v0", r"needs the module 'nothing_here', which fails to import"),
    ],
)
def test_unknown_id(name, text, monkeypatch):
    monkeypatch.delitem(gymnasium.registry, "PongNoFrameskip-v4", raising=False)  # others may have imported ale_py
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
    again = envs.spec_from_json(json.loads(json.dumps(envs.spec_to_json(spec))))
    assert again == spec


def test_json_of_an_importable_class():
    spec = EnvSpec("Count-v0", Counter, {"length": 4}, 3, 1.5)
    assert envs.spec_from_json(json.loads(json.dumps(envs.spec_to_json(spec)))) == spec


def test_json_prefers_what_is_registered():
    description = envs.spec_to_json(EnvSpec("Count-v0", functools.partial(Counter, noisy=True), {"length": 4}))
    with pytest.raises(InputError, match=r"call envs.register\('Count-v0', …\) first"):
        envs.spec_from_json(description)
    envs.register("Count-v0", Counter, length=8)
    assert envs.spec_from_json(description) == EnvSpec("Count-v0", Counter, {"length": 4})


def test_json_leaves_out_what_it_cannot_hold():
    description = envs.spec_to_json(EnvSpec("Count-v0", Counter, {"length": {4}, "noisy": True, "goal": float("inf")}))
    assert description["kwargs"] == {"noisy": True}
    assert description["missing"] == ["length", "goal"]
    with pytest.raises(InputError, match=r"arguments that could not be saved \(length, goal\)"):
        envs.spec_from_json(description)
    envs.register("Count-v0", Counter, length=8)
    assert envs.spec_from_json(description).kwargs == {"length": 8, "noisy": True}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("os:system", "not a class that can be imported"),
        ("subprocess:Popen", "not a class that can be imported"),
        ("builtins:eval", "not a class that can be imported"),
        ("shutil:rmtree", "not a class that can be imported"),
        ("tiny_envs:nothing", "not a class that can be imported"),
        (":", "not a class that can be imported"),
        ("__main__:X", "was defined in"),
        ("os system:x", "which is not the name of one"),
        ("../evil:X", "which is not the name of one"),
        ("nothing_here.at_all:X", "needs the module 'nothing_here.at_all', which fails.* Begin in the folder"),
    ],
)
def test_json_calls_nothing_but_environments(target, message):
    for entry in (
        {"python": target},
        {"gymnasium": "No-v0", "python": target, "kwargs": {}, "nondeterministic": False},
    ):
        description = envs.spec_to_json(EnvSpec("X-v0", Counter)) | {"entry": entry, "script": ""}
        if target == "nothing_here.at_all:X" and "gymnasium" in entry:
            message = "needs the module 'nothing_here'"
        with pytest.raises(InputError, match=message):
            envs.spec_from_json(description)


def test_an_id_in_json_imports_nothing():
    description = envs.spec_to_json(EnvSpec("X-v0", Counter)) | {"entry": {"gymnasium": "antigravity:X-v0"}}
    with pytest.raises(InputError, match="is not the id of an environment"):
        envs.spec_from_json(description)


MODULE = """
import gymnasium, numpy
from shoal import envs

with open("imported", "a") as file:
    file.write(__name__ + " ")

class World(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), numpy.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, size=1):
        self.size = size

def make_world(size=7):
    return World(size)
"""


@pytest.fixture
def write_module(tmp_path, monkeypatch):
    """Write modules into the current folder, on the path; what they have imported and registered is undone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    before, known = set(sys.modules), set(gymnasium.registry)

    def write(name, source=MODULE):
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
        importlib.invalidate_caches()

    yield write
    forget(before, known)


def forget(modules, ids):
    for name in set(sys.modules) - modules:
        del sys.modules[name]
    for key in set(gymnasium.registry) - ids:
        del gymnasium.registry[key]
    importlib.invalidate_caches()


@pytest.fixture
def in_another_program(monkeypatch):
    """Forget what was registered and imported, as another program does not know it."""
    before, known = set(sys.modules), set(gymnasium.registry)

    def begin():
        registration._registered.clear()
        monkeypatch.setattr("shoal.runtime.core.current.published", {})
        forget(before, known)

    return begin


@pytest.mark.parametrize(
    ("register", "given"),
    [
        ("import gymnasium\nfrom worlds import World\ngymnasium.register('Shop/World-v0', World, kwargs={'size': 3})",
         "catalogue:Shop/World-v0"),
        ("import gymnasium\nfrom worlds import World\ngymnasium.register('Shop/World-v0', World, kwargs={'size': 3})",
         "Shop/World-v0"),
        ("import gymnasium\ngymnasium.register('Shop/World-v0', 'worlds:World', kwargs={'size': 3})", "Shop/World-v0"),
        ("import gymnasium\ngymnasium.register('Shop/World-v0', 'worlds:make_world', kwargs={'size': 3})",
         "Shop/World-v0"),
        ("from shoal import envs\nfrom worlds import World\nenvs.register('Shop/World-v0', World, size=3)",
         "Shop/World-v0"),
        ("from shoal import envs\nfrom worlds import World\nenvs.register('Shop/World-v0', lambda: World(3))",
         "Shop/World-v0"),
        ("from shoal import envs\nimport worlds\nenvs.register('Shop/World-v0', worlds.make_world, size=3)",
         "Shop/World-v0"),
    ],
)  # fmt: skip
def test_what_a_module_registers_is_found_again(register, given, write_module, in_another_program):
    write_module("worlds")
    write_module("catalogue", register)
    importlib.import_module("catalogue")
    description = json.loads(json.dumps(envs.spec_to_json(envs.resolve(given))))
    in_another_program()
    assert "worlds" not in sys.modules
    spec = envs.spec_from_json(description)
    assert spec.id == "Shop/World-v0"
    assert spec.make().unwrapped.size == 3


def test_what_a_package_registers_is_found_again(write_module, in_another_program):
    write_module("shop/__init__", "import gymnasium\ngymnasium.register('Shop/World-v0', 'shop.core.worlds:World')")
    write_module("shop/core/worlds")
    importlib.import_module("shop")
    description = json.loads(json.dumps(envs.spec_to_json(envs.resolve("Shop/World-v0"))))
    in_another_program()
    spec = envs.spec_from_json(description)
    assert spec.entry.entry_point == "shop.core.worlds:World", "as the package registered it"


@pytest.mark.parametrize("script", ["train.py", ""])
def test_what_a_script_or_notebook_registered_is_told(script, monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__file__", f"/home/me/{script}" if script else None, raising=False)

    class World(Counter):
        pass

    World.__module__, World.__qualname__ = "__main__", "World"
    gymnasium.register("Shop/World-v0", World)
    try:
        described = [envs.spec_to_json(envs.resolve("Shop/World-v0")), envs.spec_to_json(EnvSpec("World", World))]
        World.__qualname__ = "make.<locals>.World"
        described.append(envs.spec_to_json(EnvSpec("Local", World)))
    finally:
        del gymnasium.registry["Shop/World-v0"]
    for description in described:
        with pytest.raises(InputError) as caught:
            envs.spec_from_json(json.loads(json.dumps(description)))
        message = str(caught.value)
        assert "defined in the script train.py" in message if script else "a notebook or an interactive" in message
        assert ("name it train:World (" in message) == (bool(script) and description["id"] != "Local")
        assert f"envs.register({description['id']!r}, …)" in message


@pytest.mark.parametrize("module", ["run.evil", "evil", "run.sub.evil", "package.evil"])
@pytest.mark.parametrize("entry", ["class", "registering", "gymnasium"])
def test_nothing_that_lies_in_the_run_is_imported(module, entry, write_module, monkeypatch, tmp_path):
    file = {"evil": "run/evil", "package.evil": "run/package/evil"}.get(module, module.replace(".", "/"))
    write_module(file)
    if not module.startswith("run."):
        monkeypatch.syspath_prepend(tmp_path / "run")
    target = f"{module}:World"
    description = (
        envs.spec_to_json(EnvSpec("X-v0", Counter))
        | {
            "class": {"entry": {"python": target}},
            "registering": {"module": module},
            "gymnasium": {"entry": {"gymnasium": "No-v0", "python": target, "kwargs": {}, "nondeterministic": False}},
        }[entry]
    )
    with pytest.raises(InputError, match=r"which lies in '.*run' itself, at .*: what a run holds is not run"):
        envs.spec_from_json(description, folder=tmp_path / "run")
    assert not (tmp_path / "imported").exists()
    if entry == "class":  # what the user trusts
        importlib.import_module(module)
        assert envs.spec_from_json(description, folder=tmp_path / "run").make().size == 1


def test_json_that_is_none():
    with pytest.raises(InputError, match="not the description of an environment"):
        envs.spec_from_json({"id": "x"})


class Consuming(Counter):
    """Takes its configuration apart."""

    def __init__(self, config, sizes=None):
        super().__init__(length=config["inner"].pop("length"))
        (sizes or []).append(0)
        self.sizes = sizes


def test_arguments_are_each_copys_own():
    config, sizes = {"inner": {"length": 5}}, [1]
    envs.register("Consuming-v0", Consuming, config=config, sizes=sizes)
    specs = [
        envs.resolve("Consuming-v0"),
        envs.resolve(Consuming, {"config": config, "sizes": sizes}),
        EnvSpec("P-v0", functools.partial(Consuming, config, sizes=sizes)),
    ]
    for spec in specs:
        for _ in range(2):
            env = spec.make()
            assert (env.length, env.sizes) == (5, [1, 0])
    assert (config, sizes) == ({"inner": {"length": 5}}, [1])
    config["inner"]["length"] = 7
    assert specs[0].make().length == specs[1].make().length == 5


def test_a_warning_of_a_constructor_is_shown_once():
    class Warns(Counter):
        def __init__(self):
            super().__init__()
            warnings.warn("this simulator is old", stacklevel=2)

    def make_two_groups():
        for first in (0, 3):
            envs.EnvGroup(EnvSpec("W-v0", Warns), size=3, first_index=first, run_seed=0).close()

    with pytest.warns(UserWarning, match="this simulator is old") as caught:
        make_two_groups()
    assert len(caught) == 1
