"""The contract of scheduling: resources, particular GPUs, placement groups, requests that can never be met."""

import os
import signal
import time

import psutil
import pytest
from conftest import WORKERS_NEED, wait_until
from gates import Gate, pass_gate

from shoal import runtime
from shoal.runtime.util import (
    as_completed,
    get_current_placement_group,
    get_placement_group,
    placement_group,
    placement_group_table,
    remove_placement_group,
)

InGroup = runtime.PlacementGroupSchedulingStrategy


@pytest.fixture
def engine(shared_engine):
    if not runtime.is_initialized():
        runtime.init(
            engine=shared_engine,
            num_cpus=2,
            num_gpus=2,
            memory=1 << 30,
            resources={"rocket": 1},
            preload=WORKERS_NEED,
        )
    yield shared_engine
    for group, row in placement_group_table().items():
        if row["state"] != "REMOVED":
            remove_placement_group(runtime.PlacementGroup(bytes.fromhex(group), ()))
    wait_until(lambda: runtime.available_resources() == runtime.cluster_resources())


@runtime.remote
def devices():
    return os.environ.get("CUDA_VISIBLE_DEVICES")


@runtime.remote
def current_group():
    return get_current_placement_group()


@runtime.remote
def make_inside():
    return [runtime.put(2)]


@runtime.remote
class Worker:
    def devices(self):
        return os.environ.get("CUDA_VISIBLE_DEVICES")

    def pid(self):
        return os.getpid()

    def group(self):
        return get_current_placement_group()

    def group_of_child(self):
        return runtime.get(current_group.remote())

    def make_group(self, **options):
        return placement_group([{"CPU": 1}], **options)


# Resources ------------------------------------------------------------------------------------------------------------


def test_resources_of_the_cluster_are_listed(engine):
    own = {"CPU": 2, "GPU": 2, "memory": 1 << 30, "rocket": 1}
    assert runtime.cluster_resources() == own | {"node:__internal_head__": 1}


def test_memory_is_a_resource(engine):
    assert runtime.get(devices.options(memory=1 << 29).remote()) == os.environ.get("CUDA_VISIBLE_DEVICES")
    with pytest.raises(runtime.InfeasibleError, match=r"memory 2147483648 \(there are 1073741824\)"):
        devices.options(memory=1 << 31).remote()


def test_misspelt_resource_names_the_nearest(engine):
    with pytest.raises(runtime.InfeasibleError, match=r"rockets 1 \(there are 0. Did you mean 'rocket'\?\)"):
        devices.options(resources={"rockets": 1}).remote()


def test_gpus_beyond_one_are_whole(engine):
    with pytest.raises(runtime.InputError, match=r"num_gpus=1\.5: want a share of one GPU"):
        devices.options(num_gpus=1.5)


def test_amounts_finer_than_the_unit_are_refused(engine):
    with pytest.raises(runtime.InputError, match=r"resources count in steps of 0\.0001"):
        devices.options(num_cpus=0.00005)


# GPUs -----------------------------------------------------------------------------------------------------------------


def test_a_task_sees_the_gpus_that_it_was_given(engine):
    assert runtime.get(devices.options(num_gpus=2).remote()) == "0,1"
    assert runtime.get(devices.options(num_gpus=1).remote()) in ("0", "1")
    assert runtime.get(devices.options(num_gpus=0.5).remote()) in ("0", "1")


def test_without_gpus_the_variable_is_left_alone(engine):
    runtime.get(devices.options(num_gpus=2).remote())
    assert runtime.get(devices.remote()) == os.environ.get("CUDA_VISIBLE_DEVICES")


def test_an_actor_sees_the_gpus_that_it_was_given(engine):
    worker = Worker.options(num_gpus=2).remote()
    assert runtime.get(worker.devices.remote()) == "0,1"


def test_actors_with_a_gpu_each_have_different_ones(engine):
    if engine == "serial":
        pytest.skip("one process: nothing holds a GPU between two calls")
    workers = [Worker.options(num_gpus=1).remote() for _ in range(2)]
    assert sorted(runtime.get([worker.devices.remote() for worker in workers])) == ["0", "1"]


def test_shares_of_a_gpu_go_together(engine):
    if engine == "serial":
        pytest.skip("one process: nothing holds a GPU between two calls")
    workers = [Worker.options(num_gpus=amount).remote() for amount in (0.5, 1, 0.5)]
    first, whole, second = runtime.get([worker.devices.remote() for worker in workers])
    assert first == second != whole


