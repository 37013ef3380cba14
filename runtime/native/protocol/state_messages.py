"""The part of the protocol by which someone learns what goes on; payloads are `introspection.reports`."""

from __future__ import annotations

import msgspec

from ...ids import ProcessId
from .wire import Count, Message


class AskState(Message):
    """To the node, also from a connection that has not registered: how is everything? See `rows.SECTIONS`.

    The answer comes once all processes have answered or `seconds` are over.
    """

    question: int
    sections: list[str]
    limit: Count
    seconds: float


class ReportState(Message):
    """From the node to a process: what is it that only you know?"""

    question: int
    sections: list[str]
    limit: Count


class StateReport(Message):
    """The process's answer: a packed ProcessReport; `metrics`: it holds some. Unasked (question 0) before it ends."""

    question: int
    payload: bytes
    metrics: bool


class State(Message):
    """The node's answer to AskState: a packed NodeReport, the processes' answers, and those that came too late.

    `others`: if it is the head, what the other nodes answered.
    """

    question: int
    node: bytes
    reports: list[bytes]
    silent: list[ProcessId]
    others: list[State] = msgspec.field(default_factory=list)
