"""Which arrays the C pickler gets alone, and which it must not; what cannot be pickled at all."""

import threading

import numpy as np
import pytest

from shoal.runtime.core.values import serialization
from shoal.runtime.core.values.buffers import is_plain_array
from shoal.runtime.util import deregister_serializer, register_serializer


class Subclass(np.ndarray):
    pass


def read_only() -> np.ndarray:
    array = np.ones(3)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("array", "plain"),
    [
        (np.ones(3), True),
        (np.ones((2, 3), order="F"), True),
        (np.ones((), ">i4"), True),
        (np.empty(0), True),
        (np.ones((4, 4))[::2, ::2], False),
        (read_only(), True),
        (np.ones((0, 3), "c8"), True),
        (np.ones(3).view(Subclass), False),
        (np.zeros(2, "datetime64[s]"), False),
        (np.array([None]), False),
        (np.zeros(2, [("a", int)]), False),
        ([1.0], False),
    ],
)
def test_plain_arrays_and_others_come_out_as_they_went_in(array, plain):
    assert is_plain_array(array) == plain
    stream, buffers, refs = serialization.dump(array)
    back = serialization.loads(stream, [bytes(buffer.raw()) for buffer in buffers])
    np.testing.assert_array_equal(back, array)
    assert type(back) is type(array)
    assert getattr(back, "dtype", None) == getattr(array, "dtype", None)
    assert refs == []


@pytest.mark.parametrize(
    "array", [np.ones((2, 3), order="F"), read_only(), np.array(["ab", "c"]), np.zeros(2, "M8[s]")]
)
def test_a_copy_of_an_array_can_be_written_and_has_the_order_of_the_original(array):
    stream, buffers, _ = serialization.dump(array)
    back = serialization.loads(stream, [bytearray(buffer.raw()) for buffer in buffers])
    assert back.flags.writeable
    assert back.flags.f_contiguous == array.flags.f_contiguous


def test_an_argument_that_is_given_twice_travels_once():
    array = np.ones(3)
    stream, buffers, _ = serialization.dump_arguments((array, 1, array), {"x": array})
    args, kwargs = serialization.loads(stream, [bytes(buffer.raw()) for buffer in buffers])
    assert len(buffers) == 1
    assert args[0] is args[2] is kwargs["x"]


def test_a_serializer_of_arrays_goes_before_their_own_pickling():
    register_serializer(np.ndarray, serializer=len, deserializer=range)
    try:
        assert serialization.loads(serialization.dump(np.ones(3))[0]) == range(3)
    finally:
        deregister_serializer(np.ndarray)


def test_what_cannot_be_sent_is_named_not_what_holds_it():
    lock = threading.Lock()

    def holds():
        return lock

    circle = [lock]
    circle.append(circle)
    for value in (lock, ((1, lock), {}), ((), {"x": [lock]}), circle):
        with pytest.raises(TypeError, match=r"^a _thread.lock cannot be sent to another process"):
            serialization.dumps(value)
    with pytest.raises(TypeError, match=r"^a builtins.function \(.*holds\) cannot be sent"):
        serialization.dumps(((holds,), {}))
