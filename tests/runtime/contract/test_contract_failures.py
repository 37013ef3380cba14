"""The contract of exceptions: what is raised in a task or a method is raised by `get`, and nothing else is lost."""

import asyncio
import dataclasses
import os
import time

import numpy as np
import pytest

from shoal import runtime


class Abort(BaseException):
    """What `except Exception` is not meant to catch."""


class Picky(Exception):
    """Passes on to its base less than its constructor wants."""

    def __init__(self, code, *, reason):
        super().__init__(f"code {code}")
        self.code, self.reason = code, reason


class Unpicklable:
    def __init__(self, trouble):
        self.trouble = trouble

    def __reduce__(self):
        raise self.trouble


class Holding(Exception):
    def __init__(self, what):
        super().__init__("it holds something")
        self.what = what


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("it does not say")


@runtime.remote(max_retries=0)
def fail_with(make):
    raise make()


@runtime.remote
class Failing:
    def __init__(self):
        self.calls = 0

    def fail(self, make):
        self.calls += 1
        raise make()

    def count(self):
        return self.calls


@runtime.remote
class AsyncFailing:
    def __init__(self):
        self.calls = 0

    async def fail(self, make):
        self.calls += 1
        await asyncio.sleep(0)
        raise make()

    async def count(self):
        return self.calls


def raised_by(ref):
    with pytest.raises(BaseException) as caught:  # noqa: PT011  # the tests look at what it is
        runtime.get(ref, timeout=10)
    return caught.value


def test_a_group_of_exceptions_arrives_with_its_parts_and_nothing_else_is_lost(engine):
    ref = fail_with.remote(lambda: ExceptionGroup("g", [ValueError(1), ExceptionGroup("inner", [KeyError(2)])]))
    for _ in range(2):
        error = raised_by(ref)
        assert isinstance(error, ExceptionGroup)
        assert [type(part) for part in error.exceptions] == [ValueError, ExceptionGroup]
        assert error.exceptions[1].exceptions[0].args == (2,)
    assert raised_by(Failing.remote().fail.remote(lambda: ExceptionGroup("g", [ValueError(1)]))).message == "g"


@pytest.mark.engines("native", "serial", reason="Ray pickles exceptions as any object")
def test_parts_of_a_group_need_not_suit_their_constructors(engine):
    error = raised_by(fail_with.remote(lambda: ExceptionGroup("g", [Picky(7, reason="test")])))
    [part] = error.exceptions
    assert type(part) is Picky
    assert (part.code, part.reason) == (7, "test")


@pytest.mark.engines("native", "serial", reason="Ray's words for what cannot be pickled")
@pytest.mark.parametrize("trouble", [ValueError("not me"), RuntimeError("not me"), Abort("not me")], ids=repr)
def test_what_cannot_travel_comes_as_a_task_error_that_says_why(engine, trouble):
    actor = Failing.remote()
    for call in (fail_with, actor.fail):
        error = raised_by(call.remote(lambda: Holding(Unpicklable(trouble))))
        assert type(error) is runtime.TaskError
        assert "Holding: it holds something" in error.traceback
        [note] = error.__notes__
        assert note.startswith("The exception itself could not be sent to another process")
        assert f"{type(trouble).__name__}: not me" in note
    assert runtime.get(actor.count.remote()) == 1


@pytest.mark.engines("native", "serial", reason="Ray keeps the type only if it can be pickled")
def test_an_exception_that_has_no_text_travels(engine):
    assert type(raised_by(fail_with.remote(Mute))) is Mute


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int


@pytest.mark.engines("native", "serial", reason="Ray writes on exceptions")
def test_exceptions_that_cannot_be_written_to_arrive(engine):
    @runtime.remote
    def values(fail):
        yield 1
        if fail:
            raise Frozen(2)

    @runtime.remote
    class Maker:
        def __init__(self):
            raise Frozen(3)

        def work(self):
            pass

    actor = Failing.remote()
    assert raised_by(fail_with.remote(lambda: Frozen(1))) == Frozen(1)
    assert raised_by(actor.fail.remote(lambda: Frozen(1))) == Frozen(1)
    *_, last = values.remote(True)
    assert raised_by(last) == Frozen(2)
    assert raised_by(Maker.remote().work.remote()).__cause__ == Frozen(3)


@pytest.mark.parametrize("size", [3, 300_000])
def test_arrays_inside_exceptions_travel(engine, size):
    error = raised_by(fail_with.remote(lambda: Holding(np.arange(size))))
    assert isinstance(error, Holding)
    assert np.array_equal(error.what, np.arange(size))


@pytest.mark.engines("native", "serial", reason="Ray lets exceptions hold references")
def test_a_reference_inside_an_exception_is_the_reason_why_it_cannot_travel(engine):
    error = raised_by(fail_with.remote(lambda: Holding([runtime.put(1)])))
    assert type(error) is runtime.TaskError
    assert "it holds ObjectRef(" in error.__notes__[0]
    assert "Let it hold the value" in error.__notes__[0]


@pytest.mark.engines("native", "serial", reason="stories are ours")
def test_a_story_names_the_type_whatever_the_exception_says(engine):
    ref = fail_with.remote(lambda: ValueError("a\nb: c"))
    raised_by(ref)
    assert "it failed with ValueError" in runtime.story(ref)


any_exception = pytest.mark.parametrize(
    "make",
    [
        lambda: Abort("no"),
        lambda: asyncio.CancelledError("no"),
        lambda: GeneratorExit("no"),
        lambda: BaseExceptionGroup("g", [Abort("no")]),
    ],
    ids=["own", "CancelledError", "GeneratorExit", "group"],
)


