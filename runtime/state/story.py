"""The life of a task, an object or an actor, out of what all processes remember."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from ..core.reports.diagnosis import Diagnosis
from ..core.reports.events import ACTOR, AGAIN, BOUNCED, DIED, ENDED, FREED, LOST, PUT, RAN, UP, Event
from ..core.reports.rows import DEFAULT_LIMIT, PROCESS_DIGITS, short_id
from ..core.resources.machine_memory import human_bytes
from ..exceptions import InputError
from . import listings
from .asking import ask, id_text

_MOST_NAMED = 5  # of several things that may be meant
_Line = tuple[float, str]  # Unix seconds, and what happened


def story(what: Any, *, address: str | None = None) -> str:
    """Return the life of a task, an object or an actor: one line for each thing that happened, with its time.

    Every process remembers its last 10 000 events, so long-ended things may be forgotten.

    Args:
        what: a reference, an actor's handle or name, or an id as messages show it (its last digits are enough).
        address: name of the runtime's session; default: that of this process, or else the newest on this machine.

    Raises:
        InputError: nobody knows that id, or several ids end with it.
    """
    return _Teller(Diagnosis(ask(["tasks", "objects", "events"], DEFAULT_LIMIT, address))).tell(id_text(what))


class _Teller:
    """All events with the clock and the pid of whoever noted them, and what became of their things."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        self._diagnosis = diagnosis
        self._events: list[tuple[float, int, Event]] = []
        for node in diagnosis.nodes:
            self._events += [(node.epoch, node.node.pid, event) for event in node.events]
            for process in node.processes:
                self._events += [(node.epoch, process.pid, event) for event in process.events]
        self._names = {key.hex(): f"pid {detail[0]}" for _, _, (_, kind, key, detail) in self._events if kind == UP}

    def _process(self, process: str | bytes | None) -> str:
        known = process.hex() if isinstance(process, bytes) else process or ""
        return self._names.get(known, "a process" if known.strip("0") else "this process")

    def tell(self, text: str) -> str:
        """Return the story of the thing whose id ends with `text`."""
        key = self._find(text)
        if key in self._diagnosis.actors or any(True for _ in self._of(key, ACTOR)):
            lines, title = list(self._actor(key)), f"actor {key}"
        else:
            task = self._task_of(key)
            lines = [*self._object(key), *(self._task(task) if task is not None else ())]
            title = f"object {key}" if task is None else f"task {task}, object {key}"
            if task == key:
                title = f"task and object {key}"
        shown = [f"  {_clock(when)}  {what}" for when, what in sorted(lines, key=lambda line: line[0])]
        return "\n".join([title, *shown])

    def _of(self, key: str, *kinds: str) -> Iterator[tuple[float, int, Event]]:
        wanted = bytes.fromhex(key)
        return (found for found in self._events if found[2][2] == wanted and found[2][1] in kinds)

    def _find(self, text: str) -> str:
        diagnosis = self._diagnosis
        known = {key.hex() for _, _, (_, kind, key, _) in self._events if kind not in (UP, DIED)}
        known.update(diagnosis.tasks, diagnosis.actors)
        known.update(row.object_id for process in diagnosis.processes.values() for row in process.objects)
        named = {row.actor_id for row in listings.actors(diagnosis) if row.name.lower() == text}
        found = named or {key for key in known if key.endswith(text)}  # "ada" may be digits, too
        if not found:
            raise InputError(
                f"nothing is known of {text!r}: it never was, or it is long forgotten. Want an id, its last digits, or "
                "an actor's name, as `shoal list actors` and `shoal list tasks` show them"
            )
        if len(found) > 1:
            several = f"{len(named)} actors are" if named else f"{len(found)} ids end with"
            which = ", ".join(sorted(found)[:_MOST_NAMED])
            raise InputError(f"{several} {text!r}: give more digits of one, such as {which}")
        return found.pop()

    def _task_of(self, object_id: str) -> str | None:
        """Return the task that has made, or will make, an object."""
        living = self._diagnosis.maker(object_id)
        if living is not None:
            return living.task_id
        owner, number = object_id[:PROCESS_DIGITS], int(object_id[PROCESS_DIGITS:], 16)
        for _, _, (_, kind, key, detail) in self._events:
            task = key.hex() if kind == ENDED else ""
            if task.startswith(owner):
                first = int(task[PROCESS_DIGITS:], 16)
                if first <= number < first + max(1, detail[7]):
                    return task
        return None

    def _task(self, task: str) -> Iterator[_Line]:
        owner = self._process(task[:PROCESS_DIGITS])
        row = self._diagnosis.tasks.get(task)
        if row is not None:
            yield (row.creation_time_ms or 0) / 1000, f"{row.name} was submitted by {owner}"
            if row.worker_id:
                yield (row.sent_time_ms or 0) / 1000, f"was sent to {self._process(row.worker_id)}"
        ran = False
        for epoch, pid, (when, kind, _, detail) in self._of(task, RAN, AGAIN, BOUNCED, ENDED):
            at = epoch + when
            if kind == RAN:
                ran = True
                yield epoch + detail[1], f"{detail[0]} began in pid {pid}"
                yield at, f"{detail[0]} ended in pid {pid}, after {_span(when - detail[1])}"
            elif kind == AGAIN:
                yield at, f"was queued again: {detail}"
            elif kind == BOUNCED:
                yield at, f"was given back unstarted by {self._process(detail)}, whose task waits for others"
            else:
                class_name, name, actor, worker, submitted, sent, _, _, error = detail
                name, target = (f"{class_name}.{name}", f" to actor {short_id(actor.hex())}") if actor else (name, "")
                yield epoch + submitted, f"{name} was submitted by {owner}{target}"
                if sent:
                    yield epoch + sent, f"was sent to {self._process(worker)}" if worker else "was sent"
                yield (
                    at,
                    f"its owner, {owner}, learned that "
                    + (f"it failed with {error}" if error else "the result is here"),
                )
        if task in self._diagnosis.executing and not ran:
            process, item = self._diagnosis.executing[task]
            yield item.start_time_ms / 1000, f"{item.name} began in {self._process(process)}"
        if row is not None:
            yield self._now(listings.explained(self._diagnosis, row))

    def _now(self, row: Any) -> _Line:
        return self._diagnosis.now_ms / 1000, f"now: {row.state}" + (f", {row.reason}" if row.reason else "")

    def _object(self, object_id: str) -> Iterator[_Line]:
        owner = self._process(object_id[:PROCESS_DIGITS])
        for epoch, _, (when, kind, _, detail) in self._of(object_id, PUT, LOST, FREED):
            what = {
                PUT: f"{human_bytes(detail or 0)} were put by {owner}",
                LOST: "its owner learned that the value is lost: its block cannot be read any more",
                FREED: "the last reference was gone; the object was freed",
            }
            yield epoch + when, what[kind]
        for row in listings.objects(self._diagnosis):
            if row.object_id == object_id:
                holders = f", borrowed by pid {', '.join(map(str, row.borrowers))}" if row.borrowers else ""
                site = f", made at {row.call_site}" if row.call_site else ""
                size = human_bytes(row.object_size)
                now = f"now: {size} in {row.where}" if row.where != "waiting" else "now: has no value yet"
                what_now = f"{now}, {row.local_references} references in its owner{holders}{site}"
                yield self._diagnosis.now_ms / 1000, what_now

    def _actor(self, key: str) -> Iterator[_Line]:
        for epoch, _, (when, _, _, detail) in self._of(key, ACTOR):
            class_name, state, process, reason = detail
            where = f" in {self._process(process)}" if process and state in ("starting", "alive") else ""
            why = f": {reason}" if reason and state in ("restarting", "dead") else ""
            yield epoch + when, f"{class_name} is {state}{where}{why}"
        yield from (self._now(row) for row in listings.actors(self._diagnosis) if row.actor_id == key)


def _clock(wall: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(wall)) + f".{int(wall % 1 * 1e6):06d}"


def _span(seconds: float) -> str:
    return f"{seconds * 1e3:.3f} ms" if seconds < 1 else f"{seconds:.3f} s"
