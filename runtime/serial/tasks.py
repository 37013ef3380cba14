"""How the serial engine runs a task or a call: now, in the calling thread."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Any

from .. import serialization
from ..engine import Arguments, Function, Running
from ..exceptions import ShoalError, WorkerCrashedError
from ..generators import ObjectRefGenerator
from ..introspection.events import ENDED
from ..options import STREAMING, TaskOptions
from ..private_loop import PrivateLoop
from ..refs import ObjectRef
from ..remote import load_function
from ..resources import Demand
from ..results import keep_returns
from ..runtime_context import running
from ..runtime_env import RuntimeEnv
from ..scheduling import SchedulingStrategy
from .calls import Attempts, SerialStream
from .objects import SerialObjects
from .records import Value
from .reports import ME
from .resources import SerialResources
from .surroundings import Surroundings


class SerialTasks(SerialObjects):
    """Runs one thing at a time."""

    def __init__(self, resources: SerialResources, runtime_env: RuntimeEnv | None, record_call_sites: bool) -> None:
        super().__init__(record_call_sites)
        self._resources, self._surroundings = resources, Surroundings(runtime_env)
        self._executing: list[tuple[str, float]] = []

    def submit(self, function: Function, arguments: Arguments, options: TaskOptions) -> list[Any]:
        """Run the function now; a generator when its values are asked for."""
        strategy = self._resources.place(f"task {function.name}", options.demand, options.scheduling_strategy)
        packed = self._pack_arguments(arguments)
        removal = self._resources.removal_of(strategy)
        if removal is not None:
            return [self._store(Value(failure=removal)) for _ in range(abs(options.num_returns))]
        call = Running(self._new_id(), options.name or function.name, function.name)
        within = partial(self._entered, call, self._surroundings.of(options.runtime_env), options.demand, strategy)
        attempts = Attempts(call, options, options.max_retries)
        return self._run(partial(load_function, function.payload), packed, attempts, within)

    def _pack_arguments(self, arguments: Arguments) -> tuple[Value, list[ObjectRef]]:
        args, kwargs, refs = serialization.take_out_refs(*arguments)
        return self._pack((args, kwargs), seal=False), refs

    def _arguments(self, packed: Value, refs: list[ObjectRef]) -> Arguments:
        args, kwargs = self._load(packed)
        return serialization.fill_slots(args, kwargs, self.get(refs, None)) if refs else (args, kwargs)

    def _run(
        self,
        find: Callable[[], Callable],
        arguments: tuple[Value, list[ObjectRef]],
        attempts: Attempts,
        within: Callable[[], AbstractContextManager],
        loop: PrivateLoop | None = None,
    ) -> list[Any]:
        """Run a function, and again if it fails and is to be retried; return references to what it returned."""
        packed, refs = arguments
        name, num_returns = attempts.name, attempts.num_returns

        def call() -> Any:
            args, kwargs = self._arguments(packed, refs)
            result = find()(*args, **kwargs) if loop is None else loop.run(find(), args, kwargs)
            self._check_left(attempts.running)
            return result

        if num_returns == STREAMING:

            def fail(error: BaseException) -> ObjectRef:
                return self._store(self._failure(attempts, error))

            return [ObjectRefGenerator(SerialStream(self.put, fail, call, attempts, within, loop))]
        for ref in refs:
            failure = self._values[ref.id].failure
            if failure is not None:  # an argument that failed fails the task, with the first exception
                self._note_read(self._values[ref.id])
                return [self._store(Value(failure=failure)) for _ in range(max(num_returns, 1))]
        started, error_type = time.monotonic(), ""
        with within():
            self._executing.append((name, started))
            try:
                values, failure = self._attempt(call, attempts)
            finally:
                self._executing.pop()
        if failure is not None:
            failed, error_type = self._failure(attempts, failure), type(failure).__name__
            values += [failed] * (num_returns - len(values))
        # A task has the id of the first object that it returns.
        task = attempts.running.task_id
        returned = [self._store(replace(value), None if index else task) for index, value in enumerate(values)]
        if returned:
            host, function_name = attempts.running.host, attempts.running.function_name
            who = (*function_name.rpartition(".")[::2], host.actor.id) if host is not None else ("", name, b"")
            now = time.monotonic()
            detail = (*who, ME, started, started, now - started, num_returns, error_type)
            self.note((now, ENDED, returned[0].id, detail))
        return returned

    def _attempt(self, call: Callable[[], Any], attempts: Attempts) -> tuple[list[Value], BaseException | None]:
        """Make a call until it need not be made again; return what came of it, and the exception that ended it."""
        while True:
            values: list[Value] = []

            def keep(value: Any, values: list[Value] = values) -> None:
                values.append(self._pack(value))

            try:
                failure = keep_returns(attempts.name, call(), attempts.num_returns, keep, lambda step: step())
            except BaseException as error:  # a task's exception is a value
                values, failure = [], error
            if isinstance(failure, KeyboardInterrupt):  # the user's Ctrl-C
                raise failure
            if failure is None or isinstance(failure, SystemExit) or not attempts.again(failure):
                return ([] if isinstance(failure, SystemExit) else values), failure

    def _failure(self, attempts: Attempts, error: BaseException) -> Value:
        if isinstance(error, SystemExit):
            return Value(failure=self._left(attempts.running, error))
        return Value(failure=attempts.failure(error))

    def _check_left(self, call: Running) -> None:
        """Raise SystemExit again if a call has caught that of `exit_actor`."""

    def _left(self, call: Running, request: SystemExit) -> ShoalError:
        """Return what becomes of a call that has asked for the end of its process."""
        return WorkerCrashedError(f"task {call.name} ended its process with {request!r}")

    @contextlib.contextmanager
    def _entered(
        self, call: Running, surroundings: Any, demand: Demand, strategy: SchedulingStrategy | None
    ) -> Iterator[None]:
        """Let a call know itself, and have what it asked for."""
        before = running.set(call)
        try:
            with self._surroundings.entered(surroundings), self._resources.entered(demand, strategy):
                yield
        finally:
            running.reset(before)
