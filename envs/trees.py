"""Nested values as named arrays beside JSON, exactly and without pickle.

Numbers, texts, None, bytes, lists, tuples, dicts, numpy arrays and scalars; that covers what a `get_state` returns.
"""

import base64
from collections.abc import Callable
from typing import Any

import numpy as np

# Others become texts: a JSON reader need not know integers of 128 bits, which a generator's state has.
_PLAIN_INTEGERS = range(-(2**63), 2**63)

# Types written as text: how to write and how to read them.
_TEXTS: dict[type, tuple[Callable[[Any], str], Callable[[str], Any]]] = {
    float: (float.hex, float.fromhex),
    int: (str, int),
    bytes: (lambda value: base64.b85encode(value).decode(), base64.b85decode),
}


def tree_to_arrays(value: Any, name: str, arrays: dict[str, np.ndarray]) -> Any:
    """Put the arrays of a nested value into `arrays`; return the rest as JSON.

    Args:
        value: the nested value.
        name: where it stands, such as "own_states": the arrays' names begin with it, and messages name the path.
        arrays: filled; must hold no arrays of another tree.

    Raises:
        TypeError: some part is of another type; the message names it.
    """
    kind = type(value)
    if value is None or kind in (bool, str) or (kind is int and value in _PLAIN_INTEGERS):
        return value
    if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        return {"array" if isinstance(value, np.ndarray) else "scalar": _keep(value, name, arrays)}
    if kind in (list, tuple):
        return {kind.__name__: [tree_to_arrays(item, f"{name}/{i}", arrays) for i, item in enumerate(value)]}
    if kind is dict and all(type(key) in (str, int) for key in value):
        return {"dict": [[key, tree_to_arrays(item, f"{name}/{key}", arrays)] for key, item in value.items()]}
    if kind in _TEXTS:
        return {kind.__name__: _TEXTS[kind][0](value)}
    raise TypeError(f"{name} is a {kind.__module__}.{kind.__qualname__} that can be neither an array nor JSON")


def can_be_arrays(value: Any) -> bool:
    """Return whether `tree_to_arrays` takes a value."""
    try:
        tree_to_arrays(value, "value", {})
    except TypeError:
        return False
    return True


def tree_from_arrays(tree: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Return the value that `tree_to_arrays` took apart."""
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind in ("array", "scalar"):
        return np.array(arrays[content]) if kind == "array" else arrays[content][()]
    if kind in ("list", "tuple"):
        items = [tree_from_arrays(item, arrays) for item in content]
        return items if kind == "list" else tuple(items)
    if kind == "dict":
        return {key: tree_from_arrays(item, arrays) for key, item in content}
    return next(read for text_kind, (_, read) in _TEXTS.items() if text_kind.__name__ == kind)(content)


def _keep(array: Any, name: str, arrays: dict[str, np.ndarray]) -> str:
    unique = f"{name.partition('/')[0]}.{len(arrays)}"
    arrays[unique] = np.array(array)
    return unique
