"""The contract of what outlives its runtime: nothing takes it for a thing of the next one, or fails without a word."""

import asyncio
import pickle

import pytest
from conftest import WORKERS_NEED

from shoal import runtime
from shoal.runtime.util import as_completed, placement_group, remove_placement_group


@runtime.remote
class Counter:
    def __init__(self, start=0):
        self.value = start

    def increase(self, by=1):
        self.value += by
        return self.value


def start(engine):
    runtime.shutdown()
    runtime.init(engine=engine, num_cpus=2, preload=WORKERS_NEED)


REFERENCES = {
    "an argument": lambda old: old.pass_on.remote(old.ref),
    "inside an argument": lambda old: old.pass_on.remote({"key": [old.ref]}),
    "an argument of a method": lambda old: Counter.remote().increase.remote(old.ref),
    "an argument of a constructor": lambda old: Counter.remote(old.ref),
    "inside what is put": lambda old: runtime.put([old.ref]),
    "captured by a function": lambda old: old.captures.remote(),
    "get": lambda old: runtime.get(old.ref),
    "get of a list": lambda old: runtime.get([runtime.put(1), old.ref]),
    "wait": lambda old: runtime.wait([old.ref]),
    "cancel": lambda old: runtime.cancel(old.ref),
    "future": lambda old: old.ref.future(),
    "await": lambda old: asyncio.run(old.wait()),
    "as_completed": lambda old: list(as_completed([old.ref])),
    "next of a generator": lambda old: next(old.generator),
    "wait for a generator": lambda old: runtime.wait([old.generator]),
    "cancel of a generator": lambda old: runtime.cancel(old.generator),
    "end of a generator": lambda old: old.generator.completed(),
}
HANDLES = {
    "a call": lambda old: old.actor.increase.remote(1),
    "kill": lambda old: runtime.kill(old.actor),
    "kill of a detached one": lambda old: runtime.kill(old.detached),
    "an argument": lambda old: old.pass_on.remote(old.actor),
    "inside what is put": lambda old: runtime.put([old.detached]),
    "a pickle": lambda old: pickle.dumps(old.actor),
}


class OfARuntime:
    """What outlives the runtime that it is of."""

    def __init__(self):
        ref = self.ref = runtime.put("of the first")
        self.pass_on = runtime.remote(lambda value: value)
        self.captures = runtime.remote(lambda: [ref])
        assert runtime.get(runtime.get(self.captures.remote())) == ["of the first"]
        self.generator = runtime.remote(lambda: iter((1, 2))).options(num_returns="streaming").remote()
        self.actor = Counter.remote()
        self.detached = Counter.options(name="outlived", lifetime="detached").remote()
        assert runtime.get(self.actor.increase.remote(1)) == 1

    async def wait(self):
        return await self.ref


def test_what_is_of_an_earlier_runtime_is_refused_wherever_it_is_passed(shared_engine):
    start(shared_engine)
    old = OfARuntime()
    runtime.shutdown()
    for verb in (lambda: runtime.get(old.ref), lambda: runtime.kill(old.actor), old.actor.increase.remote):
        with pytest.raises(runtime.ShoalError, match=r"of a runtime that has been shut down"):
            verb()
        assert not runtime.is_initialized()
    start(shared_engine)
    for verb in REFERENCES.values():
        with pytest.raises(runtime.ObjectLostError, match=r"of a runtime that has been shut down; make .* again"):
            verb(old)
    for verb in HANDLES.values():
        with pytest.raises(runtime.ActorDiedError, match=r"Counter.* is of a runtime that has been shut down"):
            verb(old)
    old.generator.close()
    assert runtime.get(old.pass_on.remote(5)) == 5  # a function is of no runtime


@pytest.mark.engines("native", "serial", reason="on Ray what is sent to such a group waits")
def test_a_placement_group_of_an_earlier_runtime_is_gone(shared_engine):
    start(shared_engine)
    old = placement_group([{"CPU": 1}])
    start(shared_engine)
    new = placement_group([{"CPU": 1}])
    with pytest.raises(runtime.PlacementGroupRemovedError):
        runtime.get(old.ready())
    remove_placement_group(old)
    runtime.get(new.ready())
    in_old = runtime.remote(scheduling_strategy=runtime.PlacementGroupSchedulingStrategy(old))(abs)
    with pytest.raises(runtime.PlacementGroupRemovedError):
        runtime.get(in_old.remote(1))
