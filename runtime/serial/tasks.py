"""How the serial engine runs a task or a call: now, in the calling thread."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from ..core.engine import Arguments, Function, Running, RunsTasks, running
from ..core.generators import ObjectRefGenerator
from ..core.options import STREAMING, TaskOptions
from ..core.refs import ObjectRef
from ..core.reports.events import ENDED
from ..core.reports.rows import ExecutionState, unix_ms
from ..core.resources.amounts import Demand
from ..core.results import keep_returns
from ..core.scheduling import SchedulingStrategy
from ..core.values.functions import load_function
from .calls import SerialCall, SerialStream
from .objects import ME, SerialObjects, Value
from .resources import SerialResources
from .surroundings import Surroundings


class SerialTasks(RunsTasks):
    """Runs one thing at a time."""

    def __init__(self, objects: SerialObjects, resources: SerialResources, surroundings: Surroundings) -> None:
        self._objects, self._resources, self._surroundings = objects, resources, surroundings
        self._executing: list[tuple[str, float]] = []

    def submit(self, function: Function, arguments: Arguments, options: TaskOptions) -> list[Any]:
        """Run the function now; a generator when its values are asked for."""
        strategy = self._resources.place(f"task {function.name}", options.demand, options.scheduling_strategy)
        packed = self._objects.pack_arguments(arguments)
        removal = self._resources.removal_of(strategy)
        if removal is not None:
            return self.failed(removal, abs(options.num_returns))
        code = Running(self._objects.new_id(), options.name or function.name, function.name)
        within = partial(self.entered, code, self._surroundings.of(options.runtime_env), options.demand, strategy)
        call = SerialCall(code, options, retries=options.max_retries, within=within)
        return self.run(call, partial(load_function, function.payload), packed)

    def failed(self, failure: bytes | BaseException, count: int) -> list[Any]:
        """Return so many references to an exception."""
        return [self._objects.store(Value(failure=failure)) for _ in range(count)]

    def run(
        self, call: SerialCall, find: Callable[[], Callable], arguments: tuple[Value, list[ObjectRef]]
    ) -> list[Any]:
        """Run what `find` returns, and again if it fails and is to be retried; return references to its values."""
        packed, refs = arguments

        def attempt() -> Any:
            args, kwargs = self._objects.load_arguments(packed, refs)
            result = find()(*args, **kwargs) if call.loop is None else call.loop.run(find(), args, kwargs)
            call.check_left()
            return result

        if call.num_returns == STREAMING:

            def fail(error: BaseException) -> ObjectRef:
                return self._objects.store(Value(failure=call.failure(error)))

            return [ObjectRefGenerator(SerialStream(self._objects.put, fail, attempt, call))]
        failed = self._objects.failure_among(refs)
        if failed is not None:  # an argument that failed fails the task, with the first exception
            return self.failed(failed, max(call.num_returns, 1))
        started, error_type = time.monotonic(), ""
        with call.within():
            self._executing.append((call.name, started))
            try:
                values, error = self._attempts(call, attempt)
            finally:
                self._executing.pop()
        if error is not None:
            failure, error_type = Value(failure=call.failure(error)), type(error).__name__
            values += [failure] * (call.num_returns - len(values))
        # A task has the id of the first object that it returns.
        first = call.running.task_id
        returned = [self._objects.store(replace(value), None if n else first) for n, value in enumerate(values)]
        if returned:
            self._note_end(call, returned[0].id, started, error_type)
        return returned

    def _note_end(self, call: SerialCall, task: bytes, started: float, error_type: str) -> None:
        host, function_name = call.running.host, call.running.function_name
        who = (*function_name.rpartition(".")[::2], host.actor.id) if host is not None else ("", call.name, b"")
        now = time.monotonic()
        detail = (*who, ME, started, started, now - started, call.num_returns, error_type)
        self._objects.events.append((now, ENDED, task, detail))

    def _attempts(self, call: SerialCall, attempt: Callable[[], Any]) -> tuple[list[Value], BaseException | None]:
        """Make a call until it need not be made again; return what came of it, and the exception that ended it."""
        while True:
            values: list[Value] = []

            def keep(value: Any, values: list[Value] = values) -> None:
                values.append(self._objects.pack(value))

            try:
                failure = keep_returns(call.name, attempt(), call.num_returns, keep, lambda step: step())
            except BaseException as error:  # a task's exception is a value
                values, failure = [], error
            if isinstance(failure, KeyboardInterrupt):  # the user's Ctrl-C
                raise failure
            if failure is None or isinstance(failure, SystemExit) or not call.again(failure):
                return ([] if isinstance(failure, SystemExit) else values), failure

    @contextlib.contextmanager
    def entered(
        self, call: Running, surroundings: Any, demand: Demand, strategy: SchedulingStrategy | None
    ) -> Iterator[None]:
        """Set up what a call asked for, and what it knows of itself."""
        before = running.set(call)
        try:
            with self._surroundings.entered(surroundings), self._resources.entered(demand, strategy):
                yield
        finally:
            running.reset(before)

    def report(self) -> list[ExecutionState]:
        """Return a row for each call that runs, the outermost first."""
        return [
            ExecutionState(task_id=f"{depth:02x}", name=name, start_time_ms=unix_ms(began) or 0)
            for depth, (name, began) in enumerate(self._executing)
        ]
