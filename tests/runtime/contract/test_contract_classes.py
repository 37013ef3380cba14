"""The contract of classes that are sent with their definition, such as those of a script: values change no class."""

import dataclasses
import enum

import pytest

from shoal import runtime

pytestmark = pytest.mark.engines("native", "serial", reason="Ray's pickler sends classes as cloudpickle does")


def slotted():
    """Return classes with slots, each with a value of it and what its fields are to be."""

    @dataclasses.dataclass(slots=True)
    class Move:
        square: int
        piece: str = "pawn"

    @dataclasses.dataclass(slots=True, frozen=True)
    class Fixed:
        square: int

    class Private:
        __slots__ = ("__dict__", "__hidden", "unset")

        def __init__(self):
            self.__hidden, self.free = 7, 8

        def __eq__(self, other):
            return (self.__hidden, self.free) == (other.__hidden, other.free)

        __hash__ = None

    class One:
        __slots__ = "value"  # noqa: PLC0205  # a single name is allowed, too

        def __init__(self):
            self.value = 3

        def __eq__(self, other):
            return self.value == other.value

        __hash__ = None

    class Two(One):
        __slots__ = ("more",)

        def __init__(self):
            super().__init__()
            self.more = 4

        def __eq__(self, other):
            return self.more == other.more and super().__eq__(other)

        __hash__ = None

    return [Move(5), Fixed(6), Private(), One(), Two()]


@pytest.mark.parametrize("index", range(5))
def test_values_with_slots_arrive(engine, index):
    value = slotted()[index]
    given = type(value)

    @runtime.remote
    def back(value, wrap):
        return [value] if wrap else value

    for wrap in (False, True):
        returned = runtime.get(back.remote(value, wrap))
        one = returned[0] if wrap else returned
        assert type(one) is given
        assert one == value
        assert hasattr(one, "__dict__") == hasattr(value, "__dict__")
    assert runtime.get(runtime.put(value)) == value


def test_reading_a_value_changes_no_class(engine):
    limit = 1

    class Ticket:
        sold = 0

        def sell(self):
            Ticket.sold += 1
            return Ticket.sold

        def limit(self):
            return limit

    class Colour(enum.Enum):
        RED = 1

    Colour.seen = 0

    @runtime.remote
    def made():
        return Ticket(), Colour.RED

    @runtime.remote
    class Booth:
        def sell(self, ticket):
            return ticket.sell()

    runtime.get(made.remote())
    limit, Ticket.sold, Colour.seen = 5, 9, 9
    ticket, colour = runtime.get(made.remote())
    assert (Ticket.sold, Colour.seen, Ticket().limit(), ticket.limit()) == (9, 9, 5, 5)
    assert colour is Colour.RED
    Ticket.sold = 0
    booth = Booth.remote()
    assert [runtime.get(booth.sell.remote(Ticket())) for _ in range(3)] == [1, 2, 3]


def test_code_brings_the_latest_state_of_a_class(engine):
    class Settings:
        rate = 1

    def task():
        return runtime.remote(lambda: Settings.rate)

    assert runtime.get(task().remote()) == 1
    Settings.rate = 2
    assert runtime.get(task().remote()) == 2