# Placement groups -----------------------------------------------------------------------------------------------------


def test_a_group_is_ready_when_its_bundles_are_reserved(engine):
    group = placement_group([{"CPU": 1}, {"GPU": 1, "memory": 1024}])
    assert runtime.get(group.ready()) == group
    assert group.wait(10)
    assert group.bundle_specs == [{"CPU": 1}, {"GPU": 1, "memory": 1024}]
    assert group.bundle_count == 2
    available = runtime.available_resources()
    assert (available["CPU"], available["GPU"]) == (1, 1)


@pytest.mark.engines("native", "serial", reason="Ray takes long for so many")
def test_a_group_may_have_thousands_of_bundles(engine):
    group = placement_group([{"CPU": 0.0001}] * 8000)
    assert len(runtime.get(group.ready(), timeout=20).bundle_specs) == 8000
    remove_placement_group(group)


def test_removing_a_group_gives_its_bundles_back(engine):
    group = placement_group([{"CPU": 2}])
    assert group.wait()
    remove_placement_group(group)
    wait_until(lambda: runtime.available_resources()["CPU"] == 2)
    remove_placement_group(group)
    assert placement_group_table(group)["state"] == "REMOVED"


def test_tasks_and_actors_run_in_a_group(engine):
    group = placement_group([{"CPU": 1}, {"CPU": 1, "GPU": 1}])
    assert runtime.get(current_group.options(scheduling_strategy=InGroup(group)).remote()) == group
    worker = Worker.options(num_cpus=1, num_gpus=1, scheduling_strategy=InGroup(group, 1)).remote()
    assert runtime.get(worker.group.remote()) == group
    assert runtime.get(worker.devices.remote()) in ("0", "1")
    assert get_current_placement_group() is None
    assert runtime.get(current_group.options(num_cpus=0, scheduling_strategy="SPREAD").remote()) is None


def test_child_tasks_are_captured_only_on_request(engine):
    group = placement_group([{"CPU": 1}])
    free = Worker.options(scheduling_strategy=InGroup(group)).remote()
    captured = Worker.options(scheduling_strategy=InGroup(group, 0, placement_group_capture_child_tasks=True)).remote()
    assert runtime.get(free.group_of_child.remote()) is None
    assert runtime.get(captured.group_of_child.remote()) == group


def test_a_request_that_fits_into_no_bundle_is_refused(engine):
    group = placement_group([{"CPU": 1}, {"CPU": 1}])
    with pytest.raises(
        runtime.InfeasibleError, match=r"CPU 2 \(there are 1\) in any of the 2 bundles of placement group"
    ):
        devices.options(num_cpus=2, scheduling_strategy=InGroup(group)).remote()
    with pytest.raises(runtime.InfeasibleError, match=r"GPU 1 \(there are 0.*in bundle 1"):
        Worker.options(num_gpus=1, scheduling_strategy=InGroup(group, 1)).remote()
    with pytest.raises(runtime.InputError, match=r"placement_group_bundle_index=2: .* has 2 bundles; want 0 to 1"):
        InGroup(group, 2)


@pytest.mark.parametrize(
    ("bundles", "options", "message"),
    [
        ([], {}, r"placement_group\(\[\]\): want a list of bundles"),
        ([{}], {}, "bundle 0 is {}, which reserves nothing"),
        ([{"CPU": 1}, {"CPU": 0}], {}, "bundle 1 is {'CPU': 0}, which reserves nothing"),
        ([{"CPU": 1}, 3], {}, "bundle 1 is 3; want a dict"),
        ([{"CPU": -1}], {}, "bundle 0: CPU=-1: want a number"),
        ([{"CPU": 1}], {"strategy": "PAKC"}, "strategy='PAKC': unknown. Did you mean 'PACK'"),
        ([{"CPU": 1}], {"lifetime": "eternal"}, "lifetime='eternal': want None or 'detached'"),
    ],
)
def test_bad_groups_are_refused(engine, bundles, options, message):
    with pytest.raises(runtime.InputError, match=message):
        placement_group(bundles, **options)


def test_a_group_that_no_node_can_hold_is_refused(engine):
    for bundles, strategy in [
        ([{"CPU": 3}], "PACK"),
        ([{"CPU": 1}] * 2, "STRICT_SPREAD"),
        ([{"GPU": 0.6}] * 3, "SPREAD"),
    ]:
        with pytest.raises(runtime.InfeasibleError, match=r"can never (be reserved on 1 node|run)"):
            placement_group(bundles, strategy)
    assert not [row for row in placement_group_table().values() if row["state"] == "PENDING"]


