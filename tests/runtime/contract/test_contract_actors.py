"""The contract of actors: how calls run, how actors end, what they know of themselves, names."""

import asyncio
import copy
import sys
import threading

import cloudpickle
import pytest
from conftest import WORKERS_NEED, wait_until

from shoal import runtime
from shoal.runtime.util import list_named_actors


@runtime.remote
def square(x):
    return x * x


@runtime.remote
class Counter:
    def __init__(self, start=0):
        self.value = start

    def increase(self, by=1):
        self.value += by
        return self.value

    def leave(self, code=None):
        if code is None:
            runtime.exit_actor()
        sys.exit(code)


@runtime.remote
class Meeting:
    """An async actor: calls of `meet` end once `expected` of them are there."""

    def __init__(self, expected=2):
        self.expected, self.there, self.begun = expected, 0, []
        self.all_there = asyncio.Event()

    async def meet(self, who=None):
        self.begun.append(who)
        self.there += 1
        if self.there == self.expected:
            self.all_there.set()
        await self.all_there.wait()
        return self.there

    async def double(self, x):
        await asyncio.sleep(0)
        return 2 * x

    async def square_elsewhere(self, x):
        return await square.remote(x)

    async def gather(self, refs):
        return await asyncio.gather(*refs)

    def plain(self):
        return self.begun

    async def fail(self):
        raise ZeroDivisionError("on purpose")

    async def leave(self):
        runtime.exit_actor()

    @runtime.method(num_returns=2)
    async def pair(self):
        return 1, 2


@runtime.remote(max_concurrency=3)
class Barrier:
    """A threaded actor: calls of `meet` end once three of them are there."""

    def __init__(self):
        self.barrier = threading.Barrier(3)

    def meet(self):
        return self.barrier.wait(20) >= 0

    def thread(self):
        return threading.current_thread() is threading.main_thread()


# Async actors ---------------------------------------------------------------------------------------------------------


def test_an_async_method_returns_what_it_returns(engine):
    meeting = Meeting.remote()
    assert runtime.get([meeting.double.remote(i) for i in range(5)]) == [0, 2, 4, 6, 8]
    assert runtime.get(meeting.pair.remote()) == [1, 2]
    assert runtime.get(meeting.plain.remote()) == []


def test_an_async_methods_exception_is_raised_by_get(engine):
    with pytest.raises(ZeroDivisionError, match="on purpose") as caught:
        runtime.get(Meeting.remote().fail.remote())
    assert "Meeting.fail" in str(caught.value.__cause__)


def test_refs_can_be_awaited_inside_async_methods(engine):
    meeting = Meeting.remote()
    assert runtime.get(meeting.square_elsewhere.remote(4)) == 16
    assert runtime.get(meeting.gather.remote([square.remote(i) for i in range(4)])) == [0, 1, 4, 9]


def test_calls_of_an_async_actor_run_at_the_same_time(concurrent):
    meeting = Meeting.remote(50)
    refs = [meeting.meet.remote(i) for i in range(50)]
    assert runtime.get(refs, timeout=20) == [50] * 50


@pytest.mark.engines("native", "serial", reason="Ray begins calls of concurrent actors in any order")
def test_calls_of_an_async_actor_begin_in_order(concurrent):
    meeting = Meeting.remote(50)
    runtime.get([meeting.meet.remote(i) for i in range(50)], timeout=20)
    assert runtime.get(meeting.plain.remote()) == list(range(50))


def test_max_concurrency_limits_an_async_actor(concurrent):
    meeting = Meeting.options(max_concurrency=1).remote(2)
    first, second = meeting.meet.remote(1), meeting.meet.remote(2)
    assert runtime.wait([first, second], num_returns=1, timeout=0.2)[0] == []
    runtime.kill(meeting)


@pytest.mark.engines("native", "serial", reason="Ray writes its own warning to its log")
def test_get_inside_an_async_method_works_and_warns(concurrent):
    @runtime.remote
    class Blocking:
        async def ask(self, box):
            import warnings

            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                value = runtime.get(box[0])
            return value, [str(warning.message) for warning in caught], [w.filename for w in caught]

    gate = Meeting.remote()
    late = gate.meet.remote()
    asked = Blocking.remote().ask.remote([late])
    assert runtime.wait([asked], timeout=0.2)[0] == []
    gate.meet.remote()
    value, messages, files = runtime.get(asked, timeout=20)
    assert value == 2
    assert any("Use `await ref`" in message for message in messages)
    assert files == [__file__] * len(files)


