"""The contract of the runtime: lost objects are made again, or say why they cannot be."""

import asyncio
import os
import signal

import numpy as np
import pytest
from conftest import WORKERS_NEED, wait_until
from losses import count_blocks, lose_blocks

from shoal import runtime
from shoal.algorithms import PPO
from shoal.runtime.core.engine import current_engine

BIG = 50_000


@runtime.remote
def make(log, value, count=BIG):
    note(log, "make")
    return np.full(count, value)


@runtime.remote
def double(log, array):
    note(log, "double")
    return array * 2


@runtime.remote
def total(array):
    return int(array.sum())


@runtime.remote
class Holder:
    def __init__(self, array=None):
        self.total = None if array is None else int(array.sum())

    def constructed_with(self):
        return self.total

    def hold(self, refs):
        self.refs = refs

    def total_of(self, array):
        return int(array.sum())

    def total_of_held(self):
        return sum(int(array.sum()) for array in runtime.get(self.refs))

    def make(self, value):
        return np.full(BIG, value)

    def double(self, array):
        return array * 2


def note(log, what):
    with open(log, "a") as file:
        file.write(what + "\n")


def runs(log):
    return log.read_text().split()


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "log"
    path.touch()
    return path


# Made again -----------------------------------------------------------------------------------------------------------


def test_a_lost_object_is_made_again_by_running_its_task_again(shared_native, log):
    ref = make.remote(log, 3)
    assert runtime.get(ref)[0] == 3
    assert lose_blocks() == 1
    assert runtime.get(ref)[-1] == 3
    assert runtime.get(ref)[-1] == 3
    assert runs(log) == ["make"] * 2


def test_what_it_was_made_from_is_made_again_too(shared_native, log):
    ref = double.remote(log, double.remote(log, make.remote(log, 1)))
    assert runtime.get(total.remote(ref)) == 4 * BIG
    wait_until(lambda: count_blocks() == 1)  # arguments that can be made again take no memory
    lose_blocks()
    assert runtime.get(ref)[0] == 4
    assert runs(log) == ["make", "double", "double"] * 2


def test_only_what_is_lost_is_made_again(shared_native, log):
    first = make.remote(log, 1)
    second = double.remote(log, first)
    runtime.get([first, second])
    lose_blocks()
    assert runtime.get(first)[0] == 1
    assert runtime.get(second)[0] == 2
    assert runs(log) == ["make", "double", "make", "double"]


def test_arguments_of_tasks_calls_and_constructors_are_made_again(shared_native, log):
    ref = make.remote(log, 1)
    runtime.wait([ref])
    holder = Holder.remote()
    runtime.get(holder.hold.remote([]))
    for call in (total.remote, holder.total_of.remote, lambda ref: Holder.remote(ref).constructed_with.remote()):
        assert lose_blocks() == 1
        assert runtime.get(call(ref), timeout=30) == BIG
    assert runs(log) == ["make"] * 4


def test_a_borrower_waits_until_the_owner_has_made_it_again(shared_native, log):
    refs = [make.remote(log, 1), make.remote(log, 2)]
    holders = [Holder.remote() for _ in range(3)]
    runtime.get([holder.hold.remote(refs) for holder in holders])
    assert runtime.get(holders[0].total_of_held.remote()) == 3 * BIG
    assert lose_blocks() == 2
    del refs
    assert runtime.get([holder.total_of_held.remote() for holder in holders], timeout=30) == [3 * BIG] * 3
    assert runs(log) == ["make"] * 4


def test_references_inside_an_argument_are_made_again_with_it(shared_native, log):
    @runtime.remote
    def sum_all(log, refs):
        note(log, "sum_all")
        return sum(runtime.get(refs))

    inner = [make.remote(log, 1), make.remote(log, 2)]
    ref = sum_all.remote(log, inner)
    assert runtime.get(ref)[0] == 3
    del inner
    lose_blocks()
    assert runtime.get(ref)[0] == 3
    assert sorted(runs(log)) == ["make"] * 4 + ["sum_all"] * 2