def test_a_group_is_found_by_its_name(engine):
    group = placement_group([{"CPU": 1}], name="mine")
    found = get_placement_group("mine")
    assert (found, found.bundle_specs) == (group, group.bundle_specs)
    with pytest.raises(runtime.InputError, match="a placement group named 'mine' exists"):
        placement_group([{"CPU": 1}], name="mine")
    with pytest.raises(runtime.InputError, match=r"get_placement_group\('mime'\): .*Did you mean 'mine'\?"):
        get_placement_group("mime")
    remove_placement_group(group)
    assert placement_group([{"CPU": 1}], name="mine") != group


def test_the_table_lists_all_about_a_group(engine):
    group = placement_group([{"CPU": 1}, {"CPU": 0.5}], "STRICT_PACK", name="table")
    assert group.wait()
    row = placement_group_table(group)
    assert row["placement_group_id"] == group.id.hex()
    assert (row["name"], row["strategy"], row["state"]) == ("table", "STRICT_PACK", "CREATED")
    assert row["bundles"] == {0: {"CPU": 1}, 1: {"CPU": 0.5}}
    assert list(row["bundles_to_node_id"]) == [0, 1]
    assert placement_group_table()[group.id.hex()] == row


@pytest.mark.engines("native", "serial", reason="on Ray an actor with restarts left waits for the group to come back")
def test_removing_a_group_kills_its_actors(engine):
    group = placement_group([{"CPU": 1}], name="doomed")
    worker = Worker.options(num_cpus=1, max_restarts=-1, scheduling_strategy=InGroup(group)).remote()
    runtime.get(worker.pid.remote())
    remove_placement_group(group)
    wait_until(lambda: placement_group_table(group)["state"] == "REMOVED")
    with pytest.raises(runtime.ActorDiedError, match="placement group doomed is gone: it was removed"):
        runtime.get(worker.pid.remote())


@pytest.mark.engines("native", "serial", reason="on Ray it waits")
def test_what_is_sent_to_a_removed_group_fails(engine):
    group = placement_group([{"CPU": 1}], name="past")
    remove_placement_group(group)
    with pytest.raises(runtime.PlacementGroupRemovedError, match="placement group past is gone"):
        runtime.get(group.ready())
    with pytest.raises(runtime.PlacementGroupRemovedError, match="placement group past is gone"):
        runtime.get(devices.options(scheduling_strategy=InGroup(group)).remote())


@pytest.mark.engines("native", "serial", reason="Ray has its own words for a node that is not there")
def test_node_affinity(engine):
    with pytest.raises(runtime.InfeasibleError, match="there is no node 'elsewhere'"):
        devices.options(scheduling_strategy=runtime.NodeAffinitySchedulingStrategy("elsewhere", soft=False)).remote()
    runtime.get(devices.options(scheduling_strategy=runtime.NodeAffinitySchedulingStrategy("elsewhere", True)).remote())


# What only processes can show -----------------------------------------------------------------------------------------


def test_a_group_waits_until_all_its_bundles_are_free(processes):
    gate = Gate.remote()
    busy = pass_gate.options(num_cpus=0, resources={"rocket": 1}).remote(gate, 1)
    wait_until(lambda: runtime.available_resources()["rocket"] == 0)
    group = placement_group([{"CPU": 1}, {"rocket": 1}])
    assert not group.wait(0)
    assert placement_group_table(group)["state"] == "PENDING"
    assert runtime.available_resources()["CPU"] == 2, "none of it is reserved before all of it can be"
    inside = current_group.options(scheduling_strategy=InGroup(group)).remote()
    gate.release.remote()
    assert runtime.get(busy) == 1
    assert runtime.get([group.ready(), inside], timeout=20) == [group, group]


def test_tasks_of_a_removed_group_fail(processes):
    gate = Gate.remote()
    group = placement_group([{"CPU": 1}], name="short")
    tasks = [pass_gate.options(scheduling_strategy=InGroup(group)).remote(gate, i) for i in range(3)]
    assert group.wait()
    remove_placement_group(group)
    for task in tasks:
        with pytest.raises(runtime.PlacementGroupRemovedError, match="placement group short is gone: it was removed"):
            runtime.get(task, timeout=20)


