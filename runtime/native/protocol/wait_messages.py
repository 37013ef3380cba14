"""About waits that last: which process waits for which, and which waits never end."""

from __future__ import annotations

from ...ids import ObjectId
from .wire import Awaited, Count, Message


class WhoMakes(Message):
    """To an object's owner: which processes have to go on for its value to come?"""

    object: ObjectId


class MadeBy(Message):
    """The answer."""

    object: ObjectId
    by: Awaited


class Waits(Message):
    """To the node: what runs here waits, without limit, for so many of these; `epoch` counts the waits."""

    epoch: int
    what: str
    needed: Count
    awaited: list[Awaited]


class GoesOn(Message):
    """To the node: the wait that was reported last is over."""


class AskWait(Message):
    """From the node: do you still wait, and for which processes?"""

    epoch: int


class Deadlocked(Message):
    """From the node: that wait would last for ever."""

    epoch: int
    reason: str
