"""The Ray engine: the runtime's calls on a Ray cluster. Scheduling, storage and recovery are Ray's; nothing is remade.

A value travels through Ray as a `_Packed`: our own pickle, its buffers (which Ray keeps out of band, in its object
store), and what Ray counts references of. Hence arguments, results and errors are exactly those of the other engines.
Ray runs two things of ours: the function `_run_task`, and the actor class `_Host`, which holds a user's actor.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import ray
from ray import exceptions as theirs

from . import context, exceptions, serialization
from .engine import ActorId, Arguments, Function
from .exceptions import InputError
from .failure import describe_here, pack_exception, unpack_exception
from .options import ActorOptions, TaskOptions
from .refs import ObjectRef
from .remote import load_function
from .serial import split_returns

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import DTypeLike

# Pickle, buffers, and by id what Ray keeps alive for us: its references and actors' handles.
_Packed = tuple[bytes, list[Any], dict[bytes, Any]]


class _Held:
    """What Ray counts, kept as long as our reference to it; stands where other engines have a callback."""

    __slots__ = ("of",)

    def __init__(self, of: Any) -> None:
        self.of = of

    def __call__(self, object_id: bytes) -> None:
        """Do nothing: Ray sees the end of what is held."""


class _Failure(Exception):
    """A user's exception, packed, on its way through Ray."""

    def __init__(self, payload: bytes) -> None:
        super().__init__(payload)
        self.payload = payload

    def __str__(self) -> str:  # what Ray's own tools show
        return str(unpack_exception(self.payload).__cause__)


def _held(ref: ObjectRef) -> Any:
    return ref._dropped.of  # type: ignore[attr-defined]


