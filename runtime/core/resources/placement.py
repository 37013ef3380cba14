"""On which nodes the bundles of a placement group go: one pure function."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from .amounts import Demand, in_amounts
from .capacity import Capacity

# Whether many bundles fit is a hard question in general; after so many tries, or two for each bundle, the answer is no.
_MOST_TRIES = 3_000


def place(bundles: Sequence[Demand], strategy: str, nodes: Sequence[Capacity]) -> list[int] | None:
    """Return for each bundle the index of its node; None if they do not all fit.

    Args:
        bundles: what each reserves.
        strategy: "PACK": on as few nodes as possible; "SPREAD": as evenly over as many as possible;
            "STRICT_PACK": on one; "STRICT_SPREAD": each on another one.
        nodes: what is free on each node, or all that it has, to ask whether the group can ever be placed.
    """
    few, many = len(nodes), len(bundles)
    # At most so many nodes, and so many bundles on each: the first pair that works is the best.
    limits = {
        "PACK": [(most, many) for most in range(1, few + 1)],
        "SPREAD": [(few, most) for most in range(1, many + 1)],
        "STRICT_PACK": [(1, many)],
        "STRICT_SPREAD": [(few, 1)],
    }[strategy]
    tries = max(_MOST_TRIES, 2 * many)
    for most_nodes, most_bundles in limits:
        if most_nodes * most_bundles >= many and _may_fit(bundles, nodes, most_nodes) and tries > 0:
            search = _Search(bundles, nodes, most_nodes, most_bundles, tries)
            if search.run():
                return search.chosen
            tries = search.tries
    return None


def never_reserved(group: object, strategy: str, bundles: Sequence[Demand], node: Demand) -> str:
    """Return why a placement group can never be reserved on a single node that has so much; "" if it can."""
    if place(bundles, strategy, [Capacity(node)]) is not None:
        return ""
    wanted = ", ".join(str(in_amounts(bundle)) for bundle in bundles)
    return (
        f"{group} can never be reserved on 1 node: {strategy} of {wanted}; the node has {in_amounts(node)}. Ask for "
        "less, or start the runtime with more"
    )


def _may_fit(bundles: Sequence[Demand], nodes: Sequence[Capacity], most_nodes: int) -> bool:
    """Return whether the nodes that have most of it have enough of each resource."""
    needed = Counter[str]()
    for bundle in bundles:
        needed.update(bundle)
    return all(
        sum(sorted((node.free.get(name, 0) for node in nodes), reverse=True)[:most_nodes]) >= units
        for name, units in needed.items()
    )


class _Search:
    """Tries the bundles one after the other, the largest first, on each node that is not like one tried before."""

    def __init__(
        self, bundles: Sequence[Demand], nodes: Sequence[Capacity], most_nodes: int, most_bundles: int, tries: int
    ) -> None:
        self._bundles = bundles
        self._nodes = [node.copy() for node in nodes]
        self._most_nodes, self._most_bundles = most_nodes, most_bundles
        totals = {name: sum(node.total.get(name, 0) for node in nodes) or 1 for bundle in bundles for name in bundle}
        # GPUs first: shares of them fit best when the largest are placed first.
        self._order = sorted(
            range(len(bundles)),
            key=lambda i: (-bundles[i].get("GPU", 0), -max(units / totals[name] for name, units in bundles[i].items())),
        )
        self._counts = [0] * len(nodes)
        self.chosen = [-1] * len(bundles)
        self.tries = tries

    def run(self) -> bool:
        # A loop with a stack of its own: there may be more bundles than calls can be nested.
        begun = [self._attempts(0)]
        while begun:
            if len(begun) > len(self._order):
                return True
            if next(begun[-1], False):
                begun.append(self._attempts(len(begun)))
            else:
                begun.pop()
        return False

    def _attempts(self, depth: int) -> Iterator[bool]:
        """Place a bundle on one node after the other: each time yield True, and take it away again before the next."""
        bundle = self._bundles[self._order[depth]]
        used = sum(count > 0 for count in self._counts)
        seen = set()
        # Nodes in use first: how many may be used was decided before.
        for node in sorted(range(len(self._nodes)), key=lambda node: -self._counts[node]):
            capacity, count = self._nodes[node], self._counts[node]
            like = (count, tuple(sorted(capacity.free.items())), tuple(sorted(capacity.gpus.values())))
            if like in seen or count == self._most_bundles or (count == 0 and used == self._most_nodes):
                continue
            seen.add(like)
            self.tries -= 1
            shares = capacity.take(bundle) if self.tries >= 0 else None
            if shares is not None:
                self._counts[node] += 1
                self.chosen[self._order[depth]] = node
                yield True
                self._counts[node] -= 1
                capacity.put_back(bundle, shares)
