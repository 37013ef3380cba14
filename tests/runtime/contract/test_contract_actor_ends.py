"""The contract of how actors end: by themselves, with their last handle, while they restart; and what runs then."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import time

import pytest
from conftest import wait_until

from shoal import runtime


@runtime.remote
class Mortal:
    def __init__(self):
        self.me = runtime.get_runtime_context().current_actor

    def pid(self):
        return os.getpid()

    def leave_and_catch(self):
        try:
            runtime.exit_actor()
        except SystemExit:
            return "caught"


def test_who_catches_the_exit_ends_all_the_same(engine):
    actor = Mortal.options(max_restarts=-1).remote()
    for call in (actor.leave_and_catch, actor.pid):
        with pytest.raises(runtime.ActorDiedError, match="exit_actor"):
            runtime.get(call.remote(), timeout=20)


@pytest.mark.engines("serial", reason="there such a call waits")
def test_a_call_while_its_actor_is_being_made_finds_none(engine):
    @runtime.remote
    class Impatient:
        def __init__(self):
            try:
                runtime.get(runtime.get_actor("impatient").told.remote())
            except runtime.ActorUnavailableError as error:
                self.error = str(error)

        def told(self):
            return self.error

    actor = Impatient.options(name="impatient").remote()
    assert runtime.get(actor.told.remote()).startswith("Impatient.told: the actor is being made")


def test_exit_actor_ends_a_loop_beside_it(concurrent):
    @runtime.remote
    class Looping:
        async def loop(self):
            while True:
                await asyncio.sleep(1)

        async def leave(self):
            runtime.exit_actor()

    actor = Looping.remote()
    looping = actor.loop.remote()
    for ref in (actor.leave.remote(), looping):
        with pytest.raises(runtime.ActorDiedError, match="exit_actor"):
            runtime.get(ref, timeout=20)


def test_handles_by_name_and_an_actors_own_do_not_keep_it(engine):
    actor = Mortal.options(name="mortal").remote()
    pid = runtime.get(actor.pid.remote())
    found = runtime.get_actor("mortal")
    assert found == actor
    assert runtime.get(found.pid.remote()) == pid
    del actor
    wait_until(lambda: _is_dead(found))
    with pytest.raises(runtime.InputError, match="no living actor"):
        runtime.get_actor("mortal")


def _is_dead(actor):
    try:
        runtime.get(actor.pid.remote(), timeout=20)
    except runtime.ActorDiedError:
        return True
    return False


@pytest.mark.engines("native", "serial", reason="Ray's get_if_exists gives weak handles, too")
def test_a_handle_from_get_if_exists_keeps_the_actor(engine):
    actor = Mortal.options(name="kept", get_if_exists=True).remote()
    other = Mortal.options(name="kept", get_if_exists=True).remote()
    pid = runtime.get(actor.pid.remote())
    del actor
    assert runtime.get(other.pid.remote()) == pid


class Writing:
    def __init__(self, path):
        self.path = path

    def ready(self):
        return True

    def leave(self):
        runtime.exit_actor()

    def __ray_shutdown__(self):
        with open(self.path, "a") as file:
            file.write("shut down\n")


class AsyncWriting(Writing):
    async def __ray_shutdown__(self):
        super().__ray_shutdown__()


@pytest.mark.parametrize("cls", [Writing, AsyncWriting])
@pytest.mark.parametrize("leaves", [False, True])
def test_an_actor_that_ends_on_purpose_is_told(engine, tmp_path, cls, leaves):
    def use():
        actor = runtime.remote(cls).remote(tmp_path / "log")
        assert runtime.get(actor.ready.remote())
        assert not leaves or _raises(actor.leave.remote())

    use()
    runtime.put(None)  # the serial engine looks for handles that are gone when it is called
    wait_until((tmp_path / "log").exists)
    wait_until(lambda: (tmp_path / "log").read_text() == "shut down\n")


def test_an_actor_that_is_killed_is_not_told(engine, tmp_path):
    actor = runtime.remote(Writing).remote(tmp_path / "log")
    runtime.get(actor.ready.remote())
    runtime.kill(actor)
    wait_until(lambda: _raises(actor.ready.remote()))
    assert not (tmp_path / "log").exists()


def _raises(ref):
    try:
        runtime.get(ref, timeout=20)
    except runtime.ActorDiedError:
        return True
    return False


def test_an_attribute_named_like_a_method_does_not_hide_it(engine):
    @runtime.remote
    class Counter:
        def __init__(self):
            self.value, self.kind, self.twice = 3, 4, 5

        def value(self):
            return self.value

        @classmethod
        def kind(cls):
            return cls.__name__

        @staticmethod
        def twice(x):
            return 2 * x

    actor = Counter.remote()
    assert runtime.get([actor.value.remote(), actor.kind.remote(), actor.twice.remote(4)]) == [3, "Counter", 8]


def _interrupt_a_child(number):
    child = subprocess.Popen(["sleep", "30"])
    child.send_signal(number)
    try:
        return child.wait(5)
    finally:
        child.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_programs_that_tasks_start_can_be_interrupted(engine, number):
    @runtime.remote
    class Holder:
        def interrupt(self, number):
            return _interrupt_a_child(number)

    assert runtime.get(runtime.remote(_interrupt_a_child).remote(number)) == -number
    assert runtime.get(Holder.remote().interrupt.remote(number)) == -number


def _say_and_sleep(begun):
    begun.send(True)
    time.sleep(30)


def test_processes_that_tasks_fork_can_be_interrupted(processes):
    @runtime.remote
    def forked():
        context = multiprocessing.get_context("fork")
        here, there = context.Pipe()
        child = context.Process(target=_say_and_sleep, args=(there,))
        child.start()
        here.recv()
        os.kill(child.pid, signal.SIGINT)
        child.join(10)
        return child.exitcode

    assert runtime.get(forked.remote(), timeout=20) == 1  # of a KeyboardInterrupt that nobody catches