class RayEngine:
    """Ray; see `shoal.runtime.engine.Engine` for the methods."""

    name = "ray"

    def __init__(
        self,
        *,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        resources: dict[str, float] | None = None,
        preload: Sequence[str] | None = None,
        log_to_driver: bool = True,
        address: str | None = None,
    ) -> None:
        self._join()
        self._started = not ray.is_initialized()
        if self._started:
            own: dict[str, Any] = {"num_cpus": num_cpus, "num_gpus": num_gpus, "resources": resources or None}
            if address is None:
                own["include_dashboard"] = False
            try:
                ray.init(address, log_to_driver=log_to_driver, **own)
            except (ConnectionError, ValueError) as error:
                raise InputError(
                    f"no Ray to work on at {address or 'this machine'}: {error}. Start one with `ray start --head`, leave "
                    "the address out for one of its own, or, where Ray asks for a token, set RAY_AUTH_MODE=token"
                ) from error
        # It lives as long as this driver: handles that others get by its name keep nothing alive.
        self._board = ray.remote(_Published).options(name=self._board_name(), num_cpus=0).remote()

    @classmethod
    def in_worker(cls) -> RayEngine:
        """Return the engine of a process that Ray has made."""
        engine = context.running_engine()
        if engine is None:
            engine = cls.__new__(cls)
            engine._started = False
            engine._join()
            engine._board = ray.get_actor(cls._board_name())
            context.set_engine(engine)
        assert isinstance(engine, RayEngine)
        return engine

    def _join(self) -> None:
        self._arriving = threading.local()
        self._shipped: dict[bytes, Any] = {}
        self._code: dict[bytes, Callable] = {}

    # Values -----------------------------------------------------------------------------------------------------

    def pack(self, value: Any) -> _Packed:
        """Serialise a value for Ray."""
        stream, buffers, refs = serialization.dumps(value)
        return stream, list(buffers), {ref.id: _held(ref) for ref in refs}

    def load(self, packed: _Packed) -> Any:
        """Rebuild a value."""
        stream, buffers, carried = packed
        before, self._arriving.carried = getattr(self._arriving, "carried", {}), carried
        try:
            return serialization.loads(stream, buffers)
        finally:
            self._arriving.carried = before

    def adopt(self, object_id: bytes) -> ObjectRef:
        """Return a reference that arrived inside the value that is being loaded."""
        return ObjectRef(object_id, _Held(self._arriving.carried[object_id]))

    @staticmethod
    def _ours(ref: ray.ObjectRef) -> ObjectRef:
        return ObjectRef(ref.binary(), _Held(ref))

    def put(self, value: Any) -> ObjectRef:
        """Store a value."""
        return self._ours(ray.put(self.pack(value)))

    def get(self, refs: Sequence[ObjectRef], timeout: float | None) -> list[Any]:
        """Return the values."""
        failure = None
        try:
            packed = ray.get([_held(ref) for ref in refs], timeout=timeout)
        except theirs.RayError as error:
            failure = _translated(error)
        if failure is not None:
            raise failure  # out here: what Ray raised is no context of it
        return [self.load(each) for each in packed]

    def wait(
        self, refs: Sequence[ObjectRef], num_returns: int, timeout: float | None
    ) -> tuple[list[ObjectRef], list[ObjectRef]]:
        """Split into ready and not ready."""
        found = {ref.binary() for ref in ray.wait([_held(r) for r in refs], num_returns=num_returns, timeout=timeout)[0]}
        return [ref for ref in refs if ref.id in found], [ref for ref in refs if ref.id not in found]

    def future(self, ref: ObjectRef) -> Future:
        """Return a future of the value."""
        future: Future = Future()
        future.set_running_or_notify_cancel()

        def arrived(packed: Future) -> None:
            error = packed.exception()
            try:
                if error is not None:
                    raise _translated(error)
                future.set_result(self.load(packed.result()))
            except BaseException as failure:  # whatever the task raised belongs to whoever asks the future
                future.set_exception(failure)

        _held(ref).future().add_done_callback(arrived)
        return future

    def empty(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """Return an array in this process's memory: Ray's store takes copies only."""
        import numpy as np

        return np.empty(shape, dtype)

    # Tasks and actors -------------------------------------------------------------------------------------------

    def _ship(self, function: Function) -> Any:
        """Return Ray's reference to a function's code, stored once for all its calls."""
        code = self._shipped.get(function.id)
        if code is None:
            carried = {ref.id: _held(ref) for ref in function.captured}
            code = self._shipped[function.id] = ray.put((function.id, function.payload, carried))
        return code

    def unship(self, code: tuple[bytes, bytes, dict[bytes, Any]]) -> Callable:
        """Return the callable behind `_ship`'s reference."""
        key, payload, carried = code
        if key not in self._code:
            before, self._arriving.carried = getattr(self._arriving, "carried", {}), carried
            try:
                self._code[key] = load_function(payload)
            finally:
                self._arriving.carried = before
        return self._code[key]

    def _arguments(self, arguments: Arguments) -> tuple[_Packed, list[Any]]:
        args, kwargs, slots = serialization.take_out_refs(*arguments)
        return self.pack((args, kwargs)), [_held(ref) for ref in slots]

    def _results(self, made: Any, num_returns: int) -> list[ObjectRef]:
        if num_returns == 0:
            return []
        return [self._ours(ref) for ref in (made if num_returns > 1 else [made])]

    def submit(self, function: Function, arguments: Arguments, options: TaskOptions) -> list[ObjectRef]:
        """Have Ray run the function."""
        packed, slots = self._arguments(arguments)
        task = ray.remote(_run_task).options(
            name=options.name or function.name,
            num_returns=options.num_returns,
            max_retries=options.max_retries,
            **_resources(options),
        )
        made = task.remote(function.name, self._ship(function), packed, options.num_returns, *slots)
        return self._results(made, options.num_returns)

    def create_actor(
        self, cls: Function, arguments: Arguments, options: ActorOptions, num_returns: dict[str, int]
    ) -> ActorId:
        """Have Ray start a host for the actor."""
        packed, slots = self._arguments(arguments)
        # Named after the user's class, so that Ray's tools and `top` tell actors apart.
        host = ray.remote(type(cls.name, (_Host,), {})).options(
            name=options.name,
            max_restarts=options.max_restarts,
            max_task_retries=options.max_task_retries,
            **_resources(options),
        )
        about = (cls.name, num_returns, options.max_task_retries)
        # The code itself, not a reference to it: Ray can restart an actor only as long as its arguments are there.
        code = (cls.id, cls.payload, {ref.id: _held(ref) for ref in cls.captured})
        try:
            handle = host.remote(about, code, packed, *slots)
        except ValueError as error:
            raise InputError(
                f"an actor named {options.name!r} is alive. Use get_actor({options.name!r}) or another name"
            ) from error
        return self._actor(handle, about)

    @staticmethod
    def _actor(handle: Any, about: tuple[str, dict[str, int], int]) -> ActorId:
        actor_id = handle._actor_id.binary()
        return ActorId(actor_id, ObjectRef(actor_id, _Held(handle)), *about)

    def call(self, actor: ActorId, method: str, arguments: Arguments, num_returns: int) -> list[ObjectRef]:
        """Have the actor's host call the method."""
        packed, slots = self._arguments(arguments)
        call = _held(actor.lifetime).call.options(num_returns=num_returns, name=f"{actor.class_name}.{method}")
        return self._results(call.remote(method, packed, num_returns, *slots), num_returns)

    def kill(self, actor: ActorId, no_restart: bool) -> None:
        """End an actor."""
        ray.kill(_held(actor.lifetime), no_restart=no_restart)

    def find_actor(self, name: str) -> ActorId | None:
        """Return the living actor of that name."""
        try:
            handle = ray.get_actor(name)
            return self._actor(handle, ray.get(handle.about.remote()))
        except (ValueError, theirs.RayActorError):
            return None

    # Everything else --------------------------------------------------------------------------------------------

    @staticmethod
    def _board_name() -> str:
        return f"shoal: what job {ray.get_runtime_context().get_job_id()} has published"

    def publish(self, key: str, payload: bytes) -> None:
        """Keep a named value in an actor; it is known everywhere when this returns."""
        ray.get(self._board.publish.remote(key, payload))

    def lookup(self, key: str) -> bytes | None:
        """Return a named value."""
        return ray.get(self._board.lookup.remote(key))

    def preload(self, modules: Sequence[str]) -> None:
        """Do nothing: Ray starts its workers by itself."""

    def cluster_resources(self) -> dict[str, float]:
        """Return what the cluster has."""
        return ray.cluster_resources()

    def available_resources(self) -> dict[str, float]:
        """Return what is free in the cluster."""
        return ray.available_resources()

    def shutdown(self) -> None:
        """Leave Ray, if it was entered here."""
        if self._started:
            ray.shutdown()

    def abandon(self) -> None:
        """Forget Ray, which belongs to the parent of this forked child."""
        self._started = False


def _resources(options: TaskOptions | ActorOptions) -> dict[str, Any]:
    return {"num_cpus": options.num_cpus, "num_gpus": options.num_gpus, "resources": dict(options.resources)}


def _run_task(name: str, code: Any, packed: _Packed, num_returns: int, *slots: _Packed) -> Any:
    engine = RayEngine.in_worker()
    return _run(engine, name, lambda: engine.unship(code), packed, num_returns, slots)


def _run(
    engine: RayEngine, name: str, find: Callable[[], Callable], packed: _Packed, num_returns: int, slots: Any
) -> Any:
    """Run a function in a process of Ray; whatever it raises travels as a `_Failure`."""
    try:
        args, kwargs = engine.load(packed)
        args, kwargs = serialization.fill_slots(args, kwargs, [engine.load(slot) for slot in slots])
        result = find()(*args, **kwargs)
        values = [engine.pack(value) for value in split_returns(name, result, num_returns)]
    except Exception as error:  # a task's exception is a value
        raise _Failure(pack_exception(error, name, _here())) from None
    return values[0] if num_returns == 1 else values


def _here() -> str:
    return describe_here(ray.get_runtime_context().get_node_id()[:8])


class _Host:
    """Holds a user's actor in a process of Ray."""

    def __init__(self, about: tuple[str, dict[str, int], int], code: Any, packed: _Packed, *slots: _Packed) -> None:
        self._about, self._instance, self._failure = about, None, None
        engine = RayEngine.in_worker()
        try:
            args, kwargs = engine.load(packed)
            args, kwargs = serialization.fill_slots(args, kwargs, [engine.load(slot) for slot in slots])
            self._instance = engine.unship(code)(*args, **kwargs)
        except Exception as error:  # Ray would keep only its text: calls raise it instead
            self._failure = pack_exception(error, f"{about[0]}.__init__", _here())

    def about(self) -> tuple[str, dict[str, int], int]:
        """Return what makes a handle."""
        return self._about

    def call(self, method: str, packed: _Packed, num_returns: int, *slots: _Packed) -> Any:
        """Call a method of the user's actor."""
        if self._failure is not None:
            error = exceptions.ActorDiedError(
                f"{self._about[0]}.{method}: the actor is dead: its constructor failed. Create it again"
            )
            raise _ConstructorFailed(str(error), self._failure)
        engine = RayEngine.in_worker()
        return _run(
            engine, f"{self._about[0]}.{method}", lambda: getattr(self._instance, method), packed, num_returns, slots
        )


class _ConstructorFailed(Exception):
    """An actor's constructor has failed."""

    def __init__(self, text: str, cause: bytes) -> None:
        super().__init__(text, cause)
        self.text, self.cause = text, cause


class _Published:
    """Holds named values."""

    def __init__(self) -> None:
        self._values: dict[str, bytes] = {}

    def publish(self, key: str, payload: bytes) -> None:
        """Keep a value."""
        self._values[key] = payload

    def lookup(self, key: str) -> bytes | None:
        """Return a value."""
        return self._values.get(key)


_KINDS: list[tuple[type[Exception], Callable[[str], BaseException]]] = [
    (theirs.GetTimeoutError, exceptions.GetTimeoutError),
    (theirs.ActorUnavailableError, exceptions.ActorUnavailableError),
    (theirs.RayActorError, exceptions.ActorDiedError),
    (theirs.OutOfMemoryError, exceptions.WorkerCrashedError),
    (theirs.WorkerCrashedError, exceptions.WorkerCrashedError),
    (theirs.OwnerDiedError, exceptions.OwnerDiedError),
    (theirs.ObjectLostError, exceptions.ObjectLostError),
    (theirs.ObjectStoreFullError, exceptions.ObjectStoreFullError),
]


def _translated(error: BaseException) -> BaseException:
    """Return what the other engines would raise."""
    if isinstance(error, theirs.RayTaskError):
        cause = error.cause
        if isinstance(cause, _Failure):
            return unpack_exception(cause.payload)
        if isinstance(cause, _ConstructorFailed):
            died = exceptions.ActorDiedError(cause.text)
            died.__cause__ = unpack_exception(cause.cause)
            return died
    for kind, ours in _KINDS:
        if isinstance(error, kind):
            return ours(str(error))
    return error
