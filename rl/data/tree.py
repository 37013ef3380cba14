"""Trees: an array, or a dict or tuple of trees. Observations of a nested space are one, others a single leaf."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

Tree = Any
"""An array (numpy or torch), or dict[str, Tree], or tuple[Tree, …]."""


def tree_map(function: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    """The tree of `function(leaf, …)`, over the leaves of `tree` and those at the same places of `others`."""
    if isinstance(tree, np.ndarray):  # most are
        return function(tree, *others)
    if isinstance(tree, dict):
        return {key: tree_map(function, tree[key], *(other[key] for other in others)) for key in tree}
    if isinstance(tree, tuple):
        return tuple(tree_map(function, *parts) for parts in zip(tree, *others, strict=True))
    return function(tree, *others)


def as_array(leaf: Any) -> np.ndarray:
    """A leaf as an array: a tensor's own memory."""
    return leaf if isinstance(leaf, np.ndarray) else leaf.numpy()


def leaves(tree: Tree, name: str = "") -> Iterator[tuple[str, Any]]:
    """(path, leaf) of all leaves in order; the path of a leaf below `name` is such as "name/key/0"."""
    if isinstance(tree, dict | tuple):
        items = tree.items() if isinstance(tree, dict) else enumerate(tree)
        for key, part in items:
            yield from leaves(part, f"{name}/{key}" if name else str(key))
    else:
        yield name, tree
