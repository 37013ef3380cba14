"""Exceptions as values: type, fields, notes, causes and traceback survive the way through bytes."""

import copyreg
import dataclasses
import errno
import functools
import linecache
import sys
import threading
import types

import numpy as np
import pytest

from shoal.runtime.core.values.packed_exceptions import (
    is_own,
    pack_error,
    pack_exception,
    type_of_failure,
    unpack_exception,
)
from shoal.runtime.exceptions import ActorDiedError, TaskError


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
    assert "f failed (node 1, pid 2)" in str(error.__cause__)


def test_the_constructor_is_not_called_again():
    original = Picky(7, reason="test")
    made = Picky.made
    error = travel(original)
    assert Picky.made == made
    assert type(error) is Picky
    assert (error.code, error.reason, str(error)) == (7, "test", "code 7")


def changed(error, **fields):
    for name, value in fields.items():
        setattr(error, name, value)
    return error


class Located(ImportError):
    """A subclass of one that C code keeps fields of, with a constructor of its own."""

    def __init__(self, line):
        super().__init__(f"line {line}", name="module", path="file")
        self.line = line


class Opened(OSError):
    def __init__(self, path):
        super().__init__(errno.EACCES, "not allowed", path)


class Unspoken(OSError):
    """Does not call its base's constructor."""

    def __init__(self, number):
        self.errno = number


class Undecoded(UnicodeDecodeError):
    def __init__(self, at):
        super().__init__("utf-8", b"abc", at, at + 1, "bad")


def same_fields(one, other):
    names = {name for kind in type(one).__mro__[:-2] for name, it in vars(kind).items() if hasattr(it, "__set__")}
    return {n: (getattr(one, n, None), getattr(other, n, None)) for n in names - {"obj", "__weakref__", "__dict__"}}


