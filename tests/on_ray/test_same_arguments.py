"""What DESIGN.md calls the same takes the arguments that Ray's takes, by the same names."""

import importlib
import importlib.util
import inspect

import pytest

from shoal import runtime
from shoal.runtime import util
from shoal.runtime.util.actor_pool import ActorPool
from shoal.runtime.util.queue import Queue

if importlib.util.find_spec("ray") is None:
    pytest.skip("run by `make test-ray`", allow_module_level=True)

ray = importlib.import_module("ray")

# Arguments of Ray's that are not here on purpose.
LEFT_OUT = {
    "get": {"object_refs"},  # given by position
    "wait": {"ray_waitables"},
    "cancel": {"ray_waitable"},
    "shutdown": {"wait_for_processes"},  # it always does
    "placement_group": {"bundle_label_selector", "topology_strategy"},  # for clusters of many kinds of machines
    "inspect_serializability": {"base_obj"},
}
VERBS = ["get", "put", "wait", "cancel", "kill", "get_actor", "shutdown", "is_initialized", "get_gpu_ids"]
TOOLS = [
    *("placement_group", "placement_group_table", "remove_placement_group", "get_placement_group"),
    *("get_current_placement_group", "as_completed", "map_unordered", "list_named_actors", "register_serializer"),
    *("deregister_serializer", "inspect_serializability"),
]


def named(function):
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind not in kinds and not p.name.startswith("_") and p.name != "self"]


def check(theirs, ours, left_out=()):
    wanted = [name for name in named(theirs) if name not in left_out]
    assert [name for name in named(ours) if name in wanted] == wanted


@pytest.mark.parametrize("name", VERBS)
def test_verbs(name):
    check(getattr(ray, name), getattr(runtime, name), LEFT_OUT.get(name, ()))


@pytest.mark.parametrize("name", TOOLS)
def test_tools(name):
    importlib.import_module("ray.util")
    check(getattr(ray.util, name), getattr(util, name), LEFT_OUT.get(name, ()))


@pytest.mark.parametrize(("module", "ours"), [("ray.util.queue", Queue), ("ray.util.actor_pool", ActorPool)])
def test_classes(module, ours):
    theirs = getattr(importlib.import_module(module), ours.__name__)
    for name, method in inspect.getmembers(theirs, inspect.isfunction):
        if not name.startswith("_") or name == "__init__":
            check(method, getattr(ours, name))


def test_what_code_can_ask_about_itself():
    theirs = importlib.import_module("ray.runtime_context").RuntimeContext
    ours = set(dir(type(runtime.get_runtime_context())))
    deprecated = {"job_id", "node_id", "task_id", "actor_id", "get_resource_ids", "current_placement_group_id"}
    elsewhere = {"gcs_address", "get_node_labels", "get_session_name", "get_temp_dir"}
    assert {name for name in dir(theirs) if not name.startswith("_")} - ours <= deprecated | elsewhere | {"worker"}
