"""What Ray's users write first, and is called otherwise here: the error says how."""

import inspect

import pytest

from shoal import runtime
from shoal.runtime import exceptions, util
from shoal.runtime.exceptions import elsewhere


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"include_dashboard": False}, "init has no argument 'include_dashboard'. Here it is: `shoal status`"),
        ({"local_mode": True}, "Here it is: engine='serial'"),
        ({"num_cpu": 2}, "Did you mean 'num_cpus'"),
    ],
)
def test_arguments_of_init(options, said):
    with pytest.raises(TypeError) as told:
        runtime.init(**options)
    assert said in str(told.value)
    assert not runtime.is_initialized()


@pytest.mark.parametrize(
    ("module", "name", "said"),
    [
        (runtime, "serve", "has no attribute 'serve'. Here it is: shoal.serve"),
        (runtime, "something", "has no attribute 'something'"),
        (util, "multiprocessing", "Here it is: util.ActorPool"),
        (exceptions, "RayActorError", "Here it is: ActorError"),
    ],
)
def test_names_of_modules(module, name, said):
    with pytest.raises(AttributeError) as told:
        getattr(module, name)
    assert said in str(told.value)


@pytest.mark.parametrize("name", util.__all__)
def test_each_tool_is_told_of_beside_its_module(name):
    with pytest.raises(AttributeError, match=f"Here it is: runtime.util.{name}$"):
        getattr(runtime, name)


@pytest.mark.parametrize(
    ("table", "ours"),
    [
        (elsewhere.SETTINGS, inspect.signature(runtime.init).parameters),
        (elsewhere.NAMES, dir(runtime)),
        (elsewhere.TOOLS, dir(util)),
        (elsewhere.EXCEPTIONS, dir(exceptions)),
    ],
)
def test_no_name_of_rays_hides_one_of_ours(table, ours):
    assert not set(table) & set(ours)


def test_the_exceptions_that_are_named_exist():
    answers = [sentence.removeprefix("Here it is: ") for sentence in elsewhere.EXCEPTIONS.values()]
    named = [answer.partition(",")[0] for answer in answers if answer[0].isupper()]
    assert len(named) > 8
    assert all(issubclass(getattr(exceptions, name), Exception) for name in named)