def test_an_async_constructor_may_start_tasks_of_its_own(concurrent):
    @runtime.remote
    class Ticker:
        def __init__(self):
            self.ticks = 0
            self.task = asyncio.create_task(self.tick())

        async def tick(self):
            while True:
                self.ticks += 1
                await asyncio.sleep(0.001)

        async def count(self):
            return self.ticks

    ticker = Ticker.remote()
    wait_until(lambda: runtime.get(ticker.count.remote()) > 3)


def test_async_functions_are_refused_as_tasks(engine):
    with pytest.raises(runtime.InputError, match=r"async def.*actor"):

        @runtime.remote
        async def task():
            pass


def test_a_plain_generator_of_an_async_actor(engine):
    @runtime.remote
    class Mixed:
        def count(self, n):
            yield from range(n)

        async def nothing(self):
            pass

    mixed = Mixed.remote()
    assert [runtime.get(ref) for ref in mixed.count.remote(3)] == [0, 1, 2]


def test_static_and_class_methods_may_yield_and_await(engine):
    @runtime.remote
    class Kinds:
        @staticmethod
        def count(n):
            yield 0
            yield n

        @classmethod
        def named(cls, n):
            for _ in range(n):
                yield cls.__name__

        @staticmethod
        async def double(x):
            return 2 * x

    kinds = Kinds.remote()
    assert [runtime.get(ref) for ref in kinds.count.remote(3)] == [0, 3]
    assert [runtime.get(ref) for ref in kinds.named.remote(1)] == ["Kinds"]
    assert runtime.get(kinds.double.remote(4)) == 8


@pytest.mark.engines("native", "serial", reason="Ray makes instances without arguments")
def test_an_actors_class_may_have_new_instead_of_init(engine):
    @runtime.remote
    class Made:
        def __new__(cls, value):
            made = super().__new__(cls)
            made.value = value
            return made

        def get(self):
            return self.value

    assert runtime.get(Made.remote(3).get.remote()) == 3


# Threaded actors and concurrency groups -------------------------------------------------------------------------------


def test_max_concurrency_runs_methods_in_threads(concurrent):
    barrier = Barrier.remote()
    assert runtime.get([barrier.meet.remote() for _ in range(3)], timeout=20) == [True] * 3


def test_max_concurrency_has_no_effect_where_one_call_runs_at_a_time(engine):
    assert runtime.get(Barrier.remote().thread.remote()) is (engine == "serial")


@runtime.remote(concurrency_groups={"io": 2, "compute": 1})
class Grouped:
    def __init__(self):
        self.pair, self.held = threading.Barrier(2), threading.Event()

    @runtime.method(concurrency_group="io")
    def meet(self):
        return self.pair.wait(20) >= 0

    @runtime.method(concurrency_group="compute")
    def hold(self):
        return self.held.wait(20)

    def release(self):
        self.held.set()


@runtime.remote(concurrency_groups={"io": 2, "compute": 1})
class AsyncGrouped:
    def __init__(self):
        self.there, self.pair, self.held = 0, asyncio.Event(), threading.Event()

    @runtime.method(concurrency_group="io")
    async def meet(self):
        self.there += 1
        if self.there == 2:
            self.pair.set()
        return await self.pair.wait()

    @runtime.method(concurrency_group="compute")
    async def hold(self):
        return await asyncio.to_thread(self.held.wait, 20)  # each group has an event loop of its own

    async def release(self):
        self.held.set()


@pytest.mark.parametrize("cls", [pytest.param(Grouped, id="threads"), pytest.param(AsyncGrouped, id="async")])
def test_concurrency_groups_do_not_wait_for_one_another(concurrent, cls):
    grouped = cls.remote()
    held = [grouped.hold.remote() for _ in range(2)]
    assert runtime.get([grouped.meet.remote() for _ in range(2)], timeout=20) == [True, True]
    in_io = grouped.release.options(concurrency_group="io").remote()
    runtime.get(in_io, timeout=20)
    assert runtime.get(held, timeout=20) == [True, True]


