"""The life of a task, an object or an actor, out of what all processes remember."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from ..exceptions import InputError
from ..refs import short
from ..state import ask, id_text
from .diagnosis import Diagnosis
from .object_rows import human_bytes, object_rows
from .reports import DEFAULT_LIMIT, Event, NodeReport, ProcessReport
from .story_events import ACTOR, AGAIN, BOUNCED, DIED, ENDED, FREED, LOST, PUT, RAN, UP
from .task_rows import actor_rows, task_row

_Line = tuple[float, str]


def story(what: Any, *, address: str | None = None) -> str:
    """Return the life of a task, an object or an actor: one line for each thing that happened, with its time.

    Every process remembers its last 10 000 events, so long-ended things may be forgotten.

    Args:
        what: a reference, an actor's handle, or an id as messages show it (its last digits are enough).
        address: name of the runtime's session; default: that of this process, or else the newest on this machine.

    Raises:
        InputError: nobody knows that id, or several ids end with it.
    """
    return _Teller(Diagnosis(ask(["tasks", "objects", "events"], DEFAULT_LIMIT, address))).tell(id_text(what))


class _Teller:
    """All events, and what became of their things."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        self._diagnosis = diagnosis
        self._names: dict[bytes, str] = {}
        for node in diagnosis.nodes:
            for _, kind, key, detail in node.events:
                if kind == UP:
                    self._names[key] = f"pid {detail[0]}"

    def _events(self) -> Iterator[tuple[Event, NodeReport | ProcessReport]]:
        for node in self._diagnosis.nodes:
            yield from ((event, node) for event in node.events)
        for process in self._diagnosis.processes.values():
            yield from ((event, process) for event in process.events)

    def _process(self, process: bytes | None) -> str:
        return self._names.get(process or b"", "this process" if not any(process or b"") else "a process")

    def tell(self, text: str) -> str:
        """Return the story of the thing whose id ends with `text`."""
        key = self._find(text)
        if key in self._diagnosis.actors or self._is_actor(key):
            lines = list(self._actor(key))
            title = f"actor {key.hex()}"
        else:
            task = self._task_of(key)
            lines = list(self._object(key)) + (list(self._task(task)) if task is not None else [])
            title = f"object {key.hex()}" if task is None else f"task {task.hex()}, object {key.hex()}"
            if task == key:
                title = f"task and object {key.hex()}"
        node = self._diagnosis.nodes[0]
        shown = [f"  {_clock(node.wall_time(when))}  {what}" for when, what in sorted(lines, key=lambda line: line[0])]
        return "\n".join([title, *shown])

    def _find(self, text: str) -> bytes:
        diagnosis = self._diagnosis
        known = {event[2] for event, _ in self._events() if event[1] not in (UP, DIED)}
        known.update(diagnosis.tasks, diagnosis.actors)
        known.update(row.object for process in diagnosis.processes.values() for row in process.objects)
        found = {key for key in known if key.hex().endswith(text)}
        if not found:
            raise InputError(f"nothing is known of {text!r}: it never was, or it is long forgotten")
        if len(found) > 1:
            raise InputError(f"{len(found)} ids end with {text!r}: give more digits")
        return found.pop()

    def _is_actor(self, key: bytes) -> bool:
        return any(event[1] == ACTOR and event[2] == key for event, _ in self._events())

    def _task_of(self, object_id: bytes) -> bytes | None:
        """Return the task that has made, or will make, an object."""
        living = self._diagnosis.maker(object_id)
        if living is not None:
            return living[0].task
        number = int.from_bytes(object_id[8:], "big")
        for (_, kind, task, detail), _ in self._events():
            if kind == ENDED and task[:8] == object_id[:8]:
                first = int.from_bytes(task[8:], "big")
                if first <= number < first + max(1, detail[7]):
                    return task
        return None

    def _task(self, task: bytes) -> Iterator[_Line]:
        ran = False
        for (when, kind, key, detail), teller in self._events():
            if key != task:
                continue
            if kind == RAN and isinstance(teller, ProcessReport):
                ran = True
                yield detail[1], f"{detail[0]} began in pid {teller.pid}"
                yield when, f"{detail[0]} ended in pid {teller.pid}, after {_span(when - detail[1])}"
            elif kind == AGAIN:
                yield when, f"was queued again: {detail}"
            elif kind == BOUNCED:
                yield when, f"was given back unstarted by {self._process(detail)}, whose task waits for others"
            elif kind == ENDED:
                yield from self._ended(when, task, detail)
        if task in self._diagnosis.executing and not ran:
            process, item = self._diagnosis.executing[task]
            yield item.started, f"{item.name} began in {self._process(process)}"
        found = self._diagnosis.tasks.get(task)
        if found is not None:
            row = task_row(self._diagnosis, *found)
            yield found[0].submitted, f"{row.name} was submitted by {self._process(found[1])}"
            if found[0].worker:
                yield found[0].sent, f"was sent to {self._process(found[0].worker)}"
            yield self._diagnosis.now, f"now: {row.state}" + (f", {row.reason}" if row.reason else "")

    def _ended(self, when: float, task: bytes, detail: Any) -> Iterator[_Line]:
        class_name, name, actor, worker, submitted, sent, _, _, error = detail
        who = f"{class_name}.{name}" if actor else name
        yield submitted, f"{who} was submitted by {self._process(task[:8])}" + f" to actor {short(actor)}" * bool(actor)
        if sent:
            yield sent, f"was sent to {self._process(worker)}" if worker else "was sent"
        outcome = f"it failed with {error}" if error else "the result is here"
        yield when, f"its owner, {self._process(task[:8])}, learned that {outcome}"

    def _object(self, object_id: bytes) -> Iterator[_Line]:
        for (when, kind, key, detail), _ in self._events():
            if key == object_id and kind == PUT:
                yield when, f"{human_bytes(detail)} were put by {self._process(object_id[:8])}"
            elif key == object_id and kind == LOST:
                yield when, "its owner learned that the value is lost: its block cannot be read any more"
            elif key == object_id and kind == FREED:
                yield when, "the last reference was gone; the object was freed"
        for row in object_rows(self._diagnosis):
            if row.object_id == object_id.hex():
                holders = f", borrowed by pid {', '.join(map(str, row.borrowers))}" if row.borrowers else ""
                site = f", made at {row.call_site}" if row.call_site else ""
                size = human_bytes(row.object_size)
                now = f"now: {size} in {row.where}" if row.where != "waiting" else "now: has no value yet"
                yield self._diagnosis.now, f"{now}, {row.local_references} references in its owner{holders}{site}"

    def _actor(self, key: bytes) -> Iterator[_Line]:
        for (when, kind, other, detail), _ in self._events():
            if kind == ACTOR and other == key:
                class_name, state, process, reason = detail
                where = f" in {self._process(process)}" if process and state in ("starting", "alive") else ""
                why = f": {reason}" if reason and state in ("restarting", "dead") else ""
                yield when, f"{class_name} is {state}{where}{why}"
        for row in actor_rows(self._diagnosis):
            if row.actor_id == key.hex():
                yield self._diagnosis.now, f"now: {row.state}" + (f", {row.reason}" if row.reason else "")


def _clock(wall: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(wall)) + f".{int(wall % 1 * 1e6):06d}"


def _span(seconds: float) -> str:
    return f"{seconds * 1e3:.3f} ms" if seconds < 1 else f"{seconds:.3f} s"
