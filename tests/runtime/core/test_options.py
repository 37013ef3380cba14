"""Options of tasks and actors: defaults, checks, messages."""

import pytest

from shoal.runtime import InputError
from shoal.runtime.core.options import ActorOptions, TaskOptions
from shoal.runtime.core.resources.amounts import UNIT


def test_defaults_are_rays():
    task, actor = TaskOptions.of(), ActorOptions.of()
    assert (task.demand, task.num_returns, task.max_retries) == ({"CPU": UNIT}, 1, 3)
    assert (actor.demand, actor.max_restarts, actor.max_task_retries) == ({}, 0, 0)


def test_demand_names_what_is_asked_for_without_zeros():
    options = TaskOptions.of(num_cpus=0, num_gpus=0.5, resources={"rocket": 2, "none": 0})
    assert options.demand == {"GPU": UNIT // 2, "rocket": 2 * UNIT}


def test_a_single_exception_class_stands_for_itself():
    assert TaskOptions.of(retry_exceptions=ValueError) == TaskOptions.of(retry_exceptions=[ValueError])


def test_but_changes_a_copy():
    options = ActorOptions.of(max_restarts=2)
    changed = options.but(max_task_retries=-1, name="x")
    assert (options.max_task_retries, options.name) == (0, None)
    assert (changed.max_restarts, changed.max_task_retries, changed.name) == (2, -1, "x")


def test_none_means_the_default():
    assert TaskOptions.of(num_cpus=None).num_cpus == 1
    assert TaskOptions.of(max_retries=0).but(max_retries=None).max_retries == 0


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (TaskOptions, {"num_cpus": 0.00005}, "num_cpus=5e-05: resources count in steps of 0.0001"),
        (TaskOptions, {"num_gpus": 1.5}, "num_gpus=1.5: want a share of one GPU"),
        (TaskOptions, {"memory": "1 GB"}, "memory='1 GB': want a number"),
        (TaskOptions, {"resources": {"memory": 1}}, "use memory= for it"),
        (TaskOptions, {"accelerator_type": "A100"}, r"'accelerator_type' is not supported: .*resources=\{'A100': 1\}"),
        (ActorOptions, {"placement_group": None}, "use scheduling_strategy=PlacementGroupSchedulingStrategy"),
        (TaskOptions, {"scheduling_strategy": "SPRAED"}, "unknown. Did you mean 'SPREAD'"),
        (ActorOptions, {"scheduling_strategy": 3}, "scheduling_strategy=3: want 'DEFAULT', 'SPREAD', a Placement"),
        (TaskOptions, {"num_return": 1}, r"unknown option 'num_return'. Did you mean 'num_returns'\?"),
        (TaskOptions, {"max_restarts": 1}, "unknown option 'max_restarts'"),
        (ActorOptions, {"num_returns": 1}, "unknown option 'num_returns'"),
        (TaskOptions, {"num_cpus": True}, "num_cpus=True: want a number"),
        (TaskOptions, {"num_cpus": float("nan")}, "num_cpus=nan: want a number"),
        (TaskOptions, {"num_gpus": float("inf")}, "num_gpus=inf: want a number"),
        (TaskOptions, {"num_cpus": "2"}, "num_cpus='2': want a number"),
        (TaskOptions, {"resources": {"x": -1}}, r"resources\['x'\]=-1: want a number that is not negative"),
        (TaskOptions, {"resources": {"GPU": 1}}, "use num_gpus= for it"),
        (TaskOptions, {"num_returns": -1}, "num_returns=-1: want an integer from 0 to 1,000,000, or 'streaming'"),
        (TaskOptions, {"num_returns": True}, "num_returns=True: want an integer"),
        (ActorOptions, {"max_restarts": -2}, r"at least -1 \(-1 means: without limit\)"),
        (ActorOptions, {"name": ""}, "name='': want a string that is not empty"),
        (ActorOptions, {"name": 3}, "name=3: want a string"),
    ],
)
def test_bad_options_say_what_is_wanted(kind, given, message):
    with pytest.raises(InputError, match=message):
        kind.of(**given)
