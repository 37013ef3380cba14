"""The contract of the runtime: parts of Ray's API that annotated and introspective programs use."""

import asyncio
import json
import pickle
import subprocess
import sys

import pytest
from conftest import wait_until

from shoal import runtime
from shoal.runtime import InputError, InputTypeError
from shoal.runtime.util import get_placement_group, placement_group, placement_group_table, remove_placement_group
from shoal.runtime.util.completion import as_completed, map_unordered
from shoal.runtime.util.queue import Queue


@runtime.remote
def double(x: int) -> int:
    return 2 * x


@runtime.remote
class Scale:
    FACTOR = 3

    def __init__(self, factor=None):
        self.factor = factor or self.FACTOR

    @staticmethod
    def halved(x):
        return x / 2

    @classmethod
    def preset(cls):
        return cls.FACTOR + 1

    def times(self, x):
        return self.factor * x

    def canceled(self, gate):
        context = runtime.get_runtime_context()
        before = context.is_canceled()
        gate.touch()
        wait_until(context.is_canceled)
        return before, "ended early"

    def is_canceled(self):
        return runtime.get_runtime_context().is_canceled()

    def where(self):
        return described()


def described():
    context = runtime.get_runtime_context()
    return context.get_placement_group_id(), context.should_capture_child_tasks_in_placement_group


# Classes, references, handles -----------------------------------------------------------------------------------------


def test_what_an_actor_class_has_itself_is_reached_through_it(engine):
    assert (Scale.FACTOR, Scale.halved(5), Scale.preset()) == (3, 2.5, 4)
    assert Scale.options(num_cpus=1).FACTOR == 3
    actor = Scale.remote(Scale.preset())
    assert runtime.get([actor.times.remote(2), actor.halved.remote(3), actor.preset.remote()]) == [8, 1.5, 4]
    with pytest.raises(AttributeError, match=r"actor class 'Scale' has no attribute 'FACTR'. Did you mean 'FACTOR'"):
        _ = Scale.FACTR
    with pytest.raises(AttributeError, match=r"Did you mean 'remote'"):
        Scale.remot()


def test_references_and_handles_can_be_subscripted(engine):
    def use(ref: runtime.ObjectRef[int], actor: "runtime.ActorHandle[Scale]") -> runtime.ObjectRefGenerator[int]:
        raise NotImplementedError

    assert use.__annotations__["return"] == runtime.ObjectRefGenerator[int]
    assert runtime.ActorHandle[int].__origin__ is runtime.ActorHandle
    ref: runtime.ObjectRef[int] = double.remote(2)
    assert isinstance(ref, runtime.ObjectRef)
    assert ref.binary().hex() == ref.hex()
    assert runtime.get(ref) == 4