def test_of_several_return_values_the_others_stay_as_they_are(shared_native, log):
    @runtime.remote(num_returns=3)
    def three(log):
        note(log, "three")
        return np.ones(BIG), np.ones(2 * BIG), "small"

    first, second, third = three.remote(log)
    kept = runtime.get(second)
    assert lose_blocks(at_most=8 * BIG) == 1
    assert [len(runtime.get(ref)) for ref in (first, second, third)] == [BIG, 2 * BIG, 5]
    assert runtime.get(second).ctypes.data == kept.ctypes.data
    assert runs(log) == ["three"] * 2


def test_views_of_the_lost_block_stay_valid(shared_native, log):
    ref = make.remote(log, 7)
    array = runtime.get(ref)
    lose_blocks()
    again = runtime.get(ref)
    assert array.ctypes.data != again.ctypes.data
    assert (array == again).all()


def test_await_and_future_wait_for_a_lost_object(shared_native, log):
    async def main(ref):
        return await ref

    ref = make.remote(log, 7)
    runtime.wait([ref])
    lose_blocks()
    assert asyncio.run(main(ref))[0] == 7
    lose_blocks()
    assert ref.future().result(30)[0] == 7


def test_a_future_of_a_lost_object_holds_up_no_other(shared_native, tmp_path):
    gate = tmp_path / "gate"

    @runtime.remote
    def slow_the_second_time(begun):
        if begun.exists():
            wait_until(gate.exists, 30)
        begun.touch()
        return np.zeros(BIG)

    ref = slow_the_second_time.remote(tmp_path / "begun")
    runtime.wait([ref])
    lose_blocks()
    lost = ref.future()
    assert runtime.put(1).future().result(30) == 1
    gate.touch()
    assert len(lost.result(30)) == BIG


def test_a_value_from_put_that_is_needed_to_make_an_object_again_is_kept(shared_native, log):
    @runtime.remote
    def repeat(array):
        return np.tile(array, 2)

    value = runtime.put(np.full(BIG, 5))
    ref = repeat.remote(value)
    runtime.wait([ref])
    del value
    assert lose_blocks(at_least=16 * BIG) == 1
    assert runtime.get(ref)[-1] == 5
    assert lose_blocks() == 2
    with pytest.raises(runtime.ObjectLostError, match="put"):
        runtime.get(ref, timeout=30)


def test_what_an_actors_method_made_is_made_again_if_its_calls_may_be_retried(shared_native):
    holder = Holder.options(max_restarts=1, max_task_retries=1).remote()
    ref = holder.make.remote(4)
    assert runtime.get(ref)[0] == 4
    lose_blocks()
    assert runtime.get(ref, timeout=30)[0] == 4
    lose_blocks()
    with pytest.raises(runtime.ObjectReconstructionFailedError, match="max_task_retries"):
        runtime.get(ref, timeout=30)


def test_calls_that_are_made_again_keep_their_order(shared_native, tmp_path):
    # The later one is made again first: put in front, it would wait for the earlier one, and that one for its turn.
    open_gate = tmp_path / "open"
    open_gate.touch()

    @runtime.remote(max_retries=-1)
    def behind_a_gate():
        wait_until(open_gate.exists)
        return np.full(BIG, 1)

    holder = Holder.options(max_restarts=-1, max_task_retries=-1).remote()
    source = behind_a_gate.remote()
    first = holder.double.remote(source)
    second = holder.double.remote(first)
    assert runtime.get(second)[0] == 4
    open_gate.unlink()
    lose_blocks()
    for ref in (first, second):
        with pytest.raises(runtime.GetTimeoutError):
            runtime.get(ref, timeout=0.2)
    open_gate.touch()
    assert runtime.get(second, timeout=30)[0] == 4


def test_the_story_of_an_object_tells_of_the_loss(shared_native, log):
    ref = make.remote(log, 1)
    runtime.get(ref)
    lose_blocks()
    runtime.get(ref)
    lines = runtime.story(ref)
    assert "its owner learned that the value is lost" in lines
    assert "was queued again: a result of it was lost" in lines


