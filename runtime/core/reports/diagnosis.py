"""What all the reports together mean: who runs what, and why everything else waits. Pure: rows in, words out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from msgspec.structs import replace

from .rows import (
    PROCESS_DIGITS,
    ActorState,
    ExecutionState,
    NodeReport,
    PlacementGroupState,
    ProcessReport,
    TaskState,
    WaitState,
    WorkerState,
    short_id,
)
from .wants import Shortage, describe_shortage, describe_shortage_in_group

# A reason that leads to a reason, and so on: enough to see what is stuck, short enough to read.
_DEEPEST = 4
NO_ANSWER = "did not answer: its GIL is held, or it is stopped"


class Verdict(NamedTuple):
    """How a task or actor is: its state, why in full, and why in words that are equal for all of its kind."""

    state: str
    reason: str = ""
    waits_for: str = ""


class Diagnosis:
    """Reports of all nodes, indexed by id.

    Attributes:
        now_ms: when they were asked.
        workers, actors, tasks: rows, as those who know them filled them in.
        processes: what processes say.
        executing: which process executes a task, and since when.
        silent: processes that did not answer.
    """

    def __init__(self, nodes: list[NodeReport]) -> None:
        self.nodes = nodes
        self.now_ms = max((node.now_ms for node in nodes), default=0)
        self.workers: dict[str, WorkerState] = {}
        self.processes: dict[str, ProcessReport] = {}
        self.actors: dict[str, ActorState] = {}
        self.tasks: dict[str, TaskState] = {}
        self.executing: dict[str, tuple[str, ExecutionState]] = {}
        self.silent: set[str] = set()
        self._starts: dict[str | None, TaskState] = {}
        self._generators: dict[str, str] = {}
        self._first_sent: dict[str, TaskState] = {}
        self._most_returns = 1
        self._heads: dict[str, TaskState] = {}
        self._shortages: dict[tuple[str | None, tuple[tuple[str, float], ...]], Shortage] = {}
        self._groups: dict[str, tuple[NodeReport, PlacementGroupState]] = {}
        self._group_of: dict[str | None, str | None] = {}
        for node in nodes:
            self._add(node)

    def _add(self, node: NodeReport) -> None:
        self.silent.update(node.silent)
        self.workers.update({worker.worker_id: worker for worker in node.workers})
        self.actors.update({actor.actor_id: actor for actor in node.actors})
        self._groups.update({group.placement_group_id: (node, group) for group in node.groups})
        self._group_of.update({row.actor_id: row.placement_group_id for row in node.requests})
        for process in node.processes:
            self.processes[process.process_id] = process
            self.executing.update({item.task_id: (process.process_id, item) for item in process.executing})
            self._starts.update({row.actor_id: row for row in process.counted if row.type == "ACTOR_CREATION_TASK"})
            for row in process.tasks:
                self.tasks[row.task_id] = row
                self._generators.update(dict.fromkeys(row.promised, row.task_id))
                self._most_returns = max(self._most_returns, row.num_returns)
                if row.worker_id:
                    first = self._first_sent.get(row.worker_id)
                    if first is None or (row.sent_time_ms or 0) < (first.sent_time_ms or 0):
                        self._first_sent[row.worker_id] = row

    # Names ------------------------------------------------------------------------------------------------------

    def pid(self, process: str | None) -> int | None:
        """Return a process's pid, if it lives and has one yet."""
        found = self.workers.get(process or "")
        return None if found is None else found.pid

    def _process_name(self, process: str | None) -> str:
        if process not in self.workers:
            return "a process that is gone"
        pid = self.pid(process)
        return "a process that is being made" if pid is None else f"pid {pid}"

    def seconds(self, since_ms: int) -> str:
        """Return the text for a time span that began at `since_ms`."""
        return f"{max(0, self.now_ms - since_ms) / 1000:.1f} s"

    # Tasks ------------------------------------------------------------------------------------------------------

    def judge(self, row: TaskState, depth: int = 0) -> Verdict:
        """Return the state of a task and the reason why it has not ended."""
        if row.end_time_ms:
            return Verdict(row.state)
        if row.task_id in self.executing:
            return self._running(*self.executing[row.task_id], depth)
        if row.missing_arguments:
            return self._arguments(row, depth)
        if row.state == "SUBMITTED_TO_WORKER":
            return self._sent(row)
        if row.type != "NORMAL_TASK":
            return (self._call if row.type == "ACTOR_TASK" else self._start)(row, depth)
        shortage = self._shortage(row.required_resources, row.placement_group_id)
        owner = self._process_name(row.task_id[:PROCESS_DIGITS])
        place = f"; place {row.queue_place} in the queue of {owner}" if row.queue_place > 1 else ""
        return Verdict(row.state, f"waits for {shortage.full}{place}", f"waits for {shortage.brief}")

    def _running(self, process: str, what: ExecutionState, depth: int) -> Verdict:
        where = f"runs in {self._process_name(process)} since {self.seconds(what.start_time_ms)}"
        report = self.processes[process]
        waits = [wait for wait in report.waits if wait.since_ms >= what.start_time_ms]
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

    def _arguments(self, row: TaskState, depth: int) -> Verdict:
        missing = row.missing_arguments
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        reason = f"waits for its argument {self.describe_object(missing[0], depth + 1)}{more}"
        return Verdict(row.state, reason, "waits for its arguments")

    def _sent(self, row: TaskState) -> Verdict:
        worker = row.worker_id or ""
        where = self._process_name(worker)
        if worker in self.silent:
            state = "RUNNING" if self._first_sent.get(worker) is row else row.state
            return Verdict(state, f"is in {where}, which {NO_ANSWER}", "its process does not answer")
        ahead = self.executing_in(worker)
        if ahead is None:
            return Verdict(row.state, f"is on its way to {where}", "on its way")
        busy = f"{where} runs {ahead.name} since {self.seconds(ahead.start_time_ms)}"
        kind = "actor" if row.type == "ACTOR_TASK" else "worker"
        return Verdict(row.state, f"is in the queue of its {kind}: {busy}", f"waits for its {kind} to run it")

    def executing_in(self, process: str) -> ExecutionState | None:
        """Return what a process has been executing for the longest time."""
        report = self.processes.get(process)
        return None if report is None else min(report.executing, key=lambda item: item.start_time_ms, default=None)

    def _call(self, row: TaskState, depth: int) -> Verdict:
        actor = self.actors.get(row.actor_id or "")
        if actor is None:
            return Verdict(row.state, "waits to hear from its actor", "waits to hear from its actor")
        if actor.state != "ALIVE":
            verdict = self.judge_actor(actor, depth + 1)
            state = verdict.state.lower().replace("_", " ")
            reason = f"its actor {actor.class_name} ({short_id(actor.actor_id)}) is {state}: {verdict.reason}"
            return Verdict(row.state, reason, f"its actor {actor.class_name} is {state}")
        before = self.tasks.get(row.behind or "")
        if before is None:
            return Verdict(row.state, "is about to be sent", "on its way")
        first = self._head_of_queue(before)
        inner = self.judge(first, depth + 1) if depth < _DEEPEST else Verdict("")
        calls = "1 earlier call" if row.queue_place == 2 else f"{row.queue_place - 1} earlier calls"
        reason = f"is behind {calls} of its actor; the first, {first.name}, {inner.reason}"
        return Verdict(row.state, reason, f"is behind an earlier call of {actor.class_name}")

    def _head_of_queue(self, row: TaskState) -> TaskState:
        passed = []
        while row.behind in self.tasks and row.task_id not in self._heads:
            passed.append(row.task_id)
            row = self.tasks[row.behind]
        head = self._heads.get(row.task_id, row)
        self._heads.update(dict.fromkeys(passed, head))
        return head

    def _start(self, row: TaskState, depth: int) -> Verdict:
        actor = self.actors.get(row.actor_id or "")
        if actor is None:
            return Verdict(row.state, "is about to be declared", "on its way")
        verdict = self.judge_actor(actor, depth)
        return Verdict("RUNNING" if actor.constructing else row.state, verdict.reason, verdict.waits_for)

    # Actors -----------------------------------------------------------------------------------------------------

    def judge_actor(self, actor: ActorState, depth: int = 0) -> Verdict:
        """Return the state of an actor, and why it is not alive."""
        if actor.state in ("ALIVE", "DEAD"):
            return Verdict(actor.state, actor.reason if actor.state == "DEAD" else "")
        if actor.constructing:
            where = self._process_name(actor.worker_id)
            return Verdict(actor.state, f"its constructor runs in {where}", "runs its constructor")
        start = self._starts.get(actor.actor_id)
        if start is not None and start.state == "PENDING_ARGS_AVAIL":
            row = self.tasks.get(start.task_id, start)
            inner = self._arguments(row, depth) if row.missing_arguments else Verdict("", "waits for its arguments")
            return Verdict("DEPENDENCIES_UNREADY", inner.reason, "waits for its arguments")
        shortage = self._shortage(actor.required_resources, self._group_of.get(actor.actor_id))
        crash = f" ({actor.reason})" if actor.state == "RESTARTING" and actor.reason else ""
        return Verdict(actor.state, f"waits for {shortage.full}{crash}", f"waits for {shortage.brief}")

    def _shortage(self, demand: dict[str, float], group: str | None) -> Shortage:
        key = group, tuple(demand.items())
        if key not in self._shortages:
            if group in self._groups:
                home, row = self._groups[group]
                found = describe_shortage_in_group(demand, row, home, self._label)
            else:
                found = describe_shortage(demand, self.nodes, self._label)
            self._shortages[key] = found
        return self._shortages[key]

    def _label(self, worker: WorkerState) -> str:
        """Return what a process that holds resources is, in a word."""
        if worker.actor_id:
            found = self.actors.get(worker.actor_id)
            return f"actor {found.class_name if found else worker.title}"
        running = self.executing_in(worker.worker_id)
        return running.name if running is not None else "a worker that idles or starts"

    # Objects and waits ------------------------------------------------------------------------------------------

    def maker(self, object_id: str) -> TaskState | None:
        """Return the task that makes an object, if it has not ended."""
        if object_id in self._generators:
            return self.tasks[self._generators[object_id]]
        owner, number = object_id[:PROCESS_DIGITS], int(object_id[PROCESS_DIGITS:], 16)
        for before in range(self._most_returns):
            found = self.tasks.get(f"{owner}{max(0, number - before):016x}")
            if found is not None and before < found.num_returns:
                return found
        return None

    def describe_object(self, object_id: str, depth: int = 0) -> str:
        """Return a phrase for an object that has no value yet: which one, and what keeps it."""
        what = f"object {short_id(object_id)}"
        row = self.maker(object_id)
        if row is None:
            owner = object_id[:PROCESS_DIGITS]
            return f"{what}, of {self._process_name(owner)}" + ", which did not answer" * (owner in self.silent)
        if depth > _DEEPEST:
            return f"{what}, made by {row.name}"
        verdict = self.judge(row, depth + 1)
        return f"{what}, made by {row.name}, which {verdict.reason or verdict.state}"

    def judge_wait(self, wait: WaitState, depth: int = 0) -> Verdict:
        """Return why a thread waits."""
        if not wait.missing:
            return Verdict("", "is about to go on", "is about to go on")
        some = f"{wait.wanted} of {wait.total} objects, first " if wait.total > 1 else ""
        found = self.maker(wait.missing[0])
        general = self.judge(found, depth + 1).waits_for if found is not None and depth <= _DEEPEST else ""
        name = found.name if found is not None else "an object"
        reason = f"waits for {some}{self.describe_object(wait.missing[0], depth)}"
        return Verdict("", reason, f"waits for {name}" + (f", which {general}" if general else ""))

    # Counts -----------------------------------------------------------------------------------------------------

    def counted(self) -> Iterator[TaskState]:
        """Yield the tasks that have not ended, counted by name, state and `waits_for`."""
        for owner, process in self.processes.items():
            running: dict[str, list[str]] = {}
            for task, (_, item) in self.executing.items():
                if task.startswith(owner):
                    running.setdefault(item.name, []).append(task)
            for row in process.counted:
                for count, (state, _, waits_for) in self._split(row, running):
                    yield replace(row, count=count, state=state, waits_for=waits_for)

    def _split(self, row: TaskState, running: dict[str, list[str]]) -> Iterator[tuple[int, Verdict]]:
        if row.type == "ACTOR_CREATION_TASK":
            yield row.count, self._start(row, 0)
        elif row.state == "PENDING_ARGS_AVAIL":
            yield row.count, Verdict(row.state, "", "waits for its arguments")
        elif row.state == "SUBMITTED_TO_WORKER":
            # An actor's class and method may be shared by several actors, whose rows are apart.
            tasks = running.get(row.name, [])
            mine = [tasks.pop() for _ in range(min(len(tasks), row.count))]
            for waits_for, count in Counter(self._running(*self.executing[task], 0).waits_for for task in mine).items():
                yield count, Verdict("RUNNING", "", waits_for)
            if row.count > len(mine):
                whose = "actor" if row.type == "ACTOR_TASK" else "worker"
                yield row.count - len(mine), Verdict(row.state, "", f"waits for its {whose} to run it")
        elif row.type == "NORMAL_TASK":
            shortage = self._shortage(row.required_resources, row.placement_group_id)
            yield row.count, Verdict(row.state, "", f"waits for {shortage.brief}")
        else:
            actor = self.actors.get(row.actor_id or "")
            if actor is not None and actor.state == "ALIVE":
                yield row.count, Verdict(row.state, "", f"is behind an earlier call of {actor.class_name}")
            else:
                yield row.count, self._call(row, 0)
