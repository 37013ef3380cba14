"""What all the reports together mean: who runs what, and why everything else waits. Pure: reports in, rows out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from ..refs import short
from .reports import (
    ActorReport,
    ExecutingReport,
    GroupReport,
    NodeReport,
    ProcessReport,
    TaskReport,
    WaitReport,
    WorkerReport,
)
from .wants import Shortage, describe_shortage, describe_shortage_in_group

# A reason that leads to a reason, and so on: enough to see what is stuck, short enough to read.
_DEEPEST = 4
_NO_ANSWER = "did not answer: its GIL is held, or it is stopped"


@dataclass(frozen=True)
class Verdict:
    """How a task or actor is: its state, why in full, and why in words that are equal for all of its kind."""

    state: str
    reason: str = ""
    waits_for: str = ""


class Diagnosis:
    """Reports of all nodes, indexed.

    Attributes:
        tasks: rows of tasks with the process that owns each, by id.
        workers, processes: what nodes and processes say of processes, by id.
        executing: which process executes a task.
    """

    def __init__(self, nodes: list[NodeReport]) -> None:
        self.nodes = nodes
        self.now = max((node.now for node in nodes), default=0.0)
        self.workers: dict[bytes, tuple[NodeReport, WorkerReport]] = {}
        self.processes: dict[bytes, ProcessReport] = {}
        self.actors: dict[bytes, tuple[NodeReport, ActorReport]] = {}
        self.tasks: dict[bytes, tuple[TaskReport, bytes]] = {}
        self.starts: dict[bytes, TaskReport] = {}
        self.executing: dict[bytes, tuple[bytes, ExecutingReport]] = {}
        self.silent: set[bytes] = set()
        self._generators: dict[bytes, bytes] = {}
        self._first_sent: dict[bytes, TaskReport] = {}
        self._most_returns = 1
        self._heads: dict[bytes, TaskReport] = {}
        self._shortages: dict[tuple[bytes, tuple[tuple[str, float], ...]], Shortage] = {}
        self._groups: dict[bytes, tuple[NodeReport, GroupReport]] = {}
        self._group_of: dict[bytes, bytes] = {}
        for node in nodes:
            self._add(node)

    def _add(self, node: NodeReport) -> None:
        self.silent.update(node.silent)
        self.workers.update({worker.process: (node, worker) for worker in node.workers})
        self.actors.update({actor.actor: (node, actor) for actor in node.actors})
        self._groups.update({group.group: (node, group) for group in node.groups})
        self._group_of.update({request.actor: request.group for request in node.requests if request.actor})
        for process in node.processes:
            self.processes[process.process] = process
            self.executing.update({item.task: (process.process, item) for item in process.executing})
            self.starts.update({row.actor: row for row in process.groups if row.type == "ACTOR_CREATION_TASK"})
            for row in process.tasks:
                self.tasks[row.task] = (row, process.process)
                self._generators.update(dict.fromkeys(row.promised, row.task))
                self._most_returns = max(self._most_returns, row.num_returns)
                if row.worker:
                    first = self._first_sent.get(row.worker)
                    if first is None or row.sent < first.sent:
                        self._first_sent[row.worker] = row

    # Names ------------------------------------------------------------------------------------------------------

    def node_of(self, process: bytes) -> NodeReport:
        """Return the node of a process; any node if it is not known any more."""
        return self.workers[process][0] if process in self.workers else self.nodes[0]

    def pid(self, process: bytes) -> int | None:
        """Return a process's pid, if it lives and has one yet."""
        found = self.workers.get(process)
        return None if found is None else found[1].pid

    def _process_name(self, process: bytes) -> str:
        if process not in self.workers:
            return "a process that is gone"
        pid = self.pid(process)
        return "a process that is being made" if pid is None else f"pid {pid}"

    def seconds(self, since: float) -> str:
        """Return the text for a time span that began at `since`."""
        return f"{max(0.0, self.now - since):.1f} s"

    # Tasks ------------------------------------------------------------------------------------------------------

    def judge(self, row: TaskReport, owner: bytes, depth: int = 0) -> Verdict:
        """Return the state of a task and the reason why it has not ended."""
        if row.ended:
            return Verdict(row.state)
        if row.task in self.executing:
            return self._running(*self.executing[row.task], depth)
        if row.missing:
            return self._arguments(row, depth)
        if row.state == "SUBMITTED_TO_WORKER":
            return self._sent(row)
        if row.type != "NORMAL_TASK":
            return (self._call if row.type == "ACTOR_TASK" else self._start)(row, depth)
        shortage = self._shortage(row.demand, row.group)
        place = f"; place {row.place} in the queue of {self._process_name(owner)}" if row.place > 1 else ""
        return Verdict(row.state, f"waits for {shortage.full}{place}", f"waits for {shortage.brief}")

    def _running(self, process: bytes, what: ExecutingReport, depth: int) -> Verdict:
        where = f"runs in {self._process_name(process)} since {self.seconds(what.started)}"
        report = self.processes[process]
        waits = [wait for wait in report.waits if wait.since >= what.started]
        if len(report.executing) == 1 and waits:
            inner = self.judge_wait(waits[0], depth + 1)
            return Verdict("RUNNING", f"{where}, where it {inner.reason}", "waits in get or wait")
        if what.untaken:
            some = "1 waits" if what.untaken == 1 else f"{what.untaken} wait"
            reason = "waits until its values are taken"
            return Verdict("RUNNING", f"{where}, where it {reason}: {some}", reason)
        if what.awaits:
            awaited = self.describe_object(what.awaits[0], depth + 1)
            return Verdict("RUNNING", f"{where}, where it awaits {awaited}", "awaits objects")
        return Verdict("RUNNING", where)

    def _arguments(self, row: TaskReport, depth: int) -> Verdict:
        more = f" and {len(row.missing) - 1} more" if len(row.missing) > 1 else ""
        reason = f"waits for its argument {self.describe_object(row.missing[0], depth + 1)}{more}"
        return Verdict(row.state, reason, "waits for its arguments")

    def _sent(self, row: TaskReport) -> Verdict:
        where = self._process_name(row.worker)
        first = self._first_sent.get(row.worker)
        if row.worker in self.silent:
            state = "RUNNING" if first is row else row.state
            return Verdict(
                state,
                f"is in {where}, which did not answer: its GIL is held, or it is stopped",
                "its process does not answer",
            )
        ahead = self.executing_in(row.worker)
        if ahead is None:
            return Verdict(row.state, f"is on its way to {where}", "on its way")
        busy = f"{where} runs {ahead.name} since {self.seconds(ahead.started)}"
        kind = "actor" if row.type == "ACTOR_TASK" else "worker"
        return Verdict(row.state, f"is in the queue of its {kind}: {busy}", f"waits for its {kind} to run it")

    def executing_in(self, process: bytes) -> ExecutingReport | None:
        """Return what a process has been executing for the longest time."""
        report = self.processes.get(process)
        return None if report is None else min(report.executing, key=lambda item: item.started, default=None)

    def _call(self, row: TaskReport, depth: int) -> Verdict:
        found = self.actors.get(row.actor)
        if found is None:
            return Verdict(row.state, "waits to hear from its actor", "waits to hear from its actor")
        actor = found[1]
        if actor.state != "alive":
            verdict = self.judge_actor(actor, depth + 1)
            state = verdict.state.lower().replace("_", " ")
            reason = f"its actor {actor.class_name} ({short(actor.actor)}) is {state}: {verdict.reason}"
            return Verdict(row.state, reason, f"its actor {actor.class_name} is {state}")
        before = self.tasks.get(row.ahead)
        if before is None:
            return Verdict(row.state, "is about to be sent", "on its way")
        first = self._head_of_queue(before[0])
        inner = self.judge(first, before[1], depth + 1) if depth < _DEEPEST else Verdict("")
        calls = "1 earlier call" if row.place == 2 else f"{row.place - 1} earlier calls"
        reason = f"is behind {calls} of its actor; the first, {first.name}, {inner.reason}"
        return Verdict(row.state, reason, f"is behind an earlier call of {actor.class_name}")

    def _head_of_queue(self, row: TaskReport) -> TaskReport:
        passed = []
        while row.ahead in self.tasks and row.task not in self._heads:
            passed.append(row.task)
            row = self.tasks[row.ahead][0]
        head = self._heads.get(row.task, row)
        self._heads.update(dict.fromkeys(passed, head))
        return head

    def _start(self, row: TaskReport, depth: int) -> Verdict:
        found = self.actors.get(row.actor)
        if found is None:
            return Verdict(row.state, "is about to be declared", "on its way")
        verdict = self.judge_actor(found[1], depth)
        return Verdict("RUNNING" if found[1].state == "starting" else row.state, verdict.reason, verdict.waits_for)

    # Actors -----------------------------------------------------------------------------------------------------

    def judge_actor(self, actor: ActorReport, depth: int = 0) -> Verdict:
        """Return the state of an actor, and why it is not alive."""
        if actor.state == "alive":
            return Verdict("ALIVE")
        if actor.state == "dead":
            return Verdict("DEAD", actor.reason)
        state = "RESTARTING" if actor.state == "restarting" else "PENDING_CREATION"
        if actor.state == "starting":
            return Verdict(
                state, f"its constructor runs in {self._process_name(actor.process)}", "runs its constructor"
            )
        start = self.starts.get(actor.actor)
        if start is not None and start.state == "PENDING_ARGS_AVAIL":
            row = self.tasks.get(start.task, (start, b""))[0]
            inner = self._arguments(row, depth) if row.missing else Verdict("", "waits for its arguments")
            return Verdict("DEPENDENCIES_UNREADY", inner.reason, "waits for its arguments")
        shortage = self._shortage(actor.demand, self._group_of.get(actor.actor, b""))
        crash = f" ({actor.reason})" if actor.state == "restarting" and actor.reason else ""
        return Verdict(state, f"waits for {shortage.full}{crash}", f"waits for {shortage.brief}")

    def _shortage(self, demand: dict[str, float], group: bytes) -> Shortage:
        key = group, tuple(demand.items())
        if key not in self._shortages:
            if group in self._groups:
                home, report = self._groups[group]
                found = describe_shortage_in_group(demand, report, home, self._label)
            else:
                found = describe_shortage(demand, self.nodes, self._label)
            self._shortages[key] = found
        return self._shortages[key]

    def _label(self, worker: WorkerReport) -> str:
        """Return what a process that holds resources is, in a word."""
        if worker.actor:
            found = self.actors.get(worker.actor)
            return f"actor {found[1].class_name if found else worker.title}"
        running = self.executing_in(worker.process)
        return running.name if running is not None else "a worker that idles or starts"

    # Objects and waits ------------------------------------------------------------------------------------------

    def maker(self, object_id: bytes) -> tuple[TaskReport, bytes] | None:
        """Return the task that makes an object, if it has not ended."""
        if object_id in self._generators:
            return self.tasks[self._generators[object_id]]
        number = int.from_bytes(object_id[8:], "big")
        for before in range(self._most_returns):
            found = self.tasks.get(object_id[:8] + max(0, number - before).to_bytes(8, "big"))
            if found is not None and before < found[0].num_returns:
                return found
        return None

    def describe_object(self, object_id: bytes, depth: int = 0) -> str:
        """Return a phrase for an object that has no value yet: which one, and what keeps it."""
        what = f"object {short(object_id)}"
        found = self.maker(object_id)
        if found is None:
            owner = object_id[:8]
            return f"{what}, of {self._process_name(owner)}" + ", which did not answer" * (owner in self.silent)
        row, owner = found
        if depth > _DEEPEST:
            return f"{what}, made by {row.name}"
        verdict = self.judge(row, owner, depth + 1)
        return f"{what}, made by {row.name}, which {verdict.reason or verdict.state}"

    def judge_wait(self, wait: WaitReport, depth: int = 0) -> Verdict:
        """Return why a thread waits."""
        if not wait.missing:
            return Verdict("", "is about to go on", "is about to go on")
        some = f"{wait.wanted} of {wait.total} objects, first " if wait.total > 1 else ""
        found = self.maker(wait.missing[0])
        general = self.judge(*found, depth + 1).waits_for if found is not None and depth <= _DEEPEST else ""
        name = found[0].name if found is not None else "an object"
        reason = f"waits for {some}{self.describe_object(wait.missing[0], depth)}"
        return Verdict("", reason, f"waits for {name}" + (f", which {general}" if general else ""))

    # Groups -----------------------------------------------------------------------------------------------------

    def groups(self) -> Iterator[tuple[TaskReport, Verdict]]:
        """Yield the tasks counted by name, state and reason."""
        for owner, process in self.processes.items():
            running: dict[str, list[bytes]] = {}
            for task, (_, item) in self.executing.items():
                if task[:8] == owner:
                    running.setdefault(item.name, []).append(task)
            for group in process.groups:
                yield from self._split(group, running)

    def _split(self, group: TaskReport, running: dict[str, list[bytes]]) -> Iterator[tuple[TaskReport, Verdict]]:
        if group.type == "ACTOR_CREATION_TASK" or group.state == "PENDING_ARGS_AVAIL":
            verdict = self._start(group, 0) if group.type == "ACTOR_CREATION_TASK" else None
            yield group, verdict or Verdict(group.state, "", "waits for its arguments")
        elif group.state == "SUBMITTED_TO_WORKER":
            # An actor's class and method may be shared by several actors, whose groups are apart.
            tasks = running.get(group.name, [])
            mine = [tasks.pop() for _ in range(min(len(tasks), group.count))]
            for waits_for, count in Counter(self._running(*self.executing[task], 0).waits_for for task in mine).items():
                yield _part(group, count), Verdict("RUNNING", "", waits_for)
            if group.count > len(mine):
                whose = "actor" if group.type == "ACTOR_TASK" else "worker"
                verdict = Verdict(group.state, "", f"waits for its {whose} to run it")
                yield _part(group, group.count - len(mine)), verdict
        else:
            yield group, self._queued(group)

    def _queued(self, group: TaskReport) -> Verdict:
        if group.type == "NORMAL_TASK":
            shortage = self._shortage(group.demand, group.group)
            return Verdict(group.state, "", f"waits for {shortage.brief}")
        found = self.actors.get(group.actor)
        if found is not None and found[1].state == "alive":
            return Verdict(group.state, "", f"is behind an earlier call of {found[1].class_name}")
        return self._call(group, 0)


def _part(group: TaskReport, count: int) -> TaskReport:
    return TaskReport(b"", group.name, group.type, group.state, group.submitted, count=count)
