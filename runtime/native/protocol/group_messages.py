"""Process ↔ node about placement groups."""

from __future__ import annotations

from ...ids import GroupId, ProcessId
from .wire import Demand, Message


class CreateGroup(Message):
    """Reserve these bundles, all of them or none; `detached`: for longer than the creator lives."""

    group: GroupId
    bundles: list[Demand]
    strategy: str
    name: str
    detached: bool


class GroupCreated(Message):
    """The answer: why not ("" if it is), and whether that is for want of resources."""

    refusal: str
    infeasible: bool = False


class WatchGroup(Message):
    """Tell me the state of that group, now and whenever it changes."""

    group: GroupId


class GroupState(Message):
    """How a group is: "PENDING", "CREATED" or "REMOVED" (`reason`)."""

    group: GroupId
    state: str
    reason: str = ""


class GroupReserved(Message):
    """Said by a node: all bundles of that group are reserved."""

    group: GroupId


class RemoveGroup(Message):
    """Give back the bundles of that group, and end what runs in it."""

    group: GroupId


class GroupInfo(Message):
    """All about a group; `nodes`: where each bundle is, by the first bytes of its processes' ids."""

    group: GroupId
    name: str
    strategy: str
    state: str
    bundles: list[Demand]
    nodes: list[bytes]
    creator: ProcessId
    reason: str


class AskGroups(Message):
    """Which groups are there?"""


class Groups(Message):
    """The answer to AskGroups."""

    groups: list[GroupInfo]
