"""Exceptions as values: type, fields, notes, causes and traceback survive the way through bytes."""

import errno
import threading

import pytest

from shoal.runtime.exceptions import ActorDiedError, TaskError
from shoal.runtime.failure import is_own, pack_error, pack_exception, type_of_failure, unpack_exception


def travel(error):
    return unpack_exception(pack_exception(error, "f", "node 1, pid 2"))


def raised(function):
    try:
        function()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


class Picky(Exception):
    """Passes on to its base less than its constructor wants, and counts how often that runs."""

    made = 0

    def __init__(self, code, *, reason):
        super().__init__(f"code {code}")
        self.code, self.reason = code, reason
        Picky.made += 1


class Abort(BaseException):
    pass


class Unwilling(Exception):
    def __init__(self, trouble):
        self.trouble = trouble

    def __setstate__(self, state):
        raise RuntimeError("not here")

    def __reduce__(self):
        return _refuse, (self.trouble,)


def _refuse(trouble):
    raise trouble("cannot be rebuilt")


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("it does not say")


def test_type_arguments_and_cause():
    error = travel(raised(lambda: {}["missing"]))
    assert type(error) is KeyError
    assert error.args == ("missing",)
    assert isinstance(error.__cause__, TaskError)
    assert (error.__cause__.task, error.__cause__.where) == ("f", "node 1, pid 2")
    assert "KeyError: 'missing'" in error.__cause__.traceback
    assert error.__notes__ == ["Raised in f (node 1, pid 2)."]


def test_the_constructor_is_not_called_again():
    original = Picky(7, reason="test")
    made = Picky.made
    error = travel(original)
    assert Picky.made == made
    assert type(error) is Picky
    assert (error.code, error.reason, str(error)) == (7, "test", "code 7")


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file", "/nowhere"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        SystemExit(3),
        StopIteration(5),
        ImportError("no module", name="x", path="y"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_fields_of_built_in_exceptions(error):
    other = travel(error)
    assert type(other) is type(error)
    assert str(other) == str(error)
    for name in ("errno", "filename", "object", "code", "value"):
        assert getattr(other, name, None) == getattr(error, name, None)


def test_notes_travel_before_ours():
    original = ValueError("x")
    original.add_note("first")
    assert travel(original).__notes__ == ["first", "Raised in f (node 1, pid 2)."]


def test_what_cannot_be_pickled_becomes_a_task_error():
    original = ValueError("holds a lock")
    original.lock = threading.Lock()
    error = travel(original)
    assert type(error) is TaskError
    assert "ValueError: holds a lock" in str(error)


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (RuntimeError, "RuntimeError: cannot be rebuilt"),
        (Abort, "test_failure.Abort: cannot be rebuilt"),
        (Mute, "test_failure.Mute: <exception str() failed>"),
    ],
)
def test_what_cannot_be_rebuilt_becomes_a_task_error_that_says_why(trouble, words):
    original = ValueError("x")
    original.part = Unwilling(trouble)
    error = travel(original)
    assert type(error) is TaskError
    assert error.__notes__ == [f"The exception itself could not be rebuilt in this process: {words}"]


def test_exceptions_may_hold_each_other():
    original, other = ValueError("one"), KeyError("other")
    original.other, other.other = other, original
    error = travel(original)
    assert type(error) is ValueError
    assert type(error.other) is KeyError
    assert error.other.other.args == ("one",)


def test_the_type_is_known_without_running_code_of_the_users():
    original = ExceptionGroup("a\nb: c", [Unwilling(Abort)])
    packed = pack_exception(original, "f", "here")
    assert type_of_failure(packed) == "ExceptionGroup"
    assert not is_own(packed, ActorDiedError)
    own = pack_error(ActorDiedError("x"), packed)
    assert type_of_failure(own) == "ActorDiedError"
    assert is_own(own, ActorDiedError)


def test_the_remote_traceback_shows_causes():
    def outer():
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner

    text = travel(raised(outer)).__cause__.traceback
    assert text.index("KeyError: 'inner'") < text.index("The above exception") < text.index("ValueError: outer")
    assert "in outer" in text


def test_an_exception_group_travels():
    error = travel(ExceptionGroup("several", [ValueError(1), KeyError(2)]))
    assert type(error) is ExceptionGroup
    assert [type(part) for part in error.exceptions] == [ValueError, KeyError]


def test_our_own_errors_travel_without_a_traceback_and_with_a_given_cause():
    cause = pack_exception(raised(lambda: 1 / 0), "A.__init__", "node 1, pid 2")
    error = unpack_exception(pack_error(ActorDiedError("it is dead"), cause))
    assert type(error) is ActorDiedError
    assert str(error) == "it is dead"
    assert type(error.__cause__) is ZeroDivisionError
    assert unpack_exception(pack_error(ActorDiedError("x"))).__cause__ is None
