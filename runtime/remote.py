"""What the `remote` decorator makes: remote functions, actor classes, and the handles of running actors."""

import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import FunctionType, MappingProxyType
from typing import Any, Generic, NoReturn, TypeVar

from .actors.checkpoints import checkpoint_interval
from .actors.instances import METHODS_OF_ALL
from .current import is_over, runtime_number
from .engine import ActorId, Function, current_engine
from .exceptions import ActorDiedError, InputError, nearest
from .options import DEFAULT_METHOD, GENERATOR_METHOD, ActorOptions, MethodOptions, TaskOptions
from .refs import ObjectRef, short
from .signatures import Parameters, parameters_of_methods
from .values import serialization

T = TypeVar("T")

_METHOD_OPTIONS = "__shoal_method_options__"
# Special methods that are for Python or for us to call, on the instance itself, or that are every actor's.
_NOT_REMOTE = {
    *METHODS_OF_ALL,
    "__checkpoint__",
    "__class_getitem__",
    "__del__",
    "__getnewargs__",
    "__getnewargs_ex__",
    "__ray_shutdown__",
    "__restore__",
    "__setstate__",
}


def callable_name(target: Callable) -> str:
    """Return the name of a function or class for messages, as it is written where it can be seen: no outer function."""
    return getattr(target, "__qualname__", type(target).__name__).rpartition("<locals>.")[2]


def _copy_of(function: FunctionType) -> FunctionType:
    made = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    made.__kwdefaults__ = function.__kwdefaults__
    functools.update_wrapper(made, function)
    return made


def _as_function(target: Callable) -> Function:
    """Serialise a callable, its out-of-band buffers included."""
    stream, buffers, refs = serialization.dumps(target, is_code=True)
    payload = serialization.dumps((stream, [bytes(b.raw()) for b in buffers]))[0]
    return Function(
        callable_name(target), hashlib.blake2b(payload, digest_size=16).digest(), payload, target, tuple(refs)
    )


def _up_to_date(function: Function | None, target: Callable) -> Function:
    """Return a callable as it was serialised, or anew if that was with references of an earlier runtime."""
    if function is None or any(is_over(ref.runtime) for ref in function.captured):
        return _as_function(target)
    return function


def load_function(payload: bytes) -> Callable:
    """Rebuild the callable of a `Function` from its payload."""
    return serialization.loads(*serialization.loads(payload))


def _result(refs: list[ObjectRef]) -> Any:
    if len(refs) == 1:
        return refs[0]
    return refs or None


def _yields(target: Any) -> bool:
    return inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target)


