"""How much of its node's store one process may use: a state machine without I/O.

    granted = used + reserved + spare

A process that needs memory for something asks for **all that this can take**, and gets it whole or not at all. What it
gets is reserved for that request, from the moment of the grant until it was used. So a grant is always enough, and a
process that waits holds nothing: neither a part of what it needs, nor what another could be given (`give_back` returns
all that is spare, whatever asks or waits). Two processes can therefore never hold what the other one waits for.
"""

from __future__ import annotations

#: Memory is accounted in units of so many bytes.
CHUNK = 1 << 16


def chunks(size: int) -> int:
    """Return a size in bytes, rounded up to whole chunks."""
    return -(-size // CHUNK) * CHUNK


class Budget:
    """One process's budget; all sizes in bytes.

    Args:
        capacity: what all processes of the node may use together.

    Attributes:
        granted: what this process may use.
        used: what it uses.
        reserved: what was granted to requests and not used yet.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity // CHUNK * CHUNK
        self.granted = self.used = self.reserved = 0
        self._asked: dict[int, int] = {}  # request → what is reserved for it
        self._numbers = 0

    @property
    def spare(self) -> int:
        """What was granted, and belongs to no request."""
        return self.granted - self.used - self.reserved

    def most(self, size: int) -> int:
        """Return how much memory so many bytes can take at most, wherever they begin in a chunk.

        More than the whole store only if they cannot fit: where all is granted nothing is used, and they begin at 0.
        """
        least = chunks(size)
        return least if least > self.capacity else min(least + CHUNK, self.capacity)

    def use(self, size: int) -> bool:
        """Use so much more, if that much is spare."""
        if size > self.spare:
            return False
        self.used += size
        return True

    def ask(self) -> int:
        """Begin a request; return its number."""
        self._numbers += 1
        self._asked[self._numbers] = 0
        return self._numbers

    def grant(self, request: int, size: int) -> None:
        """Event: so much more may be used. It is spare if the asker is gone."""
        self.granted += size
        if request in self._asked:
            self._asked[request] += size
            self.reserved += size

    def settle(self, request: int) -> None:
        """End a request: what is reserved for it is spare."""
        self.reserved -= self._asked.pop(request, 0)

    def stop_using(self, size: int) -> None:
        """Use so much less."""
        self.used -= size

    def give_back(self) -> int:
        """Give all that is spare back to the node; return how much that is."""
        spare = self.spare
        self.granted -= spare
        return spare