def test_an_unknown_concurrency_group_is_an_error_that_names_the_nearest(engine):
    with pytest.raises(runtime.InputError, match=r"unknown concurrency_group 'ios'. Did you mean 'io'"):

        @runtime.remote(concurrency_groups={"io": 2})
        class Wrong:
            @runtime.method(concurrency_group="ios")
            def f(self):
                pass

    grouped = Grouped.remote()
    with pytest.raises(runtime.InputError, match="Did you mean 'compute'"):
        grouped.meet.options(concurrency_group="compte")
    with pytest.raises(runtime.InputError, match="The actor has none"):
        Counter.remote().increase.options(concurrency_group="io")


# Options of methods and handles ---------------------------------------------------------------------------------------


def test_unknown_options_of_methods_are_errors_that_name_the_nearest(engine):
    counter = Counter.remote()
    with pytest.raises(runtime.InputError, match="Did you mean 'num_returns'"):
        counter.increase.options(num_return=2)
    with pytest.raises(runtime.InputError, match="Did you mean 'max_task_retries'"):
        runtime.method(max_task_retry=2)(about)
    with pytest.raises(runtime.InputError, match="retry_exceptions=3"):
        runtime.method(retry_exceptions=3)(about)


def test_max_pending_calls_refuses_further_calls(concurrent):
    meeting = Meeting.options(max_pending_calls=2).remote(3)
    refs = [meeting.meet.remote() for _ in range(2)]
    with pytest.raises(runtime.PendingCallsLimitExceeded, match=r"Meeting.meet: 2 calls"):
        meeting.meet.remote()
    assert runtime.wait(refs, timeout=0)[0] == []
    runtime.kill(meeting)


def test_handles_are_equal_if_their_actor_is_the_same(engine):
    counter = Counter.remote()
    again = runtime.get(runtime.put([counter]))[0]
    assert again == counter
    assert hash(again) == hash(counter)
    assert again != Counter.remote()
    assert repr(again) == repr(counter)
    assert repr(counter).startswith("ActorHandle(Counter, ")
    assert copy.deepcopy({"counter": counter})["counter"] is counter


def test_a_shell_completes_and_shows_what_is_remote(engine):
    counter = Counter.remote()
    assert {"increase", "remote"} & {*dir(counter)} == {"increase"}
    assert {"increase", "remote", "options"} <= {*dir(Counter)}
    assert (repr(counter.leave), repr(Counter)) == (f"ActorMethod({counter!r}.leave)", "ActorClass(Counter)")
    assert repr(runtime.remote(len)) == "RemoteFunction(len)"


def test_a_handle_may_be_pickled_by_hand_and_keeps_its_actor(engine):
    counter = Counter.remote()
    pickled = cloudpickle.dumps({"counter": counter})
    del counter

    @runtime.remote
    def use(pickled):
        return runtime.get(cloudpickle.loads(pickled)["counter"].increase.remote())

    assert runtime.get([use.remote(pickled), use.remote(pickled)]) in ([1, 2], [2, 1])


@pytest.mark.parametrize("cls", [Counter, Meeting], ids=["one at a time", "async"])
def test_methods_that_every_actor_has(engine, cls):
    actor = cls.options(name=f"any {cls.__name__}", max_restarts=-1).remote(3)
    other = runtime.get_actor(f"any {cls.__name__}")
    assert runtime.get([actor.__ray_ready__.remote(), other.__ray_ready__.remote()]) == [True, True]
    read = actor.__ray_call__.remote(lambda self, *args, **more: (3 in vars(self).values(), args, more), 1, x=2)
    assert runtime.get(read) == (True, (1,), {"x": 2})
    for call in (actor.__ray_terminate__, other.__ray_ready__):
        with pytest.raises(runtime.ActorDiedError, match="exit_actor"):
            runtime.get(call.remote(), timeout=20)


def test_they_are_every_actors_whatever_its_class_has(engine):
    @runtime.remote
    class Proxy:
        def __ray_ready__(self):
            return "warm"

        def __getattr__(self, name):
            return f"no {name}"

    actor = Proxy.remote()
    assert runtime.get(actor.__ray_ready__.remote()) is True
    assert runtime.get(actor.__ray_call__.remote(lambda self: self.anything)) == "no anything"


