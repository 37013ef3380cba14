"""Handles of running actors, and of their methods."""

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Generic, NoReturn, TypeVar

from ..exceptions import ActorDiedError, nearest
from .actors.instances import METHODS_OF_ALL
from .current import is_over, runtime_number, whose
from .engine import ActorId, current_engine
from .options import DEFAULT_METHOD, MethodOptions
from .refs import one_or_all, short
from .signatures import Parameters
from .values import serialization

T = TypeVar("T")


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
            raise ActorDiedError(f"{self!r} is of {whose(self._runtime)}; create it again")
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

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *self._actor.methods})  # what a shell or a notebook completes to

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
        return one_or_all(current_engine().actor_calls.call(actor, self._name, (args, kwargs), self._options))

    def options(self, **options: Any) -> "ActorMethod":
        """Return the same method with some options changed; see `method` for the options.

        Raises:
            InputError: unknown option, bad value, or a concurrency group that the actor does not have.
        """
        changed = self._options.but(**options)
        actor = self._handle._actor
        changed.check_group(f"{actor.class_name}.{self._name}", actor.groups)
        return ActorMethod(self._handle, self._name, changed)

    def __repr__(self) -> str:
        return f"ActorMethod({self._handle!r}.{self._name})"

    def __call__(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuse a call without ``.remote``, with a TypeError that says so."""
        raise TypeError(f"method {self._name!r} of an actor is not called directly: use .{self._name}.remote(…)")