@pytest.mark.parametrize(
    "error",
    [
        FileNotFoundError(errno.ENOENT, "No such file", "/nowhere"),
        OSError(errno.EXDEV, "Other device", "/from", None, "/to"),
        BlockingIOError(errno.EAGAIN, "full", 12),
        changed(OSError("no number"), errno=5, filename="later"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"),
        UnicodeEncodeError("ascii", "é", 0, 1, "invalid"),
        UnicodeTranslateError("é", 0, 1, "invalid"),
        SyntaxError("bad", ("file.py", 3, 5, "x = ", 3, 6)),
        changed(SyntaxError("bad"), lineno=7, filename="f.py"),
        SystemExit(3),
        StopIteration(5),
        changed(StopIteration(5), value=6),
        StopAsyncIteration(1),
        ImportError("no module", name="x", path="y"),
        ModuleNotFoundError("no module", name="x.y"),
        changed(NameError("x"), name="x"),
        AttributeError("no y", name="y"),
        KeyError("k"),
        Located(4),
        Opened("/secret"),
        Unspoken(3),
        Undecoded(1),
        np.exceptions.AxisError(3, 2, "prefix"),
        np.exceptions.AxisError("only words"),
    ],
    ids=lambda error: f"{type(error).__name__}-{error}"[:30],
)
def test_fields_outside_of_args(error):
    other = travel(error)
    assert type(other) is type(error)
    assert (str(other), other.args, vars(other)) == (str(error), error.args, vars(error))
    fields = same_fields(error, other)
    assert {name: theirs for name, (_, theirs) in fields.items()} == {name: ours for name, (ours, _) in fields.items()}


@dataclasses.dataclass(frozen=True)
class Frozen(Exception):
    code: int
    more: dict


class Slotted(Exception):
    __slots__ = ("__hidden", "number", "unset")

    def __init__(self, number):
        self.number, self.__hidden = number, -number

    def hidden(self):
        return self.__hidden


class ReadOnly(Exception):
    def __init__(self, code):
        super().__init__(code)
        self.__dict__["code"] = code

    def __setattr__(self, name, value):
        raise TypeError(f"{name} cannot be written")


class OwnWay(Exception):
    def __init__(self, code, *, way="constructor"):
        super().__init__("own way")
        self.code, self.way = code, way

    def __reduce__(self):
        return functools.partial(OwnWay, way="__reduce__"), (self.code,)


class OwnState(Exception):
    def __init__(self):
        super().__init__()
        self.state = "first"

    def __setstate__(self, state):
        self.__dict__["state"] = state["state"] + " and second"


class Registered(Exception):
    pass


copyreg.pickle(Registered, lambda error: (Registered, ("through copyreg",)))


class Several(ExceptionGroup):
    def __new__(cls, errors):
        return super().__new__(cls, f"{len(errors)} errors", errors)

    def __init__(self, errors):
        self.count = len(errors)


def test_exceptions_that_cannot_be_written_to():
    error = travel(raised_from(Frozen(3, {"x": 1})))
    assert (type(error), error, error.more) == (Frozen, Frozen(3, {"x": 1}), {"x": 1})
    error = travel(raised_from(ReadOnly(4)))
    assert (type(error), error.code, type(error.__cause__)) == (ReadOnly, 4, TaskError)


def raised_from(error):
    def fail():
        raise error

    return raised(fail)


def test_slots_travel_private_ones_too():
    error = travel(Slotted(5))
    assert (error.number, error.hidden(), hasattr(error, "unset")) == (5, -5, False)


def test_who_says_how_he_is_pickled_is_pickled_so():
    assert (travel(OwnWay(2)).code, travel(OwnWay(2)).way) == (2, "__reduce__")
    assert travel(OwnState()).state == "first and second"
    assert travel(Registered()).args == ("through copyreg",)


def test_what_is_no_exception_any_more_comes_as_a_task_error():
    class Vanishing(Exception):
        def __reduce__(self):
            return str, ("gone",)

    error = travel(Vanishing())
    assert type(error) is TaskError
    assert "makes a str of it" in error.__notes__[0]


def test_groups_travel_with_all_of_their_exceptions():
    error = travel(Several([ImportError("x", name="n"), Frozen(1, {}), ExceptionGroup("inner", [Slotted(2)])]))
    assert (type(error), error.message, error.count) == (Several, "3 errors", 3)
    assert (error.exceptions[0].name, error.exceptions[1].code) == ("n", 1)
    assert error.exceptions[2].exceptions[0].number == 2


def test_the_object_that_lacked_an_attribute_stays_behind():
    error = travel(raised(lambda: threading.Lock().nothing))
    assert (type(error), error.name) == (AttributeError, "nothing")


def test_notes_travel_and_the_runtime_adds_none():
    original = ValueError("assignment destination is read-only")
    original.add_note("first")
    error = travel(original)
    assert error.__notes__ == ["first"]
    assert "get(ref, copy=True)" in error.__cause__.__notes__[0]


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
        (Abort, "test_packed_exceptions.Abort: cannot be rebuilt"),
        (Mute, "test_packed_exceptions.Mute: <exception str() failed>"),
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


def test_the_remote_traceback_has_the_source_that_only_its_reader_has(monkeypatch):
    cell, said = "/tmp/ipykernel_1/2.py", "def fail():\n    raise ValueError('no')  # the bug\n"
    own = {}
    exec(compile(said, cell, "exec"), own)
    packed = pack_exception(raised(own["fail"]), "f", "node 1, pid 2")
    there = unpack_exception(packed).__cause__.traceback
    monkeypatch.setitem(linecache.cache, cell, (len(said), None, said.splitlines(keepends=True), cell))
    here = unpack_exception(packed).__cause__.traceback
    assert f'"{cell}", line 2, in fail\nValueError' in there
    assert f"\"{cell}\", line 2, in fail\n    raise ValueError('no')  # the bug\nValueError" in here
    assert here.count("function()") == there.count("function()") == 1  # what was there is not written twice


def test_a_module_that_only_this_process_finds_is_told_of(monkeypatch):
    def fail():
        raise ModuleNotFoundError("No module named 'mine'", name="mine.part")

    assert not hasattr(travel(raised(fail)).__cause__, "__notes__")
    monkeypatch.setitem(sys.modules, "mine", types.SimpleNamespace(__file__="/lib/mine/__init__.py"))
    [note] = travel(raised(fail)).__cause__.__notes__
    assert "This process has the module 'mine', from '/lib/mine/__init__.py'" in note
    assert "runtime.preload() has new ones look" in note


def test_our_own_errors_travel_without_a_traceback_and_with_a_given_cause():
    cause = pack_exception(raised(lambda: 1 / 0), "A.__init__", "node 1, pid 2")
    error = unpack_exception(pack_error(ActorDiedError("it is dead"), cause))
    assert type(error) is ActorDiedError
    assert str(error) == "it is dead"
    assert type(error.__cause__) is ZeroDivisionError
    assert unpack_exception(pack_error(ActorDiedError("x"))).__cause__ is None
