"""How classes of the program itself (of ``__main__``, of functions) travel: with their definition, by cloudpickle.

As cloudpickle sends them, each value of such a class brings all of the class along, and whoever reads the value has the
attributes of the class set again, though it knows the class: counters jump back, and methods see copies of the
program's variables from then on. And what is rebuilt has no slots, so that its instances have a state which the
original cannot take. Hence here: where a class comes from, it stays as it is; a value fills it only where it is new;
code that is sent to be run, whose author may have changed the class since, brings its latest state; slots are slots.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MemberDescriptorType
from typing import Any
from weakref import WeakSet

# Classes that are this process's own and were sent from here, and those that it has rebuilt.
_own: WeakSet[type] = WeakSet()
_rebuilt: WeakSet[type] = WeakSet()

_State = tuple[Callable[[type, Any], None], Any]


def reduce_class(cls: type, reduced: Any, is_code: bool) -> Any:
    """Return how a class travels, given what cloudpickle makes of it; what it sends by reference stays as it is.

    Args:
        cls: the class.
        reduced: what cloudpickle's pickler returns for it, in the form of `__reduce__`.
        is_code: whether it is sent as a part of what is to be run, and not of a value.
    """
    if not isinstance(reduced, tuple) or len(reduced) != 6:
        return reduced
    if cls not in _rebuilt:
        _own.add(cls)
    make, arguments, (attributes, rest), _, _, set_state = reduced
    slots = vars(cls).get("__slots__")
    if slots is not None:
        kind, name, bases, namespace, *more = arguments
        arguments = (kind, name, bases, namespace | {"__slots__": slots}, *more)
        attributes = {
            name: value
            for name, value in attributes.items()
            if name != "__slots__" and type(value) is not MemberDescriptorType
        }
    return make, arguments, (set_state, (attributes, rest)), None, None, _refresh if is_code else _fill


def _fill(cls: type, state: _State) -> None:
    """Define a class that came inside a value, unless it is known."""
    if cls not in _own and cls not in _rebuilt:
        _define(cls, state)


def _refresh(cls: type, state: _State) -> None:
    """Define a class that came with code, unless it comes from here."""
    if cls not in _own:
        _define(cls, state)


def _define(cls: type, state: _State) -> None:
    set_state, attributes = state
    set_state(cls, attributes)
    _rebuilt.add(cls)
