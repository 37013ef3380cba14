"""`shoal status`: what a running program does, and why something waits."""

import contextlib
import json
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table

from ..runtime import InputError, human_bytes, state
from .flags import parse
from .observed import SessionFlags, chosen_session
from .tables import console, plain, table

_SAMPLE_SECONDS = 0.2
_MOST_WAITS = 10
_MOST_GROUPS = 30


@dataclass(frozen=True, kw_only=True)
class StatusFlags:
    """What to show."""

    watch: bool = field(default=False, metadata={"switch": True})
    """Show it again and again, until Ctrl-C."""
    every: float = 2.0
    """With --watch: seconds between two looks."""
    json: bool = field(default=False, metadata={"switch": True})
    """Print one line of JSON."""


def _amount(resource: str, amount: float) -> str:
    return human_bytes(amount) if resource == "memory" else f"{amount:g}"


def run(arguments: Sequence[str]) -> int:
    """Run `shoal status` and return the exit code."""
    about = "Show nodes, processes, tasks and actors of a running program, and why something waits."
    parsed = parse("shoal status", about, {"status": StatusFlags, "program": SessionFlags}, arguments)
    flags: StatusFlags = parsed.build(StatusFlags)
    if flags.every <= 0:
        raise InputError(f"--every is {flags.every:g}, but must be more than 0")
    address = chosen_session(parsed.build(SessionFlags).session)
    before = state.status(address=address)
    time.sleep(_SAMPLE_SECONDS)
    now = state.status(address=address)
    if flags.json:
        print(json.dumps(now, default=msgspec.structs.asdict))
    elif flags.watch:
        _watch(address, before, now, flags.every)
    else:
        console().print(_show(before, now))
    return 0


def _watch(address: str, before: state.RuntimeStatus, now: state.RuntimeStatus, seconds: float) -> None:
    """Show the status until Ctrl-C: in place on a terminal, elsewhere one below the other."""
    screen = console()
    in_place = screen.is_terminal and not screen.is_dumb_terminal
    live = Live(console=screen, screen=True, auto_refresh=False)
    with live if in_place else contextlib.nullcontext():
        while True:
            if in_place:
                live.update(_show(before, now), refresh=True)
            else:
                screen.print(_show(before, now), "")
            time.sleep(seconds)
            before, now = now, state.status(address=address)


def _show(before: state.RuntimeStatus, now: state.RuntimeStatus) -> Group:
    parts: list[RenderableType] = []
    for node in now.nodes:
        if node.state == "DEAD":
            parts += [f"node {node.node_id} on {node.node_name}, pid {node.pid}, is dead", ""]
            continue
        parts.append(f"session {node.session}   node {node.node_id} on {node.node_name}, pid {node.pid}")
        used = "   ".join(
            f"{name} {_amount(name, node.resources_used.get(name, 0))} of {_amount(name, amount)} used"
            for name, amount in node.resources_total.items()
            if not name.startswith("node:")
        )
        parts += [f"resources: {used}", ""]
    parts += [_processes(before, now), ""]
    parts += [_tasks(now.tasks), ""] if now.tasks else ["no task is running or waiting", ""]
    if now.actors:
        parts += [_actors(now.actors), ""]
    memory = f"{human_bytes(now.object_bytes)}, shared memory touched: {human_bytes(now.shared_memory)}"
    parts.append(f"objects: {now.objects}, {memory}")
    parts += [
        f"{gauge.name}{' ' + json.dumps(gauge.tags) if gauge.tags else ''}: {gauge.value:,.15g} (pid {gauge.pid})"
        for gauge in now.gauges
    ]
    for wait in now.waits[:_MOST_WAITS]:
        parts.append(f"pid {wait.pid} ({wait.thread}) has waited {wait.seconds:.0f} s: {wait.reason}")
    silent = [row for row in now.workers if not row.answers]
    parts += [f"pid {row.pid} ({row.title}) did not answer: its GIL is held, or it is stopped" for row in silent]
    return Group(*map(plain, parts))


def _processes(before: state.RuntimeStatus, now: state.RuntimeStatus) -> Table:
    seconds = {row.worker_id: row.cpu_seconds for row in before.workers}
    span = max(now.at_ms - before.at_ms, 1) / 1000
    rows = []
    for row in sorted(now.workers, key=lambda row: row.pid or math.inf):  # the last have none yet
        share = (row.cpu_seconds - seconds.get(row.worker_id, row.cpu_seconds)) / span
        runs = ", ".join(f"{count} × {name}" if count > 1 else name for name, count in Counter(row.executing).items())
        rows.append([str(row.pid or ""), row.title, f"{share:.0%}", human_bytes(row.memory), runs])
    return table(["pid", "process", "CPU", "memory", "runs"], rows, right={0, 2, 3})


def _tasks(groups: Sequence[state.TaskGroup]) -> Table:
    rows = [
        [str(group.count), group.name, group.state, group.waits_for, f"{group.oldest_seconds:.0f} s"]
        for group in groups[:_MOST_GROUPS]
    ]
    if len(groups) > _MOST_GROUPS:
        rest = groups[_MOST_GROUPS:]
        rows.append([str(sum(group.count for group in rest)), f"in {len(rest)} further groups", "", "", ""])
    return table(["tasks", "name", "state", "why", "oldest"], rows, right={0, 4})


def _actors(actors: Sequence[state.ActorState]) -> Table:
    counts = Counter((actor.class_name, actor.state, actor.waits_for) for actor in actors)
    rows = [[str(count), *key] for key, count in counts.most_common(_MOST_GROUPS)]
    return table(["actors", "class", "state", "why"], rows, right={0})