# Ends -----------------------------------------------------------------------------------------------------------------


def test_exit_actor_ends_the_actor_on_purpose(engine):
    counter = Counter.options(max_restarts=-1).remote()
    with pytest.raises(runtime.ActorDiedError, match=r"exit_actor\(\) was called( in Counter.leave|\..* Ray:)"):
        runtime.get(counter.leave.remote(), timeout=20)
    with pytest.raises(runtime.ActorDiedError, match="exit_actor"):
        runtime.get(counter.increase.remote(), timeout=20)


@pytest.mark.parametrize("cls", [Meeting, Barrier], ids=["async", "threads"])
def test_exit_actor_lets_running_calls_finish(concurrent, cls):
    @runtime.remote(max_concurrency=3, max_restarts=-1)
    class Threaded:
        def __init__(self):
            self.event, self.begun = threading.Event(), threading.Event()

        def hold(self):
            self.begun.set()
            return self.event.wait(20)

        def leave(self):
            self.begun.wait(20)
            threading.Timer(0.05, self.event.set).start()
            runtime.exit_actor()

    @runtime.remote(max_restarts=-1)
    class Async:
        def __init__(self):
            self.event = asyncio.Event()

        async def hold(self):
            return await self.event.wait()

        async def leave(self):
            asyncio.get_running_loop().call_later(0.05, self.event.set)
            runtime.exit_actor()

    actor = (Async if cls is Meeting else Threaded).remote()
    held, left = actor.hold.remote(), actor.leave.remote()
    assert runtime.get(held, timeout=20) is True
    with pytest.raises(runtime.ActorDiedError, match="exit_actor"):
        runtime.get(left, timeout=20)


def test_exit_in_a_constructor_ends_the_actor(engine):
    @runtime.remote(max_restarts=-1)
    class Shy:
        def __init__(self):
            runtime.exit_actor()

        def f(self):
            pass

    with pytest.raises(runtime.ActorDiedError, match=r"exit_actor\(\) was called( in .*Shy.__init__|\..* Ray:)"):
        runtime.get(Shy.remote().f.remote(), timeout=20)


def test_system_exit_0_in_a_method_ends_the_actor_on_purpose(engine):
    with pytest.raises(runtime.ActorDiedError, match="exit code 0"):
        runtime.get(Counter.options(max_restarts=-1).remote().leave.remote(0), timeout=20)


def test_system_exit_with_another_code_counts_as_a_crash(engine):
    counter = Counter.options(max_restarts=1).remote(10)
    assert runtime.get(counter.increase.remote()) == 11
    with pytest.raises(runtime.ActorUnavailableError, match="exit code 3"):
        runtime.get(counter.leave.remote(3), timeout=20)
    assert runtime.get(counter.increase.options(max_task_retries=-1).remote(), timeout=20) == 11
    with pytest.raises(runtime.ActorDiedError, match="exit code 4"):
        runtime.get(counter.leave.remote(4), timeout=20)


def test_system_exit_in_an_async_method_ends_the_actor(concurrent):
    @runtime.remote
    class Leaving:
        async def leave(self, code):
            sys.exit(code)

    for code in (0, 5):
        with pytest.raises(runtime.ActorDiedError):
            runtime.get(Leaving.remote().leave.remote(code), timeout=20)


def test_exit_actor_outside_an_actor_is_an_error(engine):
    with pytest.raises(TypeError, match="belongs to none"):
        runtime.exit_actor()


@pytest.mark.parametrize("cls", [Meeting, Barrier], ids=["async", "threads"])
def test_kill_ends_concurrent_actors_at_once(concurrent, cls):
    actor = cls.remote()
    refs = [actor.meet.remote() for _ in range(1)]
    runtime.kill(actor)
    for ref in refs:
        with pytest.raises(runtime.ActorDiedError, match=r"killed by kill\(\)"):
            runtime.get(ref, timeout=20)


# What code knows of itself --------------------------------------------------------------------------------------------


def about():
    """Return what the runtime's context says."""
    context = runtime.get_runtime_context()
    ids = (context.get_task_id(), context.get_actor_id(), context.get_actor_name())
    return ids, context.get_task_name(), context.get_task_function_name(), context.get()


