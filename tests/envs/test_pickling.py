import functools
import threading

import pytest

from shoal.envs.pickling import unpicklable_member

LOCK = threading.Lock()


class Holder:
    """Module level, so pickled by reference; its instances are not."""

    def __init__(self, value):
        self.value = value


def local_class(lock):
    class Mine:
        def __init__(self):
            self.lock = lock

    return Mine


def local_class_with_attribute(lock):
    class Mine:
        guard = lock

    return Mine


def local_class_using_global():
    names = {"__name__": "__main__", "LOCK": LOCK}
    exec("class Mine:\n    def run(self):\n        return [LOCK for _ in range(2)]\n", names)
    return names["Mine"]


def test_what_can_be_pickled():
    assert unpicklable_member(Holder, "Holder") is None
    assert unpicklable_member(lambda: 3, "f") is None


@pytest.mark.parametrize(
    ("value", "where"),
    [
        (local_class(LOCK), "Mine.__init__, closure variable 'lock' of type _thread.lock"),
        (local_class_with_attribute(LOCK), "Mine.guard of type _thread.lock"),
        (local_class_using_global(), "Mine.run, global variable 'LOCK' of type _thread.lock"),
        (Holder(LOCK), "Mine, attribute 'value' of type _thread.lock"),
        (Holder({"a": [1, LOCK]}), "Mine, attribute 'value'['a'][1] of type _thread.lock"),
        (functools.partial(Holder, LOCK), "Mine, its arguments[0] of type _thread.lock"),
        (lambda lock=LOCK: lock, "Mine, a default argument of type _thread.lock"),
        (LOCK, "Mine of type _thread.lock"),
    ],
)
def test_member_is_named(value, where):
    assert unpicklable_member(value, "Mine") == where


def test_object_that_refuses():
    class Refuses:
        def __reduce__(self):
            raise RuntimeError("no")

    assert unpicklable_member(Holder(Refuses()), "it").startswith("it, attribute 'value' of type test_pickling.")
