"""The contract of exceptions: what is raised in a task or a method is raised by `get`, and nothing else is lost."""

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