@runtime.remote
class Introspective:
    def __init__(self):
        self.at_start = about()

    def about(self):
        return about()

    def start(self):
        return self.at_start

    def resources(self):
        return runtime.get_runtime_context().get_assigned_resources()

    def me(self):
        return runtime.get_runtime_context().current_actor

    def again(self):
        return runtime.get_runtime_context().was_current_actor_reconstructed


@runtime.remote
class AsyncIntrospective:
    def __init__(self):
        self.others = asyncio.Event()
        self.there = 0

    async def about(self):
        self.there += 1
        if self.there == 3:
            self.others.set()
        await self.others.wait()
        return about()


def test_a_driver_has_no_task_and_no_actor(engine):
    ids, name, function, all_ids = about()
    assert (ids, name, function) == ((None, None, None), None, None)
    assert set(all_ids) == {"job_id", "node_id", "worker_id", "namespace"}
    with pytest.raises(runtime.ShoalError, match="belongs to no actor"):
        _ = runtime.get_runtime_context().current_actor


def test_a_task_knows_itself(engine):
    task = runtime.remote(about)
    ref = task.remote()
    (task_id, actor_id, _), name, function, ids = runtime.get(ref)
    assert (task_id, actor_id) == (ref.hex(), None)
    assert (name, function.removeprefix(f"{__name__}.")) == ("about", "about")  # Ray names the module, too
    assert ids["job_id"] == runtime.get_runtime_context().get_job_id()
    assert ids["namespace"] == runtime.get_runtime_context().namespace
    assert runtime.get(task.options(name="mine").remote())[1:3] == ("mine", function)


def test_an_actor_knows_itself(engine):
    actor = Introspective.options(name="self-aware").remote()
    ref = actor.about.remote()
    (task_id, actor_id, actor_name), name, function, _ = runtime.get(ref)
    assert actor_name == "self-aware"
    assert name == function.removeprefix(f"{__name__}.") == "Introspective.about"
    assert (task_id, actor_id) != (None, None)
    (start_task, start_actor, _), start_name, *_ = runtime.get(actor.start.remote())
    assert (start_task, start_actor, start_name) == (None, actor_id, "Introspective.__init__")
    assert runtime.get(actor.me.remote()) == actor
    assert runtime.get(actor.about.options(name="named").remote())[1:3] == ("named", function)


def test_each_task_of_an_event_loop_knows_itself(concurrent):
    actor = AsyncIntrospective.remote()
    refs = [actor.about.options(name=f"call{i}").remote() for i in range(3)]
    answers = runtime.get(refs, timeout=20)
    assert [name for _, name, _, _ in answers] == ["call0", "call1", "call2"]
    assert [ids[0] for ids, *_ in answers] == [ref.hex() for ref in refs]


def test_assigned_resources(engine):
    @runtime.remote(num_cpus=2)
    def held():
        return runtime.get_runtime_context().get_assigned_resources()

    assert runtime.get(held.remote()) == {"CPU": 2.0}
    assert runtime.get(Introspective.options(num_cpus=1).remote().resources.remote()) == {"CPU": 1.0}
    assert runtime.get_runtime_context().get_assigned_resources() == {}


def test_an_actor_knows_whether_it_was_made_again(engine):
    actor = Introspective.options(max_restarts=1, max_task_retries=-1).remote()
    assert runtime.get(actor.again.remote()) is False
    runtime.kill(actor, no_restart=False)
    wait_until(lambda: runtime.get(actor.again.remote()))


def test_gpu_ids_are_those_that_were_assigned(engine):
    @runtime.remote
    def gpus():
        return runtime.get_gpu_ids(), runtime.get_runtime_context().get_accelerator_ids()

    assert runtime.get(gpus.remote()) == ([], {"GPU": []})
    runtime.shutdown()
    runtime.init(engine=engine, num_cpus=1, num_gpus=2, preload=WORKERS_NEED)
    numbers, by_kind = runtime.get(gpus.options(num_gpus=2).remote())
    assert numbers == [0, 1]
    assert by_kind == {"GPU": ["0", "1"]}
    assert runtime.get_gpu_ids() == []
    runtime.shutdown()


# Names ----------------------------------------------------------------------------------------------------------------


