"""`runtime_env`: what tasks and actors find around them, on every engine."""

import os
import pickle
import sys
import types

import pytest

from shoal import runtime


@runtime.remote
def variable(name):
    return os.environ.get(name)


@runtime.remote
def variable_below(name, env=None):
    return runtime.get(variable.options(runtime_env=env).remote(name))


@runtime.remote
def read(path):
    with open(path) as file:
        return file.read()


@runtime.remote
def import_and_ask(module):
    __import__(module)
    return sys.modules.pop(module).ANSWER


@runtime.remote
class Asker:
    def __init__(self):
        self.at_start = os.environ.get("SHOAL_TEST")

    def variable(self, name):
        return self.at_start, os.environ.get(name)

    def below(self, name):
        return runtime.get(variable.remote(name))


# Variables ------------------------------------------------------------------------------------------------------------


def test_env_vars_of_a_task_are_its_own(engine):
    with_variable = variable.options(runtime_env={"env_vars": {"SHOAL_TEST": "1"}})
    assert runtime.get([with_variable.remote("SHOAL_TEST"), variable.remote("SHOAL_TEST")]) == ["1", None]
    assert "SHOAL_TEST" not in os.environ


def test_the_decorator_takes_a_runtime_env(engine):
    @runtime.remote(runtime_env=runtime.RuntimeEnv(env_vars={"SHOAL_TEST": "decorated"}))
    def ask():
        return os.environ["SHOAL_TEST"]

    assert runtime.get(ask.remote()) == "decorated"


def test_env_vars_of_an_actor_hold_for_its_constructor_and_calls(engine):
    asker = Asker.options(runtime_env={"env_vars": {"SHOAL_TEST": "actor"}}).remote()
    assert runtime.get(asker.variable.remote("SHOAL_TEST")) == ("actor", "actor")
    assert runtime.get(asker.below.remote("SHOAL_TEST")) == "actor"


def test_nested_tasks_inherit_and_override_variable_by_variable(engine):
    outer = variable_below.options(runtime_env={"env_vars": {"SHOAL_A": "a", "SHOAL_B": "b"}})
    assert runtime.get(outer.remote("SHOAL_A")) == "a"
    own = {"env_vars": {"SHOAL_B": "mine"}}
    assert runtime.get([outer.remote("SHOAL_A", own), outer.remote("SHOAL_B", own)]) == ["a", "mine"]


def test_env_vars_can_build_on_those_that_are_there(engine):
    longer = variable.options(runtime_env={"env_vars": {"PATH": "/here:${PATH}"}})
    assert runtime.get(longer.remote("PATH")) == "/here:" + os.environ["PATH"]


def test_the_jobs_environment_is_inherited_by_all(shared_engine):
    runtime.shutdown()
    runtime.init(
        engine=shared_engine, num_cpus=1, preload=[], runtime_env={"env_vars": {"SHOAL_JOB": "j", "SHOAL_TEST": "j"}}
    )
    own = variable.options(runtime_env={"env_vars": {"SHOAL_TEST": "own"}})
    assert runtime.get([variable.remote("SHOAL_JOB"), own.remote("SHOAL_JOB"), own.remote("SHOAL_TEST")]) == [
        "j",
        "j",
        "own",
    ]
    assert runtime.get(Asker.remote().variable.remote("SHOAL_JOB")) == ("j", "j")
    assert "SHOAL_JOB" not in os.environ
    runtime.shutdown()


# Folders and modules --------------------------------------------------------------------------------------------------


@pytest.mark.engines("native", "serial", reason="Ray copies local folders for a whole job only")
def test_working_dir_is_where_tasks_run_and_import(engine, tmp_path):
    (tmp_path / "data.txt").write_text("found")
    (tmp_path / "shoal_answers_a.py").write_text("ANSWER = 42")
    env = {"working_dir": str(tmp_path)}
    here = os.getcwd()
    assert runtime.get(read.options(runtime_env=env).remote("data.txt")) == "found"
    assert runtime.get(import_and_ask.options(runtime_env=env).remote("shoal_answers_a")) == 42
    assert os.getcwd() == here


@pytest.mark.engines("native", "serial", reason="Ray copies local folders for a whole job only")
def test_py_modules_can_be_imported(engine, tmp_path):
    package = tmp_path / "shoal_answers_b"
    package.mkdir()
    (package / "__init__.py").write_text("ANSWER = 43")
    (tmp_path / "shoal_answers_c.py").write_text("ANSWER = 44")
    module = types.ModuleType("shoal_answers_c")
    module.__file__ = str(tmp_path / "shoal_answers_c.py")
    ask = import_and_ask.options(runtime_env={"py_modules": [package, module]})
    assert runtime.get([ask.remote("shoal_answers_b"), ask.remote("shoal_answers_c")]) == [43, 44]


# Mistakes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"pip": ["numpy"]}, "'pip' is not supported: workers run the driver's interpreter"),
        ({"container": {}}, "start the driver inside the container"),
        ({"env_var": {}}, "unknown key 'env_var'. Did you mean 'env_vars'"),
        ({"env_vars": {"A": 1}}, r"env_vars\['A'\]=1: want text, such as '1'"),
        ({"env_vars": ["A"]}, "want a dict of names and values"),
        ({"env_vars": {"A=B": "1"}}, "want text without '='"),
        ({"env_vars": {"A": "x\0y"}}, r"no variable can have a '\\0'. Leave it out"),
        ({"working_dir": "/no/such/folder"}, "/no/such/folder does not exist"),
        ({"working_dir": __file__}, "is not a folder"),
        ({"working_dir": "s3://bucket/code.zip"}, "only local paths are supported"),
        ({"py_modules": "one"}, "py_modules='one': want a list"),
        ({"py_modules": ["/no/such/module"]}, "/no/such/module does not exist"),
        ({"excludes": [1]}, "want patterns as in .gitignore"),
        ("env", "want a dict with the keys"),
    ],
)
def test_a_bad_environment_is_refused_when_it_is_given(env, message):
    runtime.shutdown()
    with pytest.raises(runtime.InputError, match=message):
        runtime.remote(runtime_env=env)(len)
    with pytest.raises(runtime.InputError, match=message):
        Asker.options(runtime_env=env)
    with pytest.raises(runtime.InputError, match=message):
        runtime.init(runtime_env=env)


def test_an_environment_cannot_be_changed():
    env = runtime.RuntimeEnv(env_vars={"A": "1"})
    with pytest.raises(runtime.InputError, match="Make another one"):
        env["env_vars"] = {}
    assert pickle.loads(pickle.dumps(env)) == env == {"env_vars": {"A": "1"}}
