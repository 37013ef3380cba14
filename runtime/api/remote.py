"""The `remote` decorator, and what it makes: remote functions and actor classes."""

import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any, Generic, NoReturn, TypeVar

from ..core.actors.checkpoints import checkpoint_interval
from ..core.engine import Function, current_engine
from ..core.handles import ActorHandle
from ..core.methods import method_table, with_returns
from ..core.options import ActorOptions, MethodOptions, TaskOptions
from ..core.refs import one_or_all
from ..core.signatures import Parameters, parameters_of_methods
from ..core.values.functions import callable_name, up_to_date
from ..exceptions import InputError, nearest

T = TypeVar("T")


def remote(*target: Any, **options: Any) -> Any:
    """Make a function a task or a class an actor: ``@remote`` or ``@remote(num_cpus=2, …)``.

    Options of both: num_cpus, num_gpus, memory, resources, scheduling_strategy, name, runtime_env. Of functions:
    num_returns (1; "streaming" for functions that yield: the call returns an `ObjectRefGenerator`), max_retries (after
    a crash of the worker, or to make a lost result again; 3), retry_exceptions (False; True or a list of exception
    types that use up retries, too), generator_backpressure (values of a stream that may wait to be taken; 0: any
    number; Ray's name for it does as well), max_calls (of this function in one worker; 0: any number). Of classes:
    max_restarts (0), max_task_retries (0), max_pending_calls (-1), checkpoint_every (calls; 1 where the class has
    ``__checkpoint__`` and ``__restore__`` and may be restarted; 0: never), lineage (True; False: values of its methods
    that are lost are not made again, so nothing is kept for that), max_concurrency (1; 1000 if a method is
    async), concurrency_groups (name → calls at a time), namespace, get_if_exists, lifetime ("detached": the actor ends
    neither with its handles nor with its creator). -1 means without limit.

    Raises:
        InputError: unknown option or bad value.
    """
    if target and (options or len(target) > 1):
        raise InputError("use @remote, or @remote(option=value, …): options are given by name")
    if target:
        return _make(target[0], {})
    return lambda given: _make(given, options)


def _make(target: Any, options: dict[str, Any]) -> Any:
    """Return the remote form of a function or class."""
    if inspect.isclass(target):
        return ActorClass(target, ActorOptions.of(**options))
    if inspect.iscoroutinefunction(target):
        raise InputError(
            f"{callable_name(target)} is an 'async def' function, and a task has no event loop. Make it a method of an "
            "actor, or an ordinary function that calls asyncio.run(…)"
        )
    if callable(target):
        return RemoteFunction(target, TaskOptions.of(**with_returns(target, options)))
    raise InputError(f"remote decorates a function or a class, not a {type(target).__name__} ({target!r})")


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
        self._function = up_to_date(self._function, self._target)
        return one_or_all(current_engine().tasks.submit(self._function, (args, kwargs), self._options))

    def options(self, **options: Any) -> "RemoteFunction":
        """Return the same remote function with some options changed."""
        changed = RemoteFunction(self._target, self._options.but(**options))
        changed._function, changed._parameters = self._function, self._parameters
        return changed

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse a call without ``.remote``, with a TypeError that says so."""
        name = callable_name(self._target)
        raise TypeError(f"remote function {name!r} is not called directly: use {name}.remote(…)")

    def __repr__(self) -> str:
        return f"RemoteFunction({callable_name(self._target)})"

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
        self._function = up_to_date(self._function, self._target)
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

    def __repr__(self) -> str:
        return f"ActorClass({callable_name(self._target)})"

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *dir(self._target)})

    def __mro_entries__(self, bases: tuple[Any, ...]) -> NoReturn:
        """Refuse to be inherited from, with a TypeError that says what to do."""
        name = self._target.__name__
        raise TypeError(
            f"actor class {name!r} cannot be inherited from: inherit from the plain class, without @remote, and "
            "decorate the new one"
        )

    def __reduce__(self) -> Any:
        return ActorClass, (self._target, self._options)


def _copy_of(function: FunctionType) -> FunctionType:
    made = FunctionType(
        function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )
    made.__kwdefaults__ = function.__kwdefaults__
    functools.update_wrapper(made, function)
    return made