def test_a_name_belongs_to_its_namespace(engine):
    here = Counter.options(name="counted").remote(1)
    there = Counter.options(name="counted", namespace="there").remote(2)
    assert runtime.get_actor("counted") == here
    assert runtime.get_actor("counted", namespace="there") == there
    with pytest.raises(runtime.InputError, match=r"no living actor has that name in namespace 'nowhere'"):
        runtime.get_actor("counted", namespace="nowhere")
    with pytest.raises(runtime.InputError, match="Did you mean 'counted'"):
        runtime.get_actor("cuonted")


def test_named_actors_are_listed(engine):
    kept = [Counter.options(name="b").remote(), Counter.options(name="a").remote()]
    kept.append(Counter.options(name="c", namespace="there").remote())
    assert list_named_actors() == ["a", "b"]
    assert {"namespace": "there", "name": "c"} in list_named_actors(all_namespaces=True)
    assert len(kept) == 3


def test_tasks_and_actors_see_their_jobs_namespace(engine):
    counter = Counter.options(name="seen").remote(5)

    @runtime.remote
    def find():
        return runtime.get(runtime.get_actor("seen").increase.remote())

    assert runtime.get(find.remote()) == 6
    assert counter is not None


def test_get_if_exists_returns_the_living_one(engine):
    first = Counter.options(name="shared", get_if_exists=True).remote(1)
    second = Counter.options(name="shared", get_if_exists=True).remote(100)
    assert first == second
    assert runtime.get(second.increase.remote()) == 2
    with pytest.raises(runtime.InputError, match="is alive"):
        Counter.options(name="shared").remote()
    with pytest.raises(runtime.InputError, match="Give its name"):
        Counter.options(get_if_exists=True)


def test_creators_that_race_get_one_actor(concurrent):
    @runtime.remote(num_cpus=0)
    class Creator:
        def create(self):
            self.handle = Counter.options(name="raced", get_if_exists=True).remote()
            return runtime.get(self.handle.increase.remote())

    creators = [Creator.remote() for _ in range(4)]
    assert sorted(runtime.get([creator.create.remote() for creator in creators], timeout=20)) == [1, 2, 3, 4]


# Detached actors ------------------------------------------------------------------------------------------------------


def test_a_detached_actor_stays_without_handles(engine):
    Counter.options(name="lasting", lifetime="detached").remote(3)
    assert runtime.get(runtime.get_actor("lasting").increase.remote(), timeout=20) == 4
    assert runtime.get(runtime.get_actor("lasting").increase.remote(), timeout=20) == 5
    runtime.kill(runtime.get_actor("lasting"))
    wait_until(lambda: "lasting" not in list_named_actors())


def test_a_detached_actor_outlives_its_creator_and_comes_back(concurrent):
    @runtime.remote
    class Creator:
        def create(self, start):
            options = Counter.options(name="orphan", lifetime="detached", max_restarts=1, max_task_retries=-1)
            return runtime.get(options.remote(square.remote(start)).increase.remote())

    creator = Creator.remote()
    assert runtime.get(creator.create.remote(3)) == 10
    runtime.kill(creator)
    orphan = runtime.get_actor("orphan")
    assert runtime.get(orphan.increase.remote(), timeout=20) == 11
    runtime.kill(orphan, no_restart=False)
    wait_until(lambda: runtime.get(orphan.increase.options(max_task_retries=-1).remote(0), timeout=20) == 9)
    runtime.kill(orphan)
    wait_until(lambda: "orphan" not in list_named_actors())
    with pytest.raises(runtime.ActorDiedError, match=r"killed by kill\(\)"):
        runtime.get(orphan.increase.remote(), timeout=20)


@pytest.mark.engines("native", "serial", reason="Ray takes such arguments, and they are lost with their owner")
def test_a_detached_actor_refuses_what_would_end_with_its_creator(concurrent):
    with pytest.raises(runtime.InputError, match=r"detached actor Counter.*contain references"):
        Counter.options(lifetime="detached").remote([square.remote(2)])
    actor = Counter.options(lifetime="detached").remote(runtime.put([square.remote(2)]))
    with pytest.raises(runtime.ActorDiedError, match="an argument of its constructor failed"):
        runtime.get(actor.increase.remote(), timeout=20)
