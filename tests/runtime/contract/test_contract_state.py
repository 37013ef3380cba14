"""The contract of `runtime.state`: what it tells, on every engine."""

import json

import pytest
from conftest import WORKERS_NEED, wait_until

from shoal import runtime
from shoal.runtime import state


@runtime.remote
def square(x):
    return x * x


@runtime.remote
def squares(most):
    for x in range(most):
        yield x * x


@runtime.remote
def texts(count):
    for _ in range(count):
        yield b"x" * 1_000_000


@runtime.remote
def fail():
    raise KeyError("on purpose")


@runtime.remote
class Counter:
    def __init__(self, start=0):
        self.value = start

    def increase(self):
        self.value += 1
        return self.value


def test_ended_tasks_are_listed(engine):
    done, failed = square.remote(3), fail.remote()
    runtime.wait([done, failed], num_returns=2)
    row = state.get_task(done)
    assert (row.name, row.type, row.state, row.reason) == ("square", "NORMAL_TASK", "FINISHED", "")
    assert row.end_time_ms >= row.creation_time_ms > 1_600_000_000_000
    row = state.get_task(failed.hex()[-10:])
    assert (row.state, row.error_type) == ("FAILED", "KeyError")


def test_calls_of_actors_are_listed(engine):
    counter = Counter.remote()
    ref = counter.increase.remote()
    runtime.get(ref)
    row = state.get_task(ref)
    actor = state.get_actor(counter)
    assert (row.name, row.type, row.state) == ("Counter.increase", "ACTOR_TASK", "FINISHED")
    assert row.actor_id == actor.actor_id
    assert (actor.class_name, actor.state, actor.reason) == ("Counter", "ALIVE", "")


def test_actors_are_listed_with_their_names_and_deaths(engine):
    counter = Counter.options(name="listed").remote()
    runtime.get(counter.increase.remote())
    assert state.get_actor(counter).name == "listed"
    runtime.kill(counter)
    assert state.get_actor(counter).state == "DEAD"
    assert "kill()" in state.get_actor(counter).reason
    assert {"Counter"} <= {summary.class_name for summary in state.summarize_actors()}


def test_objects_are_listed_with_size_and_place(engine):
    ref = runtime.put(b"x" * 1000)
    row = state.get_object(ref)
    assert row.object_size >= 1000
    assert (row.where, row.local_references) == ("message", 1)
    assert "1.0 KB" in str(state.memory()) or state.memory().total >= 1000
    object_id = ref.hex()
    del ref
    wait_until(lambda: state.get_object(object_id) is None)


def test_what_keeps_an_actor_alive_is_listed_as_that_and_large_values_of_streams_are_not(processes):
    counter = Counter.remote()
    runtime.get(counter.increase.remote())
    [streamed] = texts.remote(1)
    runtime.wait([streamed])
    assert state.get_object(streamed).where == "shared memory"
    assert "actor" in {row.where for row in state.list_objects()}


def test_nodes_and_workers_are_listed(engine):
    # What other tests have used is given back a moment later.
    wait_until(lambda: runtime.available_resources() == runtime.cluster_resources())
    (node,) = state.list_nodes()
    assert node.resources_total["CPU"] == 2
    driver = next(row for row in state.list_workers() if row.worker_type == "DRIVER")
    assert driver.answers
    assert driver.node_id == node.node_id
    assert state.get_node(node.node_id) == node
    assert runtime.nodes() == [node]
    assert (node["NodeID"], node["Alive"], node["Resources"]) == (node.node_id, True, node.resources_total)
    with pytest.raises(KeyError, match="NodeState has node_id"):
        node["NoSuch"]


def test_filters_select_rows(engine):
    refs = [square.remote(i) for i in range(3)]
    runtime.get(refs)
    rows = state.list_tasks(filters=[("name", "=", "square"), ("state", "!=", "FAILED")])
    assert {"square"} == {row.name for row in rows}
    assert {ref.hex() for ref in refs} <= {row.task_id for row in rows}
    assert len(state.list_tasks(limit=1)) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": [("stat", "=", "RUNNING")]}, "no field 'stat'. Did you mean 'state'"),
        ({"filters": [("state", "<", "RUNNING")]}, "'=' or '!='"),
        ({"limit": 0}, "limit=0"),
        ({"address": "none"}, "no runtime with session 'none'"),
    ],
)
def test_bad_questions_are_refused(engine, arguments, message):
    with pytest.raises(runtime.InputError, match=message):
        state.list_tasks(**arguments)