def _with_returns(target: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Return the options of a function or method: one that yields its values gives a stream, unless they say no."""
    if options.get("num_returns") is None and _yields(target):
        return options | {"num_returns": "streaming"}
    return options


def method(**options: Any) -> Callable[[T], T]:
    """Decorate a method of an actor class with what its calls do unless they say otherwise (`.options`).

    Options: num_returns (1; "streaming" for methods that yield); generator_backpressure; concurrency_group;
    max_task_retries and retry_exceptions, instead of the actor's; name, for messages.

    Raises:
        InputError: unknown option or bad value.
    """
    if not options:
        raise InputError("use @method(option=value, …); a method without options needs no decorator")

    def decorate(function: T) -> T:
        setattr(function, _METHOD_OPTIONS, MethodOptions.of(**_with_returns(function, options)))
        return function

    return decorate


def method_table(cls: type) -> dict[str, MethodOptions]:
    """Return the methods of an actor's class that can be called remotely, with their options."""
    table = {}
    for name, member in inspect.getmembers(cls, callable):
        if not name.startswith("__") or _is_special_method(name, member):
            default = GENERATOR_METHOD if _yields(member) else DEFAULT_METHOD
            table[name] = getattr(member, _METHOD_OPTIONS, default)
    return table


def _is_special_method(name: str, member: Any) -> bool:
    """Return whether ``handle.__name__.remote(…)`` calls the actor's: what handles have, too, is about the handle."""
    is_own = inspect.isfunction(member) or inspect.ismethod(member)  # not one of `object` or of a class written in C
    return is_own and name not in _NOT_REMOTE and name not in dir(ActorHandle)


class RemoteFunction:
    """A function that runs as a task: ``f.remote(…)`` returns at once with a reference to the result."""

    def __init__(self, function: Callable, options: TaskOptions) -> None:
        functools.update_wrapper(self, function)
        self._target = function
        self._options = options
        self._parameters = Parameters(f"{callable_name(function)}.remote", function)
        self._function: Function | None = None

    def remote(self, /, *args: Any, **kwargs: Any) -> Any:
        """Start the task; return a reference to its value (a list of them if ``num_returns`` is not 1).

        Raises:
            TypeError: the arguments do not fit the function, or one cannot be sent to another process.
        """
        self._parameters.check(args, kwargs)
        self._function = _up_to_date(self._function, self._target)
        return _result(current_engine().tasks.submit(self._function, (args, kwargs), self._options))

    def options(self, **options: Any) -> "RemoteFunction":
        """Return the same remote function with some options changed."""
        changed = RemoteFunction(self._target, self._options.but(**options))
        changed._function, changed._parameters = self._function, self._parameters
        return changed

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse a call without ``.remote``, with a TypeError that says so."""
        name = callable_name(self._target)
        raise TypeError(f"remote function {name!r} is not called directly: use {name}.remote(…)")

    def __reduce__(self) -> Any:
        return RemoteFunction, (self._target, self._options)


class ActorClass(Generic[T]):
    """A class whose instances live in processes of their own: ``A.remote(…)`` starts one and returns its handle.

    Other attributes are the plain class's: ``A.LIMIT``, ``A.static_method(…)`` run here.
    """

    def __init__(self, cls: type[T], options: ActorOptions) -> None:
        self._target = cls
        self._options = options
        self._checkpoint_every = checkpoint_interval(cls, options)
        self._function: Function | None = None
        self._parameters = Parameters(f"{cls.__name__}.remote", cls)
        self._parameters_of_methods: dict[str, Parameters] | None = None
        self.__name__, self.__doc__ = cls.__name__, cls.__doc__
        if options.concurrency_groups or options.max_task_retries:
            self._methods()

    def remote(self, /, *args: Any, **kwargs: Any) -> "ActorHandle[T]":
        """Start an actor with these constructor arguments; return its handle at once.

        Raises:
            TypeError: the arguments do not fit the constructor.
            InputError: an actor of that name is alive.
        """
        self._parameters.check(args, kwargs)
        methods = self._methods()
        self._function = _up_to_date(self._function, self._target)
        if self._parameters_of_methods is None:
            self._parameters_of_methods = parameters_of_methods(self._target, methods)
        engine, options = current_engine(), self._options.but(checkpoint_every=self._checkpoint_every)
        actor = engine.actors.create(self._function, (args, kwargs), options, methods)
        # Else it is one that existed, perhaps of another class.
        is_ours = actor.methods is methods
        return ActorHandle(actor, self._parameters_of_methods if is_ours else {})

    def __getattr__(self, name: str) -> Any:
        """Return what the plain class has of that name: a constant, a static or class method."""
        target = self.__dict__.get("_target")
        if target is None or name.startswith("__") or not hasattr(target, name):
            known = nearest(name, ["remote", "options", *(key for key in dir(target) if not key.startswith("_"))])
            raise AttributeError(f"actor class {self.__dict__.get('__name__')!r} has no attribute {name!r}. {known}")
        found = getattr(target, name)
        # Pickle looks methods up by their names: one that it found here would travel as a name, and a process that does
        # not have this module could not make the class. A copy is not what pickle looks for.
        return _copy_of(found) if isinstance(found, FunctionType) else found

    def _methods(self) -> dict[str, MethodOptions]:
        table = method_table(self._target)
        self._options.check_retries(table.values())
        for name, options in table.items():
            options.check_group(f"{self.__name__}.{name}", self._options.concurrency_groups)
        return table

    def options(self, **options: Any) -> "ActorClass[T]":
        """Return the same actor class with some options changed."""
        changed = ActorClass(self._target, self._options.but(**options))
        changed._function = self._function
        changed._parameters, changed._parameters_of_methods = self._parameters, self._parameters_of_methods
        return changed

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse a call without ``.remote``, with a TypeError that says so."""
        name = self._target.__name__
        raise TypeError(f"actor class {name!r} is not instantiated directly: use {name}.remote(…)")

    def __mro_entries__(self, bases: tuple[Any, ...]) -> NoReturn:
        """Refuse to be inherited from, with a TypeError that says what to do."""
        name = self._target.__name__
        raise TypeError(
            f"actor class {name!r} cannot be inherited from: inherit from the plain class, without @remote, and "
            "decorate the new one"
        )

    def __reduce__(self) -> Any:
        return ActorClass, (self._target, self._options)


class ActorHandle(Generic[T]):
    """Handle of a running actor; ``handle.method.remote(…)`` calls a method. In annotations: ``ActorHandle[MyClass]``.

    Handles may be passed to tasks and other actors. The actor ends when its last handle is gone.
    """

    __slots__ = ("__weakref__", "_actor", "_parameters_of_methods", "_runtime")

    def __init__(self, actor: ActorId, parameters: Mapping[str, Parameters] = MappingProxyType({})) -> None:
        self._runtime = runtime_number()
        # Who has the class knows what methods take. A handle that travels does not carry it: the actor knows it, too.
        self._actor, self._parameters_of_methods = actor, parameters

    def _check(self) -> ActorId:
        """Return its actor; raise ActorDiedError if that is of a runtime that has been shut down."""
        if is_over(self._runtime):
            raise ActorDiedError(
                f"{self!r} is of a runtime that has been shut down, which has ended it; create it again"
            )
        return self._actor

    def __getattr__(self, name: str) -> "ActorMethod":
        actor = self._actor
        options = actor.methods.get(name)
        if options is None and name in METHODS_OF_ALL:
            options = DEFAULT_METHOD
        if options is None:
            known = nearest(name, actor.methods)
            raise AttributeError(f"actor class {actor.class_name!r} has no method {name!r}. {known}")
        return ActorMethod(self, name, options)

    def __repr__(self) -> str:
        return f"ActorHandle({self._actor.class_name}, {short(self._actor.id)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorHandle) and self._actor.id == other._actor.id

    def __hash__(self) -> int:
        return hash(self._actor.id)

    def __copy__(self) -> "ActorHandle[T]":
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "ActorHandle[T]":
        return self

    def __reduce__(self) -> Any:
        # By hand: nobody would know of the copy, so the actor stays as long as this process or the runtime does.
        actor = self._check()
        kept = None if actor.lifetime is None else current_engine().values.keep(actor.lifetime)
        return _borrow_handle, (replace(actor, lifetime=None), kept)


def _borrow_handle(actor: ActorId, kept: bytes | None) -> ActorHandle:
    """Rebuild a handle that was pickled by hand."""
    return ActorHandle(actor if kept is None else replace(actor, lifetime=current_engine().values.borrow(kept)))


# Through the runtime, which counts the reference to its lifetime, a handle travels as what it is made of.
serialization.register(ActorHandle, ActorHandle._check, ActorHandle)


class ActorMethod:
    """One method of a running actor."""

    __slots__ = ("_handle", "_name", "_options")

    def __init__(self, handle: ActorHandle, name: str, options: MethodOptions) -> None:
        # The handle itself, not its id: `A.remote().f.remote()` must keep the actor alive until the call is made.
        self._handle, self._name, self._options = handle, name, options

    def remote(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the method; return a reference to its value (a list of them if ``num_returns`` is not 1).

        Raises:
            TypeError: one of the arguments cannot be sent to another process; or, where the actor was created, they do
                not fit the method. Elsewhere that is what `get` of the result raises.
            PendingCallsLimitExceeded: ``max_pending_calls`` calls of this process have not been answered yet.
        """
        handle = self._handle
        actor = handle._check()
        parameters = handle._parameters_of_methods.get(self._name)
        if parameters is not None:
            parameters.check(args, kwargs)
        return _result(current_engine().actor_calls.call(actor, self._name, (args, kwargs), self._options))

    def options(self, **options: Any) -> "ActorMethod":
        """Return the same method with some options changed; see `method` for the options.

        Raises:
            InputError: unknown option, bad value, or a concurrency group that the actor does not have.
        """
        changed = self._options.but(**options)
        actor = self._handle._actor
        changed.check_group(f"{actor.class_name}.{self._name}", actor.groups)
        return ActorMethod(self._handle, self._name, changed)

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse a call without ``.remote``, with a TypeError that says so."""
        raise TypeError(f"method {self._name!r} of an actor is not called directly: use .{self._name}.remote(…)")


def make_remote(target: Any, options: dict[str, Any]) -> Any:
    """Return the remote form of a function or class; see `shoal.runtime.remote`."""
    if inspect.isclass(target):
        return ActorClass(target, ActorOptions.of(**options))
    if inspect.iscoroutinefunction(target):
        raise InputError(
            f"{callable_name(target)} is an 'async def' function, and a task has no event loop. Make it a method of an "
            "actor, or an ordinary function that calls asyncio.run(…)"
        )
    if callable(target):
        return RemoteFunction(target, TaskOptions.of(**_with_returns(target, options)))
    raise InputError(f"remote decorates a function or a class, not a {type(target).__name__} ({target!r})")