@any_exception
def test_any_exception_of_a_task_is_raised_by_get(engine, make):
    assert type(raised_by(fail_with.remote(make))) is type(make())


@any_exception
@pytest.mark.parametrize("concurrency", [1, 2])
def test_an_actor_lives_on_after_any_exception(engine, concurrency, make):
    actor = Failing.options(max_concurrency=concurrency).remote()
    assert type(raised_by(actor.fail.remote(make))) is type(make())
    assert runtime.get(actor.count.remote()) == 1


@any_exception
@pytest.mark.engines("native", "serial", reason="Ray takes a CancelledError for a cancelled call")
def test_an_async_actor_lives_on_after_any_exception(engine, make):
    actor = AsyncFailing.remote()
    assert type(raised_by(actor.fail.remote(make))) is type(make())
    assert runtime.get(actor.count.remote()) == 1


def test_any_exception_of_a_generator_is_its_last_value(engine):
    @runtime.remote(max_retries=0)
    def count():
        yield 0
        raise Abort("no")

    first, last = count.options(num_returns="streaming").remote()
    assert runtime.get(first) == 0
    assert type(raised_by(last)) is Abort


def test_any_exception_of_a_constructor_is_the_cause_of_the_actors_death(engine):
    @runtime.remote
    class Stillborn:
        def __init__(self):
            raise Abort("no")

        def work(self):
            pass

    error = raised_by(Stillborn.remote().work.remote())
    assert type(error) is runtime.ActorDiedError
    assert "its constructor failed" in str(error)


class Trap:
    """Fails where it is rebuilt."""

    def __reduce__(self):
        return _spring, ()


def _spring():
    raise Abort("sprung")


@pytest.mark.engines("native", "serial", reason="Ray keeps only the text of what a constructor raised")
def test_the_cause_of_an_actors_death_is_rebuilt_by_whoever_asks_for_it(engine):
    @runtime.remote
    class Stillborn:
        def __init__(self):
            raise Holding(Trap())

        def work(self):
            pass

    actor = Stillborn.remote()
    for error in [raised_by(actor.work.remote()) for _ in range(2)]:
        assert type(error) is runtime.ActorDiedError
        assert "could not be rebuilt in this process" in error.__cause__.__notes__[0]


@pytest.mark.engines("native", "serial", reason="Ray retries after all of them, and takes no list with them")
@pytest.mark.parametrize(("retried", "runs"), [(True, 1), ([Abort], 3)], ids=["True", "listed"])
def test_what_is_no_exception_class_is_retried_only_if_it_is_listed(engine, tmp_path, retried, runs):
    @runtime.remote(max_retries=2, retry_exceptions=retried)
    def f():
        with open(tmp_path / "runs", "a") as file:
            file.write("x")
        raise Abort("no")

    assert type(raised_by(f.remote())) is Abort
    assert len((tmp_path / "runs").read_text()) == runs


def interrupt():
    return KeyboardInterrupt("Ctrl-C")


@pytest.mark.engines("serial", reason="tasks run in other processes, which Ctrl-C does not reach")
def test_ctrl_c_in_a_task_reaches_the_user_at_once(engine):
    with pytest.raises(KeyboardInterrupt):
        fail_with.remote(interrupt)
    actor = Failing.remote()
    with pytest.raises(KeyboardInterrupt):
        actor.fail.remote(interrupt)
    assert runtime.get(actor.count.remote()) == 1


@pytest.mark.engines("native", reason="Ray takes it for a cancelled task; on the serial engine it is the user's Ctrl-C")
def test_an_interrupt_that_nobody_asked_for_is_an_exception_like_others(engine):
    actor = AsyncFailing.remote()
    for ref in (fail_with.remote(interrupt), actor.fail.remote(interrupt)):
        assert type(raised_by(ref)) is KeyboardInterrupt
    assert runtime.get(actor.count.remote()) == 1


@pytest.mark.engines("native", reason="needs an event loop that turns by itself")
def test_an_event_loop_survives_an_interrupt_of_a_task_of_the_users(engine):
    @runtime.remote
    class Loop:
        async def run(self):
            async def inner():
                raise KeyboardInterrupt

            await asyncio.create_task(inner())

        async def ping(self):
            return "here"

    loop = Loop.remote()
    assert type(raised_by(loop.run.remote())) is KeyboardInterrupt
    assert runtime.get(loop.ping.remote(), timeout=10) == "here"


@runtime.remote(max_retries=0)
def end_once_told(told, fails):
    while not os.path.exists(told):
        time.sleep(0.01)
    if fails:
        raise ValueError("the first of all")
    return 0


@runtime.remote
def one_more(value):
    return value + 1


@runtime.remote
class Counter:
    def one_more(self, value):
        return value + 1


@pytest.mark.engines("native", "serial", reason="Ray takes ten times as long")
@pytest.mark.parametrize("kind", ["tasks", "calls"])
@pytest.mark.parametrize("fails", [True, False])
def test_a_chain_ends_as_its_first_task_does_however_long_it_is(engine, tmp_path, kind, fails):
    told = tmp_path / "told"
    if engine == "serial":
        told.touch()
    last = end_once_told.remote(str(told), fails)
    add = one_more if kind == "tasks" else Counter.remote().one_more
    for _ in range(1000):
        last = add.remote(last)
    told.touch()
    if fails:
        with pytest.raises(ValueError, match="the first of all"):
            runtime.get(last, timeout=30)
    else:
        assert runtime.get(last, timeout=30) == 1000