@pytest.mark.slow
@pytest.mark.timeout(600)  # it reads all of the package and torch where there is no cache yet
def test_type_checkers_know_what_a_reference_stands_for(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("""
from shoal import runtime
def use(ref: runtime.ObjectRef[int], refs: list[runtime.ObjectRef[str]]) -> None:
    reveal_type(runtime.get(ref))
    reveal_type(runtime.get(refs))
    reveal_type(runtime.put(2.5))
async def wait(ref: runtime.ObjectRef[int], values: runtime.ObjectRefGenerator[bytes]) -> None:
    reveal_type(await ref)
    reveal_type([await value async for value in values])
""")
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent", "--cache-dir", ".mypy_cache", str(program)]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    for told in ["int", "list[str]", "ObjectRef[float]", "int", "list[bytes]"]:
        assert told in output
    assert output.count("Revealed type") == 5


def test_a_reference_is_an_asyncio_future(engine):
    async def both():
        future = double.remote(4).as_future()
        assert isinstance(future, asyncio.Future)
        return await asyncio.gather(future, double.remote(5).as_future())

    assert asyncio.run(both()) == [8, 10]


def test_a_generator_tells_whether_it_is_finished(engine):
    @runtime.remote
    def count():
        yield from range(2)

    values = count.remote()
    assert not values.is_finished()
    assert runtime.get(list(values)) == [0, 1]
    assert values.is_finished()
    failing = runtime.remote(lambda: (1 // 0 for _ in range(2))).options(num_returns="streaming").remote()
    [ref] = list(failing)
    assert failing.is_finished()
    with pytest.raises(ZeroDivisionError):
        runtime.get(ref)


def test_a_task_is_called_what_its_function_is_called(engine):
    @runtime.remote
    def inner():
        return runtime.get_runtime_context().get_task_name()

    assert runtime.get(inner.remote()) == "inner"


@pytest.mark.engines("native", "serial", reason="Ray lists its tasks itself")
def test_tasks_are_listed_by_that_name(engine):
    @runtime.remote
    def listed_inside():
        return None

    runtime.get(listed_inside.remote())
    assert len(runtime.state.list_tasks(filters=[("name", "=", "listed_inside")])) == 1


# Errors ---------------------------------------------------------------------------------------------------------------


def test_an_actors_death_says_whose_it_is(engine):
    actor = Scale.remote()
    named = actor._actor.id.hex()
    runtime.kill(actor)
    ref = actor.times.remote(1)
    with pytest.raises(runtime.ActorDiedError) as caught:
        runtime.get(ref)
    assert caught.value.actor_id == named
    assert pickle.loads(pickle.dumps(caught.value)).actor_id == named


@pytest.mark.parametrize(
    "call",
    [
        lambda: runtime.kill("x"),
        lambda: runtime.get(5),
        lambda: runtime.get([5]),
        lambda: runtime.wait(5),
        lambda: runtime.cancel(5),
        lambda: Scale.options(name=5),
        lambda: Scale.options(namespace=5),
        lambda: double.options(max_retries=0.5),
        lambda: double.options(num_cpus="1"),
        lambda: double.options(runtime_env=5),
        lambda: double.options(scheduling_strategy=5),
        lambda: Scale.options(concurrency_groups=5),
        lambda: runtime.get([], timeout="1"),
        lambda: runtime.put(runtime.put(1)),
        lambda: as_completed([5]),
        lambda: placement_group([5]),
    ],
)
def test_another_kind_of_thing_is_both_a_type_error_and_a_value_error(engine, call):
    for kind in (InputTypeError, InputError, TypeError, ValueError):
        with pytest.raises(kind):
            call()


def test_a_bad_value_is_no_type_error(engine):
    with pytest.raises(InputError) as caught:
        double.options(max_retries=-2)
    assert not isinstance(caught.value, TypeError)


# What runs here -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_running_method_hears_that_it_is_cancelled(engine, concurrent, tmp_path, concurrency):
    actor = Scale.options(max_concurrency=concurrency).remote()
    ref = actor.canceled.remote(tmp_path / "began")
    wait_until((tmp_path / "began").exists)
    runtime.cancel(ref)
    if engine == "ray":  # which gives no value to who has cancelled
        with pytest.raises(runtime.TaskCancelledError):
            runtime.get(ref)
    else:
        assert runtime.get(ref) == (False, "ended early")
    assert runtime.get(actor.is_canceled.remote()) is False


@pytest.mark.engines("native", reason="Ray does not tell async methods")
def test_an_async_method_knows_why_it_is_cancelled(concurrent, tmp_path):
    @runtime.remote
    class Sleeper:
        async def sleep(self, gate):
            gate.touch()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                return runtime.get_runtime_context().is_canceled()

        async def again(self):
            return runtime.get_runtime_context().is_canceled()

    actor = Sleeper.remote()
    ref = actor.sleep.remote(tmp_path / "began")
    wait_until((tmp_path / "began").exists)
    runtime.cancel(ref)
    assert runtime.get(ref) is True
    assert runtime.get(actor.again.remote()) is False


@pytest.mark.engines("native", reason="it is interrupted in a wait, which Ray answers later")
def test_a_task_that_was_interrupted_knows_why(concurrent, tmp_path):
    @runtime.remote
    def task(gate):
        try:
            gate.touch()
            wait_until(lambda: False, 60)
        except KeyboardInterrupt:
            return runtime.get_runtime_context().is_canceled()

    ref = task.remote(tmp_path / "began")
    wait_until((tmp_path / "began").exists)
    runtime.cancel(ref)
    assert runtime.get(ref) is True
    assert runtime.get(runtime.remote(lambda: runtime.get_runtime_context().is_canceled()).remote()) is False


def test_nothing_is_cancelled_in_a_driver(engine):
    assert runtime.get_runtime_context().is_canceled() is False


def test_the_surroundings_can_be_read(engine):
    @runtime.remote(runtime_env={"env_vars": {"TASTE": "sweet"}})
    def inside():
        context = runtime.get_runtime_context()
        return context.runtime_env["env_vars"]["TASTE"], context.get_runtime_env_string()

    taste, text = runtime.get(inside.remote())
    assert taste == "sweet"
    assert json.loads(text)["env_vars"]["TASTE"] == "sweet"
    here = runtime.get_runtime_context()
    assert json.loads(here.get_runtime_env_string()) == here.runtime_env
    with pytest.raises(InputError, match="cannot be changed"):
        here.runtime_env["env_vars"] = {}


def test_the_placement_group_can_be_read(engine):
    group = placement_group([{"CPU": 1}])
    assert runtime.get(group.ready()) == group
    assert described() == (None, False)
    for captures in (False, True):
        strategy = runtime.PlacementGroupSchedulingStrategy(group, placement_group_capture_child_tasks=captures)
        placed = Scale.options(scheduling_strategy=strategy).remote()
        assert runtime.get(placed.where.remote()) == (group.id.hex(), captures)
        del placed
    remove_placement_group(group)


# Placement groups -----------------------------------------------------------------------------------------------------


def test_a_removed_group_is_not_ready(engine):
    group = placement_group([{"CPU": 1}])
    assert runtime.get(group.ready()) == group
    remove_placement_group(group)
    with pytest.raises(runtime.PlacementGroupRemovedError):
        runtime.get(group.ready(), timeout=30)


def test_bundles_are_lists_and_have_a_node_each(engine):
    group = placement_group([{"CPU": 2}], name="first")
    assert runtime.get(group.ready()).bundle_specs == [{"CPU": 2}]
    assert get_placement_group("first").bundle_specs == [{"CPU": 2}]
    waiting = placement_group([{"CPU": 1}, {"CPU": 1}])
    nodes = placement_group_table(group)["bundles_to_node_id"]
    assert nodes == {0: runtime.get_runtime_context().get_node_id()}
    assert placement_group_table(waiting)["bundles_to_node_id"] == {0: "", 1: ""}
    for made in (waiting, group):
        remove_placement_group(made)


# Tools ----------------------------------------------------------------------------------------------------------------


def test_a_queue_that_was_shut_down_has_no_actor(engine):
    queue = Queue()
    queue.put(1)
    queue.shutdown(grace_period_s=5)
    assert queue.actor is None
    with pytest.raises(runtime.ActorDiedError, match="this queue was shut down"):
        queue.get()
    queue.shutdown(force=True)
    other = Queue()
    other.shutdown(force=True)
    assert other.actor is None
    with pytest.raises(InputError, match="shutdown"):
        Queue().shutdown(grace_period_s=-1)


def test_a_queue_is_awaited_without_blocking(engine):
    async def use(queue):
        await queue.put_async(1, block=False)
        with pytest.raises(Exception, match="items do not fit"):
            await queue.put_async(2, block=False)
        assert await queue.get_async(timeout=0) == 1
        await queue.put_async(3, timeout=0)
        assert await queue.get_async(block=False) == 3
        with pytest.raises(Exception, match="1 items were wanted"):
            await queue.get_async(block=False)

    queue = Queue(maxsize=1)
    asyncio.run(use(queue))
    queue.shutdown()


def test_chunks_are_taken_but_change_nothing(engine):
    assert sorted(as_completed([double.remote(i) for i in range(3)], chunk_size=2)) == [0, 2, 4]
    assert sorted(map_unordered(double, range(3), chunk_size=2)) == [0, 2, 4]
    for call in (lambda: as_completed([], chunk_size=0), lambda: map_unordered(double, [], chunk_size="2")):
        with pytest.raises(InputError, match="chunk_size"):
            call()


# The runtime itself ---------------------------------------------------------------------------------------------------


def test_init_tells_what_it_has_started_and_ends_it(shared_engine):
    runtime.shutdown()
    with runtime.init(engine=shared_engine, num_cpus=1, namespace="mine") as info:
        assert (info.engine, info.namespace) == (shared_engine, "mine")
        assert info.job_id == runtime.get_runtime_context().get_job_id()
        assert info.address_info["node_id"] == info.node_id == runtime.get_runtime_context().get_node_id()
        assert runtime.init(ignore_reinit_error=True) == info
    assert not runtime.is_initialized()
