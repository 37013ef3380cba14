"""What a call ends with: the values that its result stands for, or the error of a dead actor."""

from collections.abc import AsyncIterator, Callable, Iterator, Sized
from typing import Any

from ..exceptions import ActorDiedError, InputError, PendingCallsLimitExceeded
from .engine import ActorId
from .private_loop import PrivateLoop, drive
from .values.packed_exceptions import unpack_exception


def keep_returns(
    name: str, result: Any, num_returns: int, keep: Callable[[Any], object], step: Callable[[Callable[[], Any]], Any]
) -> BaseException | None:
    """Keep the values that a call's result stands for, any iterable, one after the other.

    Args:
        name: the call, for messages.
        result: what it returned.
        num_returns: how many values that should be.
        keep: keeps a value.
        step: calls the user's code.

    Returns:
        what a generator raised after the values that were kept; None: there are as many as there should be.

    Raises:
        ValueError: there are more or fewer.
        BaseException: what `keep` raises.
    """
    if num_returns == 1:
        keep(result)
        return None
    if num_returns == 0:
        return None
    values, end, count = _iterator(result), object(), 0
    if values is None:
        raise _wrong_count(name, num_returns, f"a {type(result).__name__}")
    if isinstance(result, Sized) and len(result) != num_returns:
        raise _wrong_count(name, num_returns, f"{len(result)} values")
    while True:
        try:
            value = step(lambda: next(values, end))
        except BaseException as error:  # what is kept is not worth less for it
            return error
        if (value is end) != (count == num_returns):
            raise _wrong_count(name, num_returns, f"{count + (value is not end)} values")
        if value is end:
            return None
        keep(value)
        count += 1


def _iterator(result: Any) -> Iterator[Any] | None:
    try:
        return iter(result)
    except TypeError:
        return None


def _wrong_count(name: str, num_returns: int, got: str) -> ValueError:
    return ValueError(f"{name} has num_returns={num_returns}, but returned {got}: return a tuple of {num_returns}")


def check_yields(result: Any) -> None:
    """Raise TypeError unless this is what a call with num_returns="streaming" can return."""
    if not isinstance(result, Iterator | AsyncIterator):
        raise TypeError(f"num_returns='streaming' is for generators, but it returned a {type(result).__name__}")


def values_of(result: Any, loop: PrivateLoop | None = None) -> Iterator[Any]:
    """Return what a call yields, one value after the other; what yields asynchronously is driven by `loop`.

    Raises:
        TypeError: it is not what yields.
    """
    check_yields(result)
    return drive(result, loop) if isinstance(result, AsyncIterator) else result


def too_many_calls(call: str, limit: int) -> PendingCallsLimitExceeded:
    """Return the error of a call that was not made."""
    count = "too many" if limit < 0 else limit  # it is not known here
    return PendingCallsLimitExceeded(
        f"{call}: {count} calls of this process to the actor have not been answered, and that is its "
        "max_pending_calls. Wait for some of them, or raise the limit"
    )


#: What to do about a dead actor, however it died.
ACTOR_AGAIN = "Create it again; from a crash, max_restarts would have it come back by itself"


def died(call: str, actor: ActorId, death: str, cause: bytes | None) -> ActorDiedError:
    """Return the error of a call to a dead actor; the constructor's exception is its cause."""
    error = ActorDiedError(f"{call}: actor {actor.class_name} ({actor.id.hex()[-10:]}) is dead: {death}. {ACTOR_AGAIN}")
    error.actor_id = actor.id.hex()
    if cause is not None:
        error.__cause__ = unpack_exception(cause)
    return error


def name_taken(name: str) -> InputError:
    """Return the error of a new actor whose name a living one has."""
    return InputError(
        f"an actor named {name!r} is alive. Use get_actor({name!r}), get_if_exists=True, or another name or namespace"
    )


class ActorExit(SystemExit):
    """Raised by `exit_actor`; ends the actor once it has left the method."""


def exit_code(request: SystemExit) -> int:
    """Return the code that a process ends with which is asked to end like this."""
    return request.code if isinstance(request.code, int) else int(request.code is not None)


def how_it_left(name: str, request: SystemExit) -> str:
    """Return why an actor is dead that has asked for its end in a call."""
    if isinstance(request, ActorExit):
        return f"exit_actor() was called in {name}"
    return f"it ended itself with exit code {request.code or 0} in {name}"