@pytest.mark.slow
def test_objects_are_made_again_while_workers_are_killed(shared_native, log, tmp_path):
    """Losses and crashes together: ten rounds, each loses all blocks and kills a worker that makes them again."""
    hold = tmp_path / "hold"

    @runtime.remote(max_retries=-1)
    def step(log, array):
        note(log, str(os.getpid()))
        if hold.exists():
            signal.pause()
        return np.zeros(BIG) + array + 1

    last = step.remote(log, 0)
    for _ in range(5):
        last = step.remote(log, last)
    for _ in range(10):
        assert runtime.get(last, timeout=60)[0] == 6
        before = len(runs(log))
        hold.touch()
        assert lose_blocks() > 0
        waiting = last.future()
        wait_until(lambda before=before: len(runs(log)) > before)
        hold.unlink()
        os.kill(int(runs(log)[-1]), signal.SIGKILL)
        assert waiting.result(60)[0] == 6


# Not made again -------------------------------------------------------------------------------------------------------


def test_an_object_from_put_says_that_it_cannot_be_made_again(shared_native):
    ref = runtime.put(np.zeros(BIG))
    lose_blocks()
    with pytest.raises(runtime.ObjectLostError, match=r"put in process \d+, so no task can make it again"):
        runtime.get(ref)


def test_what_an_actors_method_made_is_lost_with_it(shared_native):
    ref = Holder.remote().make.remote(1)
    runtime.wait([ref])
    lose_blocks()
    with pytest.raises(runtime.ObjectReconstructionFailedError, match="a method of an actor made it"):
        runtime.get(ref)


def test_an_actor_without_lineage_keeps_nothing_to_make_its_values_again(shared_native):
    holder = Holder.options(max_restarts=1, max_task_retries=1, name="holder", lineage=False).remote()
    for handle in (holder, runtime.get_actor("holder")):
        ref = handle.make.remote(4)
        runtime.wait([ref])
        lose_blocks()
        with pytest.raises(runtime.ObjectReconstructionFailedError, match="lineage=False"):
            runtime.get(ref)
    assert not current_engine().parts.lineage.tasks


@pytest.mark.slow
def test_a_program_that_trains_has_its_own_lost_objects_made_again(log):
    runtime.shutdown()
    with PPO("CartPole-v1", n_envs=8, n_steps=512) as ppo:
        ref = make.remote(log, 3)
        runtime.wait([ref])
        ppo.train(4096)
        assert len(current_engine().parts.lineage.tasks) == 1, "training keeps lineage"
        assert lose_blocks() > 0
        assert runtime.get(ref)[0] == 3
    runtime.shutdown()


@pytest.mark.parametrize("retries", [0, 1])
def test_a_task_is_run_again_no_more_often_than_max_retries(shared_native, log, retries):
    ref = make.options(max_retries=retries).remote(log, 1)
    for _ in range(retries):
        runtime.get(ref)
        lose_blocks()
    runtime.get(ref)
    lose_blocks()
    with pytest.raises(runtime.ObjectReconstructionFailedError, match="max_retries"):
        runtime.get(ref)
    assert len(runs(log)) == 1 + retries


def test_lineage_beyond_max_lineage_bytes_is_dropped_oldest_first(log):
    runtime.shutdown()
    runtime.init(num_cpus=2, preload=WORKERS_NEED, max_lineage_bytes=10_000)
    refs = [make.remote(log, value) for value in range(8)]
    runtime.wait(refs, num_returns=8)
    lose_blocks()
    with pytest.raises(runtime.ObjectReconstructionFailedError, match="max_lineage_bytes"):
        runtime.get(refs[:4])
    assert runtime.get(refs[-1])[0] == 7
    runtime.shutdown()


def test_a_failure_while_it_is_made_again_is_its_value(shared_native, tmp_path):
    @runtime.remote
    def once(marker):
        if marker.exists():
            raise KeyError("the second time")
        marker.touch()
        return np.zeros(BIG)

    ref = once.remote(tmp_path / "marker")
    runtime.wait([ref])
    lose_blocks()
    with pytest.raises(KeyError, match="the second time"):
        runtime.get(total.remote(ref), timeout=30)
    with pytest.raises(KeyError, match="the second time"):
        runtime.get(ref)


def test_lost_arguments_of_the_call_itself_are_reported(shared_native, log):
    ref = double.remote(log, np.ones(BIG))
    runtime.wait([ref])
    assert lose_blocks() == 2, "the arguments are kept to make the result again"
    with pytest.raises(runtime.ObjectLostError, match="its arguments cannot be read"):
        runtime.get(ref, timeout=30)