def test_groups_go_with_the_actor_that_made_them(processes):
    worker = Worker.remote()
    own = runtime.get(worker.make_group.remote())
    kept = runtime.get(worker.make_group.remote(lifetime="detached"))
    assert own.wait()
    assert kept.wait()
    os.kill(runtime.get(worker.pid.remote()), signal.SIGKILL)
    wait_until(lambda: placement_group_table(own)["state"] == "REMOVED")
    assert "the process that created it is gone" in placement_group_table(own)["reason"]
    assert placement_group_table(kept)["state"] == "CREATED"


def test_groups_that_tasks_make_stay(processes):
    @runtime.remote
    def make():
        return placement_group([{"CPU": 1}]), os.getpid()

    group, pid = runtime.get(make.remote())
    assert group.wait()
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not psutil.pid_exists(pid))
    assert placement_group_table(group)["state"] == "CREATED"


def by_get(refs):
    runtime.get(refs)


def by_wait(refs):
    runtime.wait(refs, num_returns=len(refs))


def by_future(refs):
    for ref in refs:
        ref.future().result()


def by_completion(refs):
    assert len(list(as_completed(refs))) == len(refs)


@pytest.mark.parametrize("read", [by_get, by_wait, by_future, by_completion])
def test_reading_what_exists_lends_no_cpu(engine, tmp_path, read):
    @runtime.remote(num_cpus=2)
    def alone(held):
        read(held)
        mark = tmp_path / "somebody"
        mark.touch(exist_ok=False)
        until = time.monotonic() + 0.02
        while time.monotonic() < until:
            sum(range(1000))
        mark.unlink()

    mine, theirs = runtime.put(1), runtime.get(make_inside.remote())
    runtime.get([alone.remote([mine, *theirs]) for _ in range(6)])


def test_a_request_for_all_cpus_is_not_starved_by_small_ones(processes):
    gate = Gate.remote()

    @runtime.remote
    def small():
        return None

    @runtime.remote(num_cpus=0)
    def stream(gate):
        """Keep both CPUs busy, from another process, until the gate opens."""
        while not runtime.get(gate.is_open.remote()):
            runtime.get([small.remote() for _ in range(50)])

    streaming = stream.remote(gate)
    wait_until(lambda: runtime.available_resources()["CPU"] == 0)
    group = placement_group([{"CPU": 2}])
    assert group.wait(30)
    gate.release.remote()
    remove_placement_group(group)
    runtime.get(streaming, timeout=30)


# Other ways to start --------------------------------------------------------------------------------------------------


def test_infeasible_requests_may_wait(shared_engine, capsys):
    runtime.shutdown()
    if shared_engine == "serial":
        with pytest.raises(runtime.InputError, match=r"infeasible='wait'.* use engine='native'"):
            runtime.init(engine="serial", infeasible="wait")
        return
    runtime.init(engine="native", num_cpus=1, infeasible="wait", preload=WORKERS_NEED)
    refs = [devices.options(num_cpus=2).remote(), placement_group([{"rocket": 1}]).ready()]
    assert runtime.wait(refs, timeout=0) == ([], refs)
    shown = capsys.readouterr().err
    assert "task devices waits for a node that has what it asks for: CPU 2 (there are 1)" in shown
    assert "can never be reserved on 1 node" in shown
    assert runtime.get(devices.remote()) == os.environ.get("CUDA_VISIBLE_DEVICES")
    runtime.shutdown()


def test_gpus_are_those_that_the_driver_may_use(shared_engine, monkeypatch):
    runtime.shutdown()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-abc,5")
    with pytest.raises(
        runtime.InputError, match=r"init\(num_gpus=4\): CUDA_VISIBLE_DEVICES=.* lets this process use 3"
    ):
        runtime.init(engine=shared_engine, num_gpus=4)
    runtime.init(engine=shared_engine, num_cpus=1, num_gpus=2, preload=WORKERS_NEED)
    assert set(runtime.get(devices.options(num_gpus=2).remote()).split(",")) == {"2", "GPU-abc"}
    runtime.shutdown()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_gpus": 0.5}, "a machine has a whole number of GPUs"),
        ({"resources": {"CPU": 1}}, "use num_cpus= for it"),
        ({"memory": -1}, "memory=-1: want a number"),
        ({"infeasible": "hope"}, "infeasible='hope': want 'raise' or 'wait'"),
    ],
)
def test_bad_resources_are_refused(shared_engine, given, message):
    runtime.shutdown()
    with pytest.raises(runtime.InputError, match=message):
        runtime.init(engine=shared_engine, **given)
