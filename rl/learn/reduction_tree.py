"""The fixed binary tree in which the shards of a minibatch are summed.

A sum of floats depends on its order. Here the order follows from the number of shards alone: node [a, b) of the tree is
the sum of its two halves, of which the left one holds the largest power of two of shards below b − a. Who adds which
node, and what several add twice, does not change a bit of the root.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import TypeVar

Node = tuple[int, int]
"""Shards from the first to before the second."""
Value = TypeVar("Value")


def halves(node: Node) -> tuple[Node, Node]:
    """The two nodes whose sum a node of at least two shards is."""
    start, stop = node
    middle = start + (1 << ((stop - start - 1).bit_length() - 1))
    return (start, middle), (middle, stop)


def cover(part: Node, whole: Node) -> list[Node]:
    """The largest nodes of the tree over `whole` that together are the shards of `part`, from left to right."""
    if part[0] >= whole[1] or part[1] <= whole[0]:
        return []
    if part[0] <= whole[0] and whole[1] <= part[1]:
        return [whole]
    return [node for half in halves(whole) for node in cover(part, half)]


def total(
    node: Node,
    known: Mapping[Node, Value | None],
    leaf: Callable[[int], Value | None],
    add: Callable[[Value, Value], Value],
) -> Value | None:
    """The sum of a node: from nodes that are known, else from its halves; `leaf` gives what a shard of which nothing is
    known counts. None stands for nothing to add, and leaves the other half as it is."""
    if node in known:
        return known[node]
    if node[1] - node[0] == 1:
        return leaf(node[0])
    left, right = (total(half, known, leaf, add) for half in halves(node))
    if left is None or right is None:
        return right if left is None else left
    return add(left, right)


def even_parts(count: int, parts: int) -> list[Node]:
    """`count` things in `parts` contiguous parts whose sizes differ by one at most."""
    edges = [count * part // parts for part in range(parts + 1)]
    return list(pairwise(edges))