def test_an_unknown_id_is_none(engine):
    assert state.get_task("0" * 32) is None
    with pytest.raises(TypeError, match="want a reference"):
        state.get_task(3)


def test_a_story_tells_the_life_of_a_task(engine):
    ref = square.remote(3)
    runtime.get(ref)
    told = runtime.story(ref)
    events = ["square was submitted by", "the result is here", "now: "]
    assert [told.index(event) for event in events] == sorted(told.index(event) for event in events)
    assert told.startswith(f"task and object {ref.hex()}")
    assert runtime.story(ref.hex()[-10:]).splitlines()[0] == told.splitlines()[0]
    failed = fail.remote()
    runtime.wait([failed])
    assert "it failed with KeyError" in runtime.story(failed)


def test_a_story_tells_the_life_of_an_object(engine):
    ref = runtime.put(b"x" * 1_000_000)
    object_id = ref.hex()
    assert "1.0 MB were put by" in runtime.story(ref)
    del ref
    wait_until(lambda: "the last reference was gone" in runtime.story(object_id))
    with pytest.raises(runtime.InputError, match="nothing is known of 'abcabc'"):
        runtime.story("abcabc")


def test_a_story_is_told_by_an_actors_name(engine):
    @runtime.remote
    class Named:
        def ping(self):
            return 1

    actor = Named.options(name="Told by name").remote()
    runtime.get(actor.ping.remote())
    assert runtime.story("Told by name").splitlines()[0] == runtime.story(actor).splitlines()[0]
    same = [Named.options(name="told", namespace=namespace).remote() for namespace in ("one", "two")]
    runtime.get([other.ping.remote() for other in same])
    with pytest.raises(runtime.InputError, match=f"2 actors are 'told'.*{same[0]._actor.id.hex()}"):
        runtime.story("told")


def test_rows_are_read_by_names_of_fields_too(engine):
    runtime.get(runtime.remote(lambda: 1).options(name="one").remote())
    (row,) = state.list_tasks(filters=[("name", "=", "one")])
    assert row["name"] == "one"
    assert row["state"] == row.state
    with pytest.raises(KeyError, match="'status': TaskState has task_id, name"):
        row["status"]
    (node, *_) = state.list_nodes()
    assert node["node_id"] == node["NodeID"]


def test_the_timeline_holds_tasks_calls_and_own_spans(engine, tmp_path):
    @runtime.remote
    def load():
        with runtime.profile("reading", extra_data={"file": "a.bin"}):
            return 1

    refs = [load.remote(), Counter.remote().increase.remote()]
    runtime.get(refs)
    events = runtime.timeline(str(tmp_path / "trace.json"))
    assert json.loads((tmp_path / "trace.json").read_text()) == events
    spans = {event["args"].get("task_id") or event["name"]: event for event in events if event["ph"] == "X"}
    assert spans[refs[0].hex()]["name"].endswith("load")
    assert spans[refs[1].hex()]["name"] == "Counter.increase"
    assert spans["reading"]["args"]["file"] == "a.bin"
    assert spans["reading"]["dur"] <= spans[refs[0].hex()]["dur"]
    assert all(event["ts"] > 1.6e15 and event["dur"] >= 0 for event in spans.values())
    rows = {(event["pid"], event["tid"]) for event in events if event["name"] == "thread_name"}
    assert {(event["pid"], event["tid"]) for event in spans.values()} <= rows


def test_call_sites_are_recorded_if_wished(engine):
    here = runtime.put(1)
    assert state.get_object(here).call_site == ""
    del here
    runtime.shutdown()
    runtime.init(engine=engine, num_cpus=2, record_call_sites=True, preload=WORKERS_NEED)
    refs = [runtime.put(1), square.remote(3)]
    runtime.get(refs)
    rows = [state.get_object(ref) for ref in refs]
    assert all(f"{__file__}:" in row.call_site and "test_call_sites" in row.call_site for row in rows)
    values = list(squares.remote(3))
    assert all("test_call_sites" in state.get_object(value).call_site for value in values)
    assert f"{__file__}:" in str(state.memory())
    runtime.shutdown()
